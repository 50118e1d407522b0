"""Our enforcement against MLflow's own, on generated signatures and data: accepted alike, and cast alike.

    python -m tests.differential --pairs 20000

Needs MLflow and pandas. What we do otherwise on purpose is the table DIFFERENCES, each with its reason; anything else that
differs is a failure. `tests/test_differential.py` runs a short form, and each difference by itself.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import re
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tensign.errors import SignatureMismatch
from tensign.signature import Signature
from tensign.values import is_missing

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mlflow.models.utils import _enforce_schema
    from mlflow.types.schema import Schema

Document = list[dict[str, Any]]


@dataclass(frozen=True)
class Pair:
    """A signature's inputs and what a caller sends."""

    inputs: Document
    data: Any

    @property
    def types(self) -> dict[str, str]:
        return {entry.get("name", f"input-{at}"): entry["type"] for at, entry in enumerate(self.inputs)}


@dataclass(frozen=True)
class Verdict:
    """What one of the two said: the values by name, or None and the text of the refusal."""

    values: dict[str, Any] | None
    text: str = ""


def ours(pair: Pair) -> Verdict:
    """tensign's verdict; any error but SignatureMismatch is a failure."""
    signature = Signature.parse({"inputs": pair.inputs})
    try:
        return Verdict(dict(signature.enforce_inputs(copy.deepcopy(pair.data))))
    except SignatureMismatch as error:
        return Verdict(None, str(error))


def theirs(pair: Pair) -> Verdict:
    """MLflow's verdict, whatever it raises being a refusal."""
    schema = Schema.from_json(json.dumps(pair.inputs))
    logging.getLogger("mlflow.models.utils").disabled = True  # it warns of each extra input
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            got = _enforce_schema(copy.deepcopy(pair.data), schema)
        except Exception as error:
            return Verdict(None, f"{type(error).__name__}: {error}")
    if isinstance(got, pd.DataFrame):
        names = [entry.get("name", f"input-{at}") for at, entry in enumerate(pair.inputs)]
        labels = got.columns if schema.has_input_names() else names[: len(got.columns)]
        return Verdict({str(label): got.iloc[:, at] for at, label in enumerate(labels)})
    return Verdict(got if isinstance(got, dict) else {pair.inputs[0].get("name", "input-0"): got})


def plain(value: Any) -> Any:
    """A value in one form, whoever made it: missing is None, numpy's are Python's, datetimes are text."""
    if isinstance(value, pd.Series):
        return [plain(cell) for cell in value]
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "M":
            return [plain(cell) for cell in value]
        return [plain(cell) for cell in value.tolist()] if value.ndim else plain(value.item())
    if isinstance(value, list | tuple):
        return [plain(cell) for cell in value]
    if isinstance(value, dict):
        return {key: plain(cell) for key, cell in value.items()}
    if is_missing(value):
        return None
    if isinstance(value, date | np.datetime64):
        return f"datetime {pd.Timestamp(value).isoformat()}"
    if isinstance(value, np.generic):
        return plain(value.item())
    return bytes(value) if isinstance(value, bytearray) else value


def same(pair: Pair, we: dict[str, Any], they: dict[str, Any]) -> bool:
    """Equal names, values, and where a scalar's are numbers or datetimes also dtypes."""
    if we.keys() != they.keys():
        return False
    for name, array in we.items():
        dtype = they[name].dtype
        if isinstance(dtype, np.dtype) and dtype.kind in "biufM" and dtype != array.dtype and array.dtype != object:
            return False
        if pair.types.get(name) == "any":  # pandas makes floats of integers with missing values among them
            if plain(array) != plain(they[name]):
                return False
        elif repr(plain(array)) != repr(plain(they[name])):
            return False
    return True


def cells(value: Any) -> list[Any]:
    """Every value within."""
    if isinstance(value, dict):
        return [cell for one in value.values() for cell in cells(one)]
    if isinstance(value, list | tuple | pd.Series) or (isinstance(value, np.ndarray) and value.dtype.kind == "O"):
        return [cell for one in value for cell in cells(one)]
    if isinstance(value, pd.DataFrame):
        return [cell for name in value for cell in cells(value[name])]
    return [value]


@dataclass(frozen=True)
class Difference:
    """Where we differ from MLflow on purpose.

    covers: (pair, our verdict, MLflow's) -> whether this is such a case; example: a pair where it is.
    """

    name: str
    reason: str
    covers: Callable[[Pair, Verdict, Verdict], bool]
    example: Pair


