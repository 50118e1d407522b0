"""`/invocations` beside MLflow's own scoring server: the same models, the same bytes, the same answers."""

from __future__ import annotations

import http.client
import io
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import SHARED
from tensign.config import ModelConfig
from tensign.model import Model
from tensign.testing import running

HERE = Path(__file__).parent
JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"
TENSORS = ("digits-onnx", "digits-pytorch-mlflow2")
TABLES = ("heart-sklearn", "heart-sklearn-skops")
Body = tuple[Any, str]  # what is no bytes is sent as JSON; the content type

# Where we decide otherwise than MLflow, and why.
_TRUNCATED = "MLflow's server cuts 1.7 to 1, wraps 2**63 and takes 1e300 for an integer: no value is changed silently here"
_TRUTH = "whatever is not empty is True to MLflow's server, and null False: only true, false, 0 and 1 are booleans here"
_TEXT = "a text among numbers of a tensor is a mistake here; MLflow's server reads the number in it"
_OURS = "a request that breaks MLflow's parser is the client's fault here, not the server's"
_NESTED = "cells as nested as the tensor are clear enough; MLflow's server takes flat ones only"
_ROWS = "rows that name the tensor are clear enough; MLflow's server takes them as instances only"
_TWICE = "a name that stands twice is ambiguous, and refused"
_FAILS = "a model that fails on what its signature allows is the server's fault"
_NUMBER = "a number in a string column is its text here; MLflow's server leaves it the number"
_MOMENT = "a number is no moment here; MLflow's server takes it for nanoseconds since 1970"
_FORMATS = "each moment may be written in its own form of ISO 8601; pandas wants one form for a column"
_NO_BYTES = "missing bytes are missing where the column is optional; MLflow's server fails on them"
DELIBERATE: dict[str, str] = {
    "1e300 for float": _TRUNCATED,
    "number texts": _TEXT,
    "deep": _OURS,
    "huge integer": _OURS,
    "nested cells": _NESTED,
    "nested records": _NESTED,
    "inputs as rows that name it": _ROWS,
    "one name twice": _TWICE,
    **{f"1.7 for {name}": _TRUNCATED for name in ("age", "integer", "long", "integer inputs", "long inputs")},
    **{f"{huge} for {name}": _TRUNCATED for huge in ("2**63", "1e300") for name in ("integer", "long")},
    **{
        f"{value} for boolean": _TRUTH
        for value in ("1.7", "null", "2**63", "1e300", "300", "-1", "'abc'", "'3'", "[1]", "'2024-01-01'", "{'a': 1}")
    },
    **{
        f"{value} for boolean inputs": _TRUTH
        for value in ("1.7", "null", "300", "-1", "2**63", "1e300", "'abc'", "'3'", "'2024-01-01'")
    },
    "null for oldpeak": _FAILS,
    **{f"{value} for string": _NUMBER for value in ("1.7", "300", "-1", "2**63", "1e300", "true")},
    **{f"{value} for datetime": _MOMENT for value in ("1.7", "300", "-1", "1e300")},
    "moments of two forms": _FORMATS,
    "null for binary": _NO_BYTES,
    "'2024-01-01' for binary": "bytes are base64, and nothing else: MLflow's server skips what is none",
    "no type": _OURS,
    **{f"{value} for string": "a list or map is no text; MLflow's server lets it through" for value in ("[1]", "{'a': 1}")},
}


def _rows(x: np.ndarray[Any, Any]) -> Any:
    return x.tolist()


def _flat(x: np.ndarray[Any, Any]) -> Any:
    return [row.ravel().tolist() for row in x]