def refuses(pattern: str, where: Callable[[Pair], bool] = lambda pair: True) -> Callable[[Pair, Verdict, Verdict], bool]:
    """We refuse in these words what MLflow accepts."""

    def covers(pair: Pair, we: Verdict, they: Verdict) -> bool:
        return we.values is None and they.values is not None and re.search(pattern, we.text) is not None and where(pair)

    return covers


def accepts(where: Callable[[Pair], bool]) -> Callable[[Pair, Verdict, Verdict], bool]:
    """We accept, of these pairs, what MLflow refuses, or reads otherwise."""
    return lambda pair, we, they: we.values is not None and where(pair)


def column(kind: str, name: str | None = "a", **more: Any) -> dict[str, Any]:
    """A column's entry in a signature."""
    return {"type": kind, **({} if name is None else {"name": name}), **more}


def tensor(dtype: str, shape: list[int], name: str | None = None) -> dict[str, Any]:
    """A tensor's entry in a signature."""
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}, **({} if name is None else {"name": name})}


def is_arrays(data: Any) -> bool:
    return isinstance(data, dict) and bool(data) and all(isinstance(v, np.ndarray) and v.ndim for v in data.values())


def compound(pair: Pair) -> bool:
    return any(kind in ("array", "object", "map", "any") for kind in pair.types.values())


def tensors(pair: Pair) -> bool:
    return bool(pair.inputs[0]["type"] == "tensor")


def frame(pair: Pair) -> bool:
    return isinstance(pair.data, pd.DataFrame)


def has_bytes(pair: Pair) -> bool:
    return any(isinstance(cell, bytes) for cell in cells(pair.data)) or any(
        isinstance(value, np.ndarray) and value.dtype.kind == "S" for value in cells(pair.data)
    )


def text_tensor(pair: Pair) -> bool:
    return tensors(pair) and any(entry["tensor-spec"]["dtype"] in ("object", "str", "bytes") for entry in pair.inputs)


def nullable(pair: Pair) -> bool:
    return frame(pair) and any(not isinstance(dtype, np.dtype) for dtype in pair.data.dtypes)


def has_moment(pair: Pair) -> bool:
    return any(isinstance(cell, datetime) for cell in cells(pair.data))


def datetime_within(pair: Pair) -> bool:
    """A datetime is declared inside a map or an object, or in an array inside one."""
    return any(entry["type"] in ("array", "map", "object") and '"datetime"' in json.dumps(entry) for entry in pair.inputs)


def list_of_text(pair: Pair) -> bool:
    """A dict of scalars and lists of text, at least one of them a list."""
    if tensors(pair) or not isinstance(pair.data, dict):
        return False
    lists = [value for value in pair.data.values() if isinstance(value, list)]
    return bool(lists) and all(isinstance(cell, str) for value in lists for cell in value)


def void_text(pair: Pair) -> bool:
    """A column of text, bytes or booleans has nothing but missing values, NaN among them."""
    return any(map(_is_nan, cells(pair.data))) and any(kind in ("string", "binary") for kind in pair.types.values())


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value


# What is generated.

SCALARS = ("boolean", "integer", "long", "float", "double", "string", "binary", "datetime")
NUMBERS = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    ">i4",
    ">f8",
)
DATES = ("datetime64[ns]", "datetime64[us]", "datetime64[s]", "datetime64[D]")
TEXTS = ("<U3", "S3")

integers = st.one_of(
    st.sampled_from([0, 1]), st.integers(-5, 300), st.sampled_from([2**31, 2**53 + 1, -(2**63), 2**63 - 1, 2**63, 2**64])
)
floats = st.sampled_from([0.0, 1.0, 1.7, -2.5, 1e300, float("nan"), float("inf"), 2.0**53])
texts = st.sampled_from(["", "a", "3", "1.5", "é", "2024-05-06", "nan", "true"])
contents = st.sampled_from([b"", b"a", b"\xff", b"3", b"2024-05-06", b"[1]"])
moments = st.sampled_from(
    [datetime(2024, 5, 6, 7, 8, 9), datetime(1970, 1, 1), datetime(1, 1, 1), datetime(2024, 5, 6, 7, 8, 9, 10)]
)
days = st.sampled_from([date(2024, 5, 6), date(9999, 1, 1)])
decimals = st.sampled_from([Decimal("1.5"), Decimal(3)])
missing = st.sampled_from([None, float("nan")])
numpy_cells = st.sampled_from(
    [np.int32(3), np.int64(1), np.int64(7), np.float32(1.5), np.float64(2.5), np.bool_(True), np.uint8(9)]
)
cells_of = {
    "boolean": st.booleans(),
    "integer": integers,
    "long": integers,
    "float": floats,
    "double": floats,
    "string": texts,
    "binary": contents,
    "datetime": moments,
}
odd = st.one_of(
    integers,
    floats,
    texts,
    contents,
    moments,
    days,
    decimals,
    missing,
    numpy_cells,
    st.booleans(),
    st.just([1]),
    st.just({"x": 1}),
)


@st.composite
def arrays(draw: st.DrawFn, rows: int, kind: str = "") -> Any:
    """A numpy array [rows] of some dtype, more often one that fits."""
    near = {
        "boolean": ("bool",),
        "integer": ("int8", "int16", "int32", "uint16", ">i4"),
        "long": ("int32", "int64", "uint32", "uint64"),
        "float": ("float16", "float32", "int64"),
        "double": ("float32", "float64", "int32", "int64", ">f8"),
        "string": ("<U3",),
        "binary": ("S3",),
        "datetime": DATES,
    }.get(kind, NUMBERS)
    dtype = np.dtype(draw(st.sampled_from(near if draw(st.booleans()) else (*NUMBERS, *DATES, *TEXTS))))
    values = draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows))
    array = np.array(values).astype(dtype) if dtype.kind != "M" else np.array(values, "int64").astype(dtype)
    if rows and dtype.kind == "f" and draw(st.integers(0, 4)) == 0:
        array[0] = np.nan
    return array


@st.composite
def values(draw: st.DrawFn, entry: dict[str, Any], rows: int) -> Any:
    """A column of `rows`, a list or an array, often as its entry wants it."""
    kind = entry["type"]
    if kind in SCALARS:
        choice = draw(st.integers(0, 9))
        if choice < 4:
            return draw(arrays(rows, kind))
        if choice < 7:
            return draw(st.lists(cells_of[kind], min_size=rows, max_size=rows))
        if choice < 9:
            return draw(st.lists(st.one_of(cells_of[kind], missing), min_size=rows, max_size=rows))
        return draw(st.lists(odd, min_size=rows, max_size=rows))
    return [draw(cell(entry)) for _ in range(rows)]


@st.composite
def cell(draw: st.DrawFn, entry: dict[str, Any]) -> Any:
    """One value, mostly as its entry wants it."""
    if draw(st.integers(0, 14)) == 0:
        return draw(odd)
    match entry["type"]:
        case "array" | "sparkml_vector":
            items = entry.get("items", {"type": "double"})
            if items["type"] in SCALARS and draw(st.integers(0, 3)) == 0:
                return draw(arrays(draw(st.integers(0, 3)), items["type"]))
            return [draw(cell(items)) for _ in range(draw(st.integers(0, 3)))]
        case "map":
            return {key: draw(cell(entry["values"])) for key in draw(st.lists(st.sampled_from("xyz"), unique=True, max_size=2))}
        case "object":
            found = {}
            for name, of in entry["properties"].items():
                if of["required"] or draw(st.booleans()):
                    found[name] = draw(cell(of))
            if draw(st.integers(0, 19)) == 0:
                found["extra"] = 1
            return found
        case "any":
            return draw(odd)
        case kind:
            return draw(cells_of[kind])


@st.composite
def entries(draw: st.DrawFn, depth: int = 2) -> dict[str, Any]:
    """A column type, three of four a scalar."""
    if depth == 0 or draw(st.integers(0, 3)):
        return {"type": draw(st.sampled_from(SCALARS))}
    match draw(st.sampled_from(["array", "array", "object", "map", "any", "sparkml_vector"])):
        case "array":
            return {"type": "array", "items": draw(entries(depth - 1))}
        case "map":
            return {"type": "map", "values": draw(entries(depth - 1))}
        case "object":
            names = draw(st.lists(st.sampled_from("pqr"), unique=True, min_size=1, max_size=2))
            properties = {}
            for name in names:
                of = draw(entries(depth - 1))
                if of["type"] == "sparkml_vector":  # which MLflow refuses in an object
                    of = {"type": "double"}
                properties[name] = {**of, "required": draw(st.booleans())}
            return {"type": "object", "properties": properties}
        case kind:
            return {"type": kind}