TENSOR_CASES: dict[str, Callable[[Any], Any]] = {
    "inputs": lambda x: {"inputs": _rows(x)},
    "inputs by name": lambda x: {"inputs": {"image": _rows(x)}},
    "inputs as rows that name it": lambda x: {"inputs": [{"image": row} for row in _rows(x)]},
    "instances": lambda x: {"instances": _rows(x)},
    "instances by name": lambda x: {"instances": {"image": _rows(x)}},
    "instances that name it": lambda x: {"instances": [{"image": row} for row in _rows(x)]},
    "nested cells": lambda x: {"dataframe_split": {"columns": ["image"], "data": [[row] for row in _rows(x)]}},
    "flat cells": lambda x: {"dataframe_split": {"columns": ["image"], "data": [[row] for row in _flat(x)]}},
    "flat cells without names": lambda x: {"dataframe_split": {"data": [[row] for row in _flat(x)]}},
    "nested records": lambda x: {"dataframe_records": [{"image": row} for row in _rows(x)]},
    "flat records": lambda x: {"dataframe_records": [{"image": row} for row in _flat(x)]},
    "one more input": lambda x: {"inputs": {"image": _rows(x), "other": [1]}},
    "another name": lambda x: {"inputs": {"img": _rows(x)}},
    "another rank": lambda x: {"inputs": _rows(x)[0]},
    "another axis": lambda x: {"inputs": np.zeros((1, 3, 4, 5)).tolist()},
    "ragged": lambda x: {"inputs": [_rows(x)[0], _rows(x)[1][:2]]},
    "a text": lambda x: {"inputs": "abc"},
    "number texts": lambda x: {"inputs": x.astype(str).tolist()},
    "booleans": lambda x: {"inputs": (x > 0).tolist()},
    "integers": lambda x: {"inputs": x.astype(int).tolist()},
    "NaN": lambda x: {"inputs": (x * math.nan).tolist()},
    "null": lambda x: {"inputs": np.full(x.shape, None).tolist()},
    "no rows": lambda x: {"inputs": []},
    "params nobody declared": lambda x: {"inputs": _rows(x), "params": {"a": 1}},
    "params null": lambda x: {"inputs": _rows(x), "params": None},
    "params as a list": lambda x: {"inputs": _rows(x), "params": [1]},
    "another key": lambda x: {"inputs": _rows(x), "other": 1},
}
TABLE_CASES: dict[str, Callable[[Any], Any]] = {
    "split": lambda t: {"dataframe_split": {"columns": t.names, "data": t.rows}},
    "split with an index": lambda t: {"dataframe_split": {"columns": t.names, "data": t.rows, "index": [5, 6, 7, 8]}},
    "split with a short index": lambda t: {"dataframe_split": {"columns": t.names, "data": t.rows, "index": [5]}},
    "split without names": lambda t: {"dataframe_split": {"data": t.rows}},
    "split in another order": lambda t: {"dataframe_split": {"columns": t.names[::-1], "data": [row[::-1] for row in t.rows]}},
    "records": lambda t: {"dataframe_records": t.records},
    "records, a cell missing": lambda t: {"dataframe_records": [*t.records, t.without("age")[0]]},
    "records, a column missing": lambda t: {"dataframe_records": t.without("age")},
    "records, one more column": lambda t: {"dataframe_records": t.filled("other", 1)},
    "records, none": lambda t: {"dataframe_records": []},
    "split, none": lambda t: {"dataframe_split": {"columns": t.names, "data": []}},
    "inputs as records": lambda t: {"inputs": t.records},
    "inputs as records, one more column": lambda t: {"inputs": t.filled("other", 1)},
    "inputs as columns": lambda t: {"inputs": t.columns},
    "inputs as one record": lambda t: {"inputs": t.records[0]},
    "inputs as rows": lambda t: {"inputs": t.rows},
    "instances as records": lambda t: {"instances": t.records},
    "instances as columns": lambda t: {"instances": t.columns},
    "instances as columns of two lengths": lambda t: {"instances": {**t.columns, "age": [1]}},
    "null for age": lambda t: {"dataframe_records": t.filled("age", None)},
    "null for oldpeak": lambda t: {"dataframe_records": t.filled("oldpeak", None)},
    "null for thal": lambda t: {"dataframe_records": t.filled("thal", None)},
    "text for age": lambda t: {"dataframe_records": t.filled("age", "abc")},
    "number text for age": lambda t: {"dataframe_records": t.filled("age", "50")},
    "number text for oldpeak": lambda t: {"dataframe_records": t.filled("oldpeak", "1.5")},
    "1.0 for age": lambda t: {"dataframe_records": t.filled("age", 50.0)},
    "1.7 for age": lambda t: {"dataframe_records": t.filled("age", 1.7)},
    "true for age": lambda t: {"dataframe_records": t.filled("age", True)},
    "list for age": lambda t: {"dataframe_records": t.filled("age", [1])},
    "integer for oldpeak": lambda t: {"dataframe_records": t.filled("oldpeak", 1)},
}
CSV_CASES: dict[str, Callable[[Any], Body]] = {
    "CSV": lambda frame: (frame.to_csv(index=False).encode(), CSV),
    "CSV and charset": lambda frame: (frame.to_csv(index=False).encode(), f"{CSV}; charset=utf-8"),
    "CSV with an index": lambda frame: (frame.to_csv().encode(), CSV),
    "CSV in another order": lambda frame: (frame[frame.columns[::-1]].to_csv(index=False).encode(), CSV),
    "CSV, a column missing": lambda frame: (frame.drop(columns="age").to_csv(index=False).encode(), CSV),
    "CSV, a blank": lambda frame: (frame.assign(age=[1, None, 2, 3]).to_csv(index=False).encode(), CSV),
    "CSV, 1.7 for age": lambda frame: (frame.assign(age=1.7).to_csv(index=False).encode(), CSV),
    "CSV, nothing": lambda frame: (b"", CSV),
    "CSV, names only": lambda frame: (frame[:0].to_csv(index=False).encode(), CSV),
    "CSV, ragged": lambda frame: (frame.to_csv(index=False).encode() + b"1,2,3\n", CSV),
    "CSV, not UTF-8": lambda frame: (b"\xff\xfe", CSV),
    "Parquet": lambda frame: (_parquet(frame), PARQUET),
    "Parquet, cut off": lambda frame: (_parquet(frame)[:100], PARQUET),
}
BODIES: dict[str, Body] = {
    "nothing": (b"", JSON),
    "cut off": (b"{", JSON),
    "number": (1, JSON),
    "null body": (None, JSON),
    "list": ([1], JSON),
    "text": ("a", JSON),
    "empty map": ({}, JSON),
    "two forms": ({"inputs": [1], "instances": [1]}, JSON),
    "an unknown form": ({"x": 1}, JSON),
    "not UTF-8": (b'{"inputs":"\xff"}', JSON),
    "UTF-16": ('{"inputs":[1]}'.encode("utf-16"), JSON),
    "split as a list": ({"dataframe_split": [1]}, JSON),
    "split without data": ({"dataframe_split": {"columns": ["a"]}}, JSON),
    "split with more": ({"dataframe_split": {"data": [[1]], "more": 1}}, JSON),
    "records as a map": ({"dataframe_records": {"a": 1}}, JSON),
    "inputs null": ({"inputs": None}, JSON),
    "inputs true": ({"inputs": True}, JSON),
    "deep": (b'{"inputs":' + b"[" * 3000 + b"]" * 3000 + b"}", JSON),
    "huge integer": (b'{"inputs":[1' + b"0" * 5000 + b"]}", JSON),
    "no type": (b"{}", ""),
    "plain text": (b"{}", "text/plain"),
    "another charset": (b"{}", f"{JSON}; charset=latin-1"),
    "another parameter": (b"{}", f"{JSON}; format=pandas-split"),
}
VALUES: dict[str, list[Any]] = {
    "boolean": [True, False],
    "integer": [1, -2],
    "long": [2**40, 3],
    "float": [0.1, 2],
    "double": [0.1, math.nan],
    "string": ["a", "bé"],
    "binary": ["QUJD", "/w=="],
    "datetime": ["2024-01-02T03:04:05", "2024-01-02T03:04:06"],
    "array": [[1, 2], [3]],
    "object": [{"a": "x", "b": 1.5}, {"a": "y", "b": 2.5}],
    "map": [{"k": 1}, {"k": 2}],
    "any": [1, "x"],
}
SCALARS = tuple(VALUES)[:8]
ECHOED = (
    "dataframe",
    "records",
    "dict",
    "series",
    "nameless series",
    "ndarray",
    "matrix",
    "frame of a matrix",
    "arrays",
    "list",
)
WRONG = (1.7, True, None, "abc", "3", 300, -1, 2**63, 1e300, [1], {"a": 1}, "2024-01-01")