@st.composite
def column_pairs(draw: st.DrawFn) -> Pair:
    """A column signature, and data in one of the forms."""
    named = draw(st.integers(0, 4)) > 0
    inputs = []
    for name in "abc"[: draw(st.sampled_from([1, 1, 1, 2, 3]))]:
        entry = draw(entries())
        if named:
            entry |= {"name": name, "required": draw(st.integers(0, 3)) > 0}
        inputs.append(entry)
    rows = draw(st.integers(1, 3))
    names: list[Any] = [entry.get("name", at) for at, entry in enumerate(inputs)]
    table: dict[Any, Any] = {name: draw(values(entry, rows)) for name, entry in zip(names, inputs, strict=True)}
    accident = draw(st.integers(0, 19))
    if accident == 0:
        table.pop(names[-1])
    elif accident == 1:
        table["extra" if named else len(names)] = [1] * rows
    match draw(
        st.sampled_from(
            ["frame", "frame", "objects", "nullable", "dict", "arrays", "records", "records", "rows", "row", "grid"]
        )
    ):
        case "frame":
            return Pair(inputs, pd.DataFrame({name: pd.Series(_listed(column)) for name, column in table.items()}))
        case "objects":
            frame = pd.DataFrame({name: pd.Series(list(column), dtype=object) for name, column in table.items()})
            return Pair(inputs, frame)
        case "nullable":
            frame = pd.DataFrame({name: pd.Series(_listed(column)) for name, column in table.items()})
            return Pair(inputs, frame.convert_dtypes())
        case "dict":
            return Pair(inputs, {str(name): column for name, column in table.items()})
        case "arrays":
            return Pair(inputs, {str(name): np.asarray(pd.Series(_listed(column))) for name, column in table.items()})
        case "records":
            keys = [str(name) for name in table]
            return Pair(inputs, [dict(zip(keys, row, strict=True)) for row in zip(*table.values(), strict=True)])
        case "rows":
            return Pair(inputs, [list(row) for row in zip(*table.values(), strict=True)])
        case "row":
            return Pair(inputs, {str(name): next(iter(column)) for name, column in table.items()})
        case _:
            wide = draw(st.integers(1, 3))
            return Pair(inputs, draw(arrays(rows * wide, inputs[0]["type"])).reshape(rows, wide))


def _listed(column: Any) -> Any:
    return column if isinstance(column, np.ndarray) else list(column)


@st.composite
def tensor_pairs(draw: st.DrawFn) -> Pair:
    """A tensor signature, and data in one of the forms."""
    names: list[Any] = draw(st.sampled_from([[None], [None], ["x"], ["x", "y"]]))
    inputs: Document = []
    table: dict[Any, Any] = {}
    rows = draw(st.integers(1, 3))
    for name in names:
        dtype = draw(st.sampled_from([*NUMBERS[:12], "object", "str"]))
        shape = [draw(st.sampled_from([-1, -1, -1, 2])), *draw(st.lists(st.sampled_from([-1, 1, 2, 3]), max_size=3))]
        inputs.append(tensor(dtype, shape, name))
        axes = [rows if shape[0] == -1 else shape[0], *(axis if axis > 0 else draw(st.integers(1, 3)) for axis in shape[1:])]
        if draw(st.integers(0, 4)) == 0:
            axes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
        if draw(st.integers(0, 4)) == 0:
            dtype = draw(st.sampled_from([*NUMBERS, "object", "<U3", "datetime64[s]"]))
        table[name] = np.ones(axes, "int64").astype(dtype)
    match draw(st.sampled_from(["as it is", "as it is", "as it is", "extra", "bare", "lists", "cells", "arrays", "grid"])):
        case "extra":
            return Pair(inputs, {**{str(name or "x"): array for name, array in table.items()}, "extra": np.ones(rows)})
        case "bare":
            return Pair(inputs, next(iter(table.values())))
        case "lists":
            return Pair(inputs, {str(name or "x"): array.tolist() for name, array in table.items()})
        case "cells" if len({len(array) for array in table.values()}) == 1:
            flat = {name or "x": array.reshape(len(array), -1).tolist() for name, array in table.items()}
            if draw(st.booleans()):
                flat = {name: [cell[0] if len(cell) == 1 else cell for cell in column] for name, column in flat.items()}
            return Pair(inputs, pd.DataFrame({name: pd.Series(column) for name, column in flat.items()}))
        case "arrays" if len({len(array) for array in table.values()}) == 1:
            flat_arrays = {name or "x": list(array.reshape(len(array), -1)) for name, array in table.items()}
            return Pair(inputs, pd.DataFrame({name: pd.Series(column) for name, column in flat_arrays.items()}))
        case "grid":
            first = next(iter(table.values()))
            return Pair(inputs, pd.DataFrame(first.reshape(len(first), -1)))
        case _:
            return Pair(inputs, table[None] if None in table else dict(table))