def _named(value: Any) -> str:
    for known, name in ((True, "true"), (None, "null"), (2**63, "2**63"), (1e300, "1e300")):
        if type(value) is type(known) and value == known:
            return name
    return repr(value)


def _split(name: str, cells: list[Any], form: str = "dataframe") -> Body:
    return {"dataframe_split": {"columns": [name], "data": [[cell] for cell in cells]}, "params": {"form": form}}, JSON


SCALAR_CASES: dict[str, Body] = {
    **{f"{name} as {form}": _split(name, VALUES[name], form) for name in SCALARS for form in ECHOED},
    **{f"{name} in inputs": ({"inputs": {name: VALUES[name]}}, JSON) for name in SCALARS},
    **{f"{name} in records of inputs": ({"inputs": [{name: cell} for cell in VALUES[name]]}, JSON) for name in SCALARS},
    **{f"{name} in instances": ({"instances": [{name: cell} for cell in VALUES[name]]}, JSON) for name in SCALARS},
    **{f"{name} alone": ({"inputs": {name: VALUES[name][0]}}, JSON) for name in SCALARS},
    **{f"{_named(wrong)} for {name}": _split(name, [wrong]) for name in SCALARS for wrong in WRONG},
    **{
        f"{_named(wrong)} for {name} inputs": ({"inputs": {name: [wrong]}}, JSON)
        for name in ("boolean", "integer", "long", "double")
        for wrong in WRONG
        if not isinstance(wrong, list | dict)
    },
    "one name twice": (b'{"inputs": {"double": [1.0], "double": [2.0]}}', JSON),
    "a missing string": ({"dataframe_records": [{"string": "a", "long": 1}, {"long": 2}]}, JSON),
    "moments of two forms": _split("datetime", ["2024-01-02T03:04:05", "2024-01-02"]),
    "moments with fractions": _split("datetime", ["2024-01-02T03:04:05.123456", "2024-01-02T03:04:05.120000"]),
    "all columns": ({"dataframe_records": [{name: VALUES[name][row] for name in SCALARS} for row in (0, 1)]}, JSON),
    **{
        f"params {params}": ({"inputs": {"double": [1.0]}, "params": params}, JSON)
        for params in ({"form": 1}, {"form": "dict"}, {"other": 1}, [1], "x", {"form": ["a"]}, {})
    },
}
COMPOUND_CASES: dict[str, Body] = {
    f"{name} as {form}": _split(name, VALUES[name], form)
    for name in tuple(VALUES)[8:]
    for form in ("dataframe", "records", "dict", "series", "list")
}