PAIRS = st.one_of(column_pairs(), column_pairs(), column_pairs(), tensor_pairs())


def objects_in(kind: str) -> Callable[[Pair, Verdict, Verdict], bool]:
    """We refuse by its cells a column of that type that MLflow holds as objects, or a list within one."""
    return refuses(rf"expected (array<)?{kind}>?, got ")


DIFFERENCES = (
    Difference(
        "an input nobody asked for",
        "MLflow drops it with a line in its log. A misspelt optional input would be lost; mlflow-compat drops it.",
        refuses("^unexpected input"),
        Pair([column("long")], {"a": np.array([1]), "b": np.array([2])}),
    ),
    Difference(
        "no rows",
        "There is nothing to predict, and nothing to count rows by where every column is optional and absent.",
        refuses("expected at least 1 row|expected axes of at least 1|^expected at least one of"),
        Pair([tensor("float32", [-1, 2])], np.zeros((0, 2), np.float32)),
    ),
    Difference(
        "unequal rows",
        "Axis 0 counts rows, which batches share out.",
        refuses("disagree on the number of rows"),
        Pair([tensor("int64", [-1], "x"), tensor("int64", [-1], "y")], {"x": np.array([1]), "y": np.array([1, 2])}),
    ),
    Difference(
        "objects of any kind in a column of text, bytes or booleans",
        "MLflow passes an object column to a model unchecked, numbers in a string column included, and of a list of booleans"
        " makes True of whatever is in it.",
        objects_in("(string|binary|boolean)"),
        Pair([column("string")], pd.DataFrame({"a": pd.Series([1, {"x": 2}], dtype=object)})),
    ),
    Difference(
        "text or booleans among the numbers of a double column",
        "MLflow gives every object column for a double to pandas.to_numeric, which parses text.",
        objects_in("double"),
        Pair([column("double")], pd.DataFrame({"a": pd.Series([1.5, "2"], dtype=object)})),
    ),
    Difference(
        "integers beyond 64 bits in a double column",
        "MLflow leaves them objects. Those that a double holds become doubles, the others are refused.",
        lambda pair, we, they: (
            "double" in pair.types.values()
            and any(isinstance(cell, int) and cell.bit_length() > 63 for cell in cells(pair.data))
        ),
        Pair([column("double")], [{"a": 2**64}]),
    ),
    Difference(
        "datetimes mixed with other things",
        "MLflow gives every object column for a datetime to pandas.astype, which parses text and reads numbers as nanoseconds.",
        objects_in("datetime"),
        Pair([column("datetime")], pd.DataFrame({"a": pd.Series([datetime(2024, 5, 6), "2024-05-07"], dtype=object)})),
    ),
    Difference(
        "a missing value in a list of text, bytes or booleans",
        "MLflow makes the text 'nan' of it, or False.",
        refuses("got a missing value in it"),
        Pair([column("array", items={"type": "string"})], [{"a": ["x", None]}]),
    ),
    Difference(
        "an object tensor of one axis takes text only",
        "MLflow lets anything through where it reads object [-1], and arrays of objects where another axis is of any length:"
        " its sign for ragged data, which cannot be batched.",
        refuses(r"expected (object \[-1\]|.*,-1.*\]), got", tensors),
        Pair([tensor("object", [-1])], np.zeros((2, 2), np.uint8)),
    ),
    Difference(
        "text in any of numpy's forms",
        "MLflow tells str from bytes from object; on the wire all three are BYTES, and the width of text is nobody's promise.",
        accepts(text_tensor),
        Pair([tensor("str", [-1])], np.array(["a"], object)),
    ),
    Difference(
        "a DataFrame's cells cast to a tensor",
        "MLflow casts lists and scalars without looking, 1.7 to 1, and takes arrays of any dtype.",
        refuses(r"expected \w+ \[.*(got|which cannot hold)|cells of other lengths", lambda pair: tensors(pair) and frame(pair)),
        Pair([tensor("uint8", [-1, 1])], pd.DataFrame({"a": [1.7]})),
    ),
    Difference(
        "an unnamed tensor by name",
        "Every transport names its tensors: one without a name is input-0.",
        accepts(lambda pair: tensors(pair) and isinstance(pair.data, dict) and set(pair.data) == {"input-0"}),
        Pair([tensor("int64", [-1])], {"input-0": np.array([1])}),
    ),
    Difference(
        "a dict of arrays is columns",
        "MLflow reads it as one row where a column is an array or an object. [n,1] counts as [n].",
        lambda pair, we, they: (
            is_arrays(pair.data)
            and not tensors(pair)
            and (we.values is not None or not {"array", "object", "sparkml_vector"}.isdisjoint(pair.types.values()))
        ),
        Pair([column("array", items={"type": "long"})], {"a": np.array([[1], [2, 3], None], object)[:2]}),
    ),
    Difference(
        "a dict of lists of text is columns",
        "MLflow reads it as one row, whose string columns hold lists.",
        accepts(list_of_text),
        Pair([column("string")], {"a": ["x", "y"]}),
    ),
    Difference(
        "a row with a datetime",
        "MLflow takes a dict of scalars for a row, but not where one of them is a datetime or a dict.",
        accepts(lambda pair: isinstance(pair.data, dict) and not any(isinstance(v, list) for v in pair.data.values())),
        Pair([column("datetime")], {"a": datetime(2024, 5, 6)}),
    ),
    Difference(
        "a dict of dicts",
        "MLflow hands it to pandas, which takes the inner keys for labels of rows.",
        lambda pair, we, they: isinstance(pair.data, dict) and any(isinstance(value, dict) for value in pair.data.values()),
        Pair([column("float")], {"a": {"x": 1}}),
    ),
    Difference(
        "pandas' nullable dtypes",
        "Taken as numpy's, where MLflow takes Int64 for no int64, and fails on a missing value.",
        accepts(nullable),
        Pair([column("double")], pd.DataFrame({"a": pd.Series([1], dtype="Int64")})),
    ),
    Difference(
        "nothing but missing text",
        "A column of NaN alone is floats to pandas, which MLflow refuses for text; with one text among them it is not.",
        accepts(void_text),
        Pair([column("string")], [{"a": float("nan")}]),
    ),
    Difference(
        "datetimes inside arrays, objects and maps",
        "MLflow refuses them there, or makes nanoseconds of them; they become datetimes.",
        accepts(datetime_within),
        Pair([column("map", values={"type": "datetime"})], [{"a": {"x": datetime(2024, 5, 6)}}]),
    ),
    Difference(
        "a map of sparkml_vectors",
        "MLflow reads this type as a sparkml_vector without a map.",
        lambda pair, we, they: '"values": {"type": "sparkml_vector"' in json.dumps(pair.inputs),
        Pair([column("map", values={"type": "sparkml_vector"})], [{"a": {"x": [1.0]}}]),
    ),
    Difference(
        "bytes for text, datetimes and compound values",
        "On the wire these are BYTES: UTF-8, ISO 8601 and JSON. MLflow leaves bytes in a string column as they are.",
        lambda pair, we, they: (
            not tensors(pair)
            and has_bytes(pair)
            and (we.values is not None or "UTF-8" in we.text or "JSON" in we.text or "date and time" in we.text)
        ),
        Pair([column("string")], [{"a": b"x"}]),
    ),
)


def judge(pair: Pair, seen: Counter[str]) -> None:
    """Counts what the two say of a pair. Raises AssertionError for a difference that is not in the table."""
    we, they = ours(pair), theirs(pair)
    if we.values is None and they.values is None:
        seen["both refuse"] += 1
    elif we.values is not None and they.values is not None and same(pair, we.values, they.values):
        seen["both accept"] += 1
    else:
        name = next((difference.name for difference in DIFFERENCES if difference.covers(pair, we, they)), None)
        assert name is not None, f"{pair}\n  we: {we}\n  MLflow: {they}"
        seen[name] += 1


def run(pairs: int, *, repeatable: bool = False) -> Counter[str]:
    """Generates that many pairs, the same ones every time where it is to be repeatable; what came of them."""
    seen: Counter[str] = Counter()

    @settings(max_examples=pairs, deadline=None, database=None, derandomize=repeatable, suppress_health_check=list(HealthCheck))
    @given(PAIRS)
    def each(pair: Pair) -> None:
        judge(pair, seen)

    each()
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20_000)
    seen = run(parser.parse_args().pairs)
    for name, count in seen.most_common():
        print(f"{count:8} {name}")
    print(f"{seen.total():8} in all")


if __name__ == "__main__":
    main()