class Table:
    """Rows of the heart model, in the forms that payloads need."""

    def __init__(self, path: Path) -> None:
        golden = json.loads((path / "golden.json").read_text())
        self.names: list[str] = golden["columns"]
        self.rows: list[list[Any]] = golden["data"][:4]
        self.records = [dict(zip(self.names, row, strict=True)) for row in self.rows]
        self.columns = {name: [row[at] for row in self.rows] for at, name in enumerate(self.names)}

    def filled(self, name: str, value: Any) -> list[dict[str, Any]]:
        return [{**record, name: value} for record in self.records]

    def without(self, name: str) -> list[dict[str, Any]]:
        return [{key: value for key, value in record.items() if key != name} for record in self.records]


class Pair:
    """The same request to both servers."""

    def __init__(self, theirs: str, ours: str) -> None:
        self._theirs, self._ours = theirs, ours
        self.compared: set[str] = set()
        self.differed: set[str] = set()

    def agree(self, model: str, case: str, body: Any, kind: str) -> None:
        """Fails where the servers disagree and DELIBERATE does not say why."""
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        expected = posted(self._theirs, f"/{model}/invocations", sent, kind)
        got = posted(self._ours, f"/models/{model}/invocations", sent, kind)
        status = expected[0] // 100 == got[0] // 100
        same = status and (expected[0] != 200 or alike(json.loads(expected[1]), json.loads(got[1])))
        self.compared.add(case)
        if not same:
            self.differed.add(case)
        assert same or case in DELIBERATE, f"MLflow: {expected[0]} {expected[1][:300]!r}\nours: {got[0]} {got[1][:300]!r}"


def posted(address: str, path: str, body: bytes, kind: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("POST", path, body, {"content-type": kind} if kind else {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def alike(one: Any, other: Any) -> bool:
    """Equal, numbers to 1e-6, NaN to NaN."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, abs_tol=1e-6)
    return type(one) is type(other) and one == other


@contextmanager
def mlflow_serving(python: str | Path, models: Mapping[str, Path]) -> Iterator[str]:
    """MLflow's scoring server over some models, in a Python of its own; yields its address."""
    command = [str(python), str(HERE / "mlflow_server.py"), *(f"{name}={path}" for name, path in models.items())]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert child.stdout is not None
    try:
        yield f"127.0.0.1:{int(child.stdout.readline())}"
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """MLflow 3 and tensign over the same directories."""
    if not (SHARED / "fixtures").is_dir():
        pytest.skip("shared/fixtures is not beside this checkout")
    made = tmp_path_factory.mktemp("echo")
    models = {name: SHARED / "fixtures" / name for name in (*TENSORS, *TABLES)}
    models |= {"scalars": made / "scalars", "compound": made / "compound"}
    subprocess.run(
        [sys.executable, HERE / "echo_model.py", models["scalars"], models["compound"]], check=True, capture_output=True
    )
    config = ModelConfig(device="cpu", trust=True, max_batch_size=4)
    with mlflow_serving(sys.executable, models) as theirs, ThreadPoolExecutor() as pool:
        loaded = list(pool.map(lambda name: Model.load(models[name], config, name=name), models))
        with running(*loaded) as server:
            assert server.http_address is not None
            yield Pair(theirs, server.http_address)


@pytest.mark.parametrize("case", TENSOR_CASES)
@pytest.mark.parametrize("model", TENSORS)
def test_tensors(pair: Pair, model: str, case: str) -> None:
    inputs = np.load(SHARED / "fixtures" / model / "golden.npz")["inputs"][:2]
    pair.agree(model, case, TENSOR_CASES[case](inputs), JSON)


@pytest.mark.parametrize("case", TABLE_CASES)
@pytest.mark.parametrize("model", TABLES)
def test_tables(pair: Pair, model: str, case: str) -> None:
    pair.agree(model, case, TABLE_CASES[case](Table(SHARED / "fixtures" / model)), JSON)


@pytest.mark.parametrize("case", CSV_CASES)
def test_csv_and_parquet(pair: Pair, case: str) -> None:
    import pandas as pd

    table = Table(SHARED / "fixtures" / "heart-sklearn")
    pair.agree("heart-sklearn", case, *CSV_CASES[case](pd.DataFrame(table.rows, columns=table.names)))


@pytest.mark.parametrize("case", BODIES)
@pytest.mark.parametrize("model", ["digits-onnx", "heart-sklearn"])
def test_bodies(pair: Pair, model: str, case: str) -> None:
    pair.agree(model, case, *BODIES[case])


@pytest.mark.parametrize("case", SCALAR_CASES)
def test_columns(pair: Pair, case: str) -> None:
    pair.agree("scalars", case, *SCALAR_CASES[case])


@pytest.mark.parametrize("case", COMPOUND_CASES)
def test_compound_columns(pair: Pair, case: str) -> None:
    pair.agree("compound", case, *COMPOUND_CASES[case])


def test_every_deliberate_difference_is_one(pair: Pair) -> None:
    if not DELIBERATE.keys() <= pair.compared:
        pytest.skip("only a part of the cases was compared")
    assert DELIBERATE.keys() - pair.differed == set()


def _parquet(frame: Any) -> bytes:
    content = io.BytesIO()
    frame.to_parquet(content)
    return content.getvalue()
