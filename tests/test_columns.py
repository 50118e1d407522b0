"""Column signatures: the grammar, what comes in every form, params, and what goes."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from tensign.errors import EngineError, InvalidConfig, SignatureMismatch, UnsupportedModel
from tensign.signature import Mode, Signature

NAN = float("nan")


def column(kind: str, name: str | None = "a", **more: Any) -> dict[str, Any]:
    return {"type": kind, **({} if name is None else {"name": name}), **more}


def signature(*inputs: dict[str, Any], **parts: Any) -> Signature:
    return Signature.parse({"inputs": list(inputs), **parts})


def tensor(dtype: str, shape: list[int], name: str | None = None) -> dict[str, Any]:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}, **({} if name is None else {"name": name})}


def objects(*values: Any) -> Any:
    array = np.empty(len(values), object)
    array[:] = values
    return array


# the grammar

LIST = {"type": "array", "items": {"type": "long"}}
POINT = {"type": "object", "properties": {"y": {"type": "double"}, "x": {"type": "long", "required": False}}}


@pytest.mark.parametrize(
    ("entry", "text", "dtype"),
    [
        (column("boolean"), "boolean", "bool"),
        (column("integer"), "integer", "int32"),
        (column("long"), "long", "int64"),
        (column("float"), "float", "float32"),
        (column("double", required=False), "double, optional", "float64"),
        (column("string"), "string", "object"),
        (column("binary"), "binary", "object"),
        (column("datetime"), "datetime", "datetime64[ns]"),
        (column("any", required=True), "any", "object"),
        (column("sparkml_vector", required=True), "sparkml_vector", "object"),
        ({**LIST, "name": "a", "required": True}, "array<long>", "object"),
        ({**LIST, "name": "a"}, "array<long>, optional", "object"),  # MLflow's own reading of a type that says nothing
        ({**LIST}, "array<long>", "object"),  # but not without a name
        ({"type": "map", "values": LIST, "name": "a", "required": True}, "map<array<long>>", "object"),
        ({**POINT, "name": "a", "required": True}, "object<x?: long, y: double>", "object"),
    ],
    ids=str,
)
def test_every_type_is_read_and_written_as_mlflow_does(entry: dict[str, Any], text: str, dtype: str) -> None:
    (spec,) = signature(entry).inputs
    assert (str(spec), spec.dtype, spec.shape, spec.named) == (text, np.dtype(dtype), (-1,), "name" in entry)
    assert signature(spec.document()).inputs == (spec,)
    schema = pytest.importorskip("mlflow.types.schema").Schema
    if "required" in entry or entry["type"] != "array":
        assert schema.from_json(json.dumps([spec.document()])) == schema.from_json(json.dumps([entry]))


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param([{"name": "a"}], id="no type"),
        pytest.param([column("int")], id="unknown type"),
        pytest.param([column("long", optional=True)], id="unknown key of a scalar"),
        pytest.param([column("array")], id="array without items"),
        pytest.param([column("array", items="long")], id="items that are no map"),
        pytest.param([column("array", items={"type": "words"})], id="items of an unknown type"),
        pytest.param([column("map")], id="map without values"),
        pytest.param([column("object")], id="object without properties"),
        pytest.param([column("object", properties={})], id="object of nothing"),
        pytest.param([column("object", properties={"x": "long"})], id="property that is no map"),
        pytest.param([column("object", properties={"x": {"type": "sparkml_vector"}})], id="vector in an object"),
        pytest.param([column("long"), column("long", None)], id="named and unnamed"),
        pytest.param([column("long", None, required=False)], id="unnamed and optional"),
        pytest.param([column("long"), tensor("int64", [-1], "b")], id="columns and tensors"),
        pytest.param([tensor("<U5", [-1])], id="text of a width"),
    ],
)
def test_what_mlflow_refuses_to_read_we_refuse_too(inputs: list[dict[str, Any]]) -> None:
    schema = pytest.importorskip("mlflow.types.schema").Schema
    with pytest.raises(Exception):  # noqa: B017 - a KeyError, TypeError or MlflowException
        schema.from_json(json.dumps(inputs))
    with pytest.raises(UnsupportedModel, match=r"signature input"):
        signature(*inputs)


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="two columns of one name"):
        signature(column("long"), column("double"))


def test_types_nested_too_deep_are_refused() -> None:
    deep: dict[str, Any] = {"type": "long"}
    for _ in range(200):
        deep = {"type": "array", "items": deep}
    with pytest.raises(UnsupportedModel, match='signature input "a": types nested deeper'):
        signature({**deep, "name": "a"})


def test_no_outputs_are_none() -> None:
    assert signature(column("long")).outputs == ()


# what comes

AGE = signature(column("long", "age"), column("string", "thal"), column("double", "oldpeak", required=False))


def refused(contract: Signature, data: Any, mode: Mode = "strict") -> str:
    with pytest.raises(SignatureMismatch) as caught:
        contract.enforce_inputs(data, mode=mode)
    return str(caught.value)


THAL = objects("normal", "fixed")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({"age": np.array([3, 4]), "thal": THAL}, id="arrays"),
        pytest.param({"age": np.array([[3], [4]]), "thal": THAL.reshape(2, 1)}, id="arrays of two axes"),
        pytest.param({"age": np.array([3, 4]), "thal": objects(b"normal", b"fixed")}, id="text as bytes"),
        pytest.param({"age": np.array([3, 4], "int8"), "thal": np.array(["normal", "fixed"])}, id="narrower"),
        pytest.param({"age": [3, 4], "thal": ["normal", "fixed"]}, id="lists"),
        pytest.param([{"thal": "normal", "age": 3}, {"age": 4, "thal": "fixed"}], id="records"),
    ],
)
def test_columns_in_every_form(data: Any) -> None:
    got = AGE.enforce_inputs(data)
    assert list(got) == ["age", "thal"]
    assert (got["age"].dtype, got["age"].tolist()) == (np.dtype("int64"), [3, 4])
    assert (got["thal"].dtype, got["thal"].tolist()) == (np.dtype(object), ["normal", "fixed"])


def test_a_data_frame_and_its_series() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"thal": ["normal", None], "age": [3, 4], "oldpeak": [1.5, NAN]}, index=[7, 9])
    got = AGE.enforce_inputs(frame)
    assert got["age"].tolist() == [3, 4]
    assert got["thal"][0] == "normal"
    assert np.isnan(got["oldpeak"][1])
    assert signature(column("long", "age")).enforce_inputs(frame["age"])["age"].tolist() == [3, 4]


def test_a_column_that_fits_is_not_copied() -> None:
    age = np.array([3, 4])
    assert AGE.enforce_inputs({"age": age, "thal": THAL})["age"] is age


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        pytest.param({"age": np.array([3.0, NAN])}, 'input "age": expected long, got float64 [2] with 1 missing', id="NaN"),
        pytest.param({"age": np.array([3, 4], "uint64")}, 'input "age": expected long, got uint64 [2]', id="wider"),
        pytest.param({"age": objects("3", "4")}, 'input "age": expected long, got text', id="text"),
        pytest.param({"age": objects(None, None)}, 'input "age": expected long, got a missing value', id="missing"),
        pytest.param({"oldpeak": np.array([2**53 + 1, 1])}, 'input "oldpeak": expected double, got int64 [2]', id="long"),
        pytest.param({"thal": objects("a", 3)}, 'input "thal": expected string, got int', id="number"),
        pytest.param({"thal": objects("a", b"\xff")}, 'input "thal", row 1: not UTF-8 at byte 0', id="not UTF-8"),
        pytest.param({"age": np.array([3])}, "disagree on the number of rows: {'age': 1, 'thal': 2}", id="rows"),
        pytest.param({"age": np.zeros((2, 2), "int64")}, 'input "age": expected long, got list', id="axes"),
        pytest.param({"x": np.array([3, 4])}, 'unexpected input "x"; the model takes "age" long', id="extra"),
        pytest.param({"age": np.array([3, 4], "M8[s]")}, 'input "age": expected long, got datetime64[s] [2]', id="dates"),
    ],
)
def test_a_mismatch_names_its_column(changed: dict[str, Any], text: str) -> None:
    assert text in refused(AGE, {"age": np.array([3, 4]), "thal": THAL, **changed})


def test_a_missing_column_is_named() -> None:
    assert refused(AGE, [{"age": 3}]).startswith('missing input "thal"; the model takes "age" long, "thal" string')


def test_columns_without_names_go_by_their_place() -> None:
    contract = signature(column("long", None), column("double", None))
    for data in ([[1, 1.5], [2, 2.5]], {"x": [1, 2], "y": [1.5, 2.5]}, {"input-1": [1.5, 2.5], "input-0": [1, 2]}):
        got = contract.enforce_inputs(data)
        assert {name: array.tolist() for name, array in got.items()} == {"input-0": [1, 2], "input-1": [1.5, 2.5]}
    assert "expected 2 columns, got 1" in refused(contract, [[1]])


MOMENT = datetime(2024, 5, 6, 7, 8, 9)


@pytest.mark.parametrize(
    ("kind", "given", "wanted"),
    [
        ("double", [Decimal("1.5"), None], [1.5, None]),
        ("double", [0, 1], [0.0, 1.0]),
        ("boolean", [True, None], [True, None]),
        ("binary", [b"\xff", bytearray(b"a")], [b"\xff", b"a"]),
        ("datetime", [MOMENT, date(2024, 5, 6)], ["2024-05-06T07:08:09", "2024-05-06T00:00:00"]),
        (
            "datetime",
            [b"2024-05-06T07:08:09.123456789", b"2024-05-06T09:08:09+02:00"],
            ["2024-05-06T07:08:09.123456789", "2024-05-06T07:08:09"],
        ),
        ("array", [[1, 2], [], b"[3]"][:2], [[1, 2], []]),
        ("array", [b"[1, 2]", b"[]"], [[1, 2], []]),
    ],
    ids=str,
)
def test_values_of_a_column(kind: str, given: list[Any], wanted: list[Any]) -> None:
    entry = {**LIST, "name": "a", "required": True} if kind == "array" else column(kind)
    array = signature(entry).enforce_inputs({"a": objects(*given)})["a"]
    shown = [None if value is None or value != value else value for value in array]
    if kind == "datetime":
        assert array.dtype == np.dtype("datetime64[ns]")
        assert [str(value)[: len(want)] for value, want in zip(array, wanted, strict=True)] == wanted
    else:
        assert shown == wanted


@pytest.mark.parametrize(
    ("entry", "cell", "text"),
    [
        pytest.param(LIST, [1, 2.5], 'input "a", row 0: expected long, got float64 [2]', id="list of floats"),
        pytest.param(LIST, {"x": 1}, 'input "a", row 0: expected array<long>, got dict', id="no list"),
        pytest.param(POINT, {"y": 1.5, "z": 2}, 'input "a", row 0: property "z" is not in the signature', id="property more"),
        pytest.param(POINT, {"x": 1}, 'input "a", row 0: property "y" is missing', id="property less"),
        pytest.param(POINT, {"y": "text"}, 'input "a", row 0.y: expected double, got text', id="property of another type"),
        pytest.param({"type": "map", "values": LIST}, {"k": [None]}, 'input "a", row 0.k: expected long', id="in a map"),
        pytest.param(
            {"type": "map", "values": LIST}, {1: [1]}, 'input "a", row 0: expected map<array<long>>', id="key of a map"
        ),
        pytest.param(LIST, b"[1", 'input "a", row 0: expected JSON', id="broken JSON"),
        pytest.param(LIST, b"[" * 100_000, 'input "a", row 0: expected JSON', id="deep JSON"),
        pytest.param(LIST, b"\xff", 'input "a", row 0: expected JSON', id="JSON that is not UTF-8"),
        pytest.param(column("datetime"), b"noon", 'input "a", row 0: expected a date and time such as 2024-', id="no datetime"),
        pytest.param(column("datetime"), b"9999-01-01T00:00:00", 'input "a", row 0: expected a date and time', id="late"),
        pytest.param(column("datetime"), MOMENT.replace(tzinfo=UTC), "expected datetime without a time zone", id="time zone"),
        pytest.param(column("datetime"), datetime(1, 1, 1), 'input "a": expected datetime, of the years', id="early"),
    ],
)
def test_a_bad_cell_is_told_by_column_and_row(entry: dict[str, Any], cell: Any, text: str) -> None:
    assert text in refused(signature({**entry, "name": "a", "required": True}), {"a": objects(cell)})


# as MLflow's HTTP path takes it, without its truncations


@pytest.mark.parametrize(
    ("kind", "given", "wanted"),
    [
        ("integer", [3, 4], [3, 4]),
        ("integer", [3.0, "4"], [3, 4]),
        ("long", [True, 2], [1, 2]),
        ("float", [1, 0.1], [1.0, np.float32(0.1)]),
        ("double", [2**53, "1.5"], [2.0**53, 1.5]),
        ("boolean", [0, 1], [False, True]),
        ("string", ["a", 3], ["a", "3"]),
        ("binary", ["/w==", "YQ==\n"], [b"\xff", b"a"]),
        ("datetime", ["2024-05-06T07:08:09", "2024-05-06"], ["2024-05-06T07:08:09", "2024-05-06T00:00:00"]),
    ],
)
def test_json_values_are_cast_where_they_keep_their_value(kind: str, given: list[Any], wanted: list[Any]) -> None:
    got = signature(column(kind)).enforce_inputs([{"a": value, "extra": 1} for value in given], mode="mlflow-compat")["a"]
    assert [str(value)[:19] for value in got] == wanted if kind == "datetime" else got.tolist() == wanted


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("integer", 1.7, "expected integer, which cannot hold a fraction (row 0)"),
        ("integer", 2**31, "expected integer, which cannot hold a number of that size"),
        ("integer", "three", "expected integer, got text"),
        ("long", None, "expected long, got a missing value"),
        ("long", 2**63, "expected long, which cannot hold a number of that size (row 0)"),
        ("long", 2.0**63, "expected long, which cannot hold"),
        ("double", 2**53 + 1, "expected double, which cannot hold an integer of so many digits (row 0)"),
        ("double", 10**400, "expected double, which cannot hold a number of that size"),
        ("long", 2**70, "expected long, which cannot hold a number of that size"),
        ("float", 1e300, "expected float, which cannot hold a number of that size"),
        ("boolean", 2, "expected boolean, which cannot hold a number of that size"),
        ("boolean", "false", "expected boolean, got text"),
        ("binary", "?", "row 0: expected base64"),
        ("datetime", "noon", "row 0: expected a date and time"),
    ],
)
def test_json_values_that_would_change_are_refused(kind: str, value: Any, text: str) -> None:
    assert text in refused(signature(column(kind)), [{"a": value}], "mlflow-compat")


@pytest.mark.parametrize(
    ("dtype", "given", "text"),
    [
        ("uint8", [[1, 255]], ""),
        ("uint8", [[1.0, 2.0]], ""),
        ("float32", [[1, 2]], ""),
        ("bool", [[0, 1]], ""),
        ("uint8", [[1.7, 1]], "which cannot hold a fraction (row 0 at [0])"),
        ("uint8", [[300, 1]], "which cannot hold a number of that size (row 0 at [0])"),
        ("uint8", [[-1, 1]], "which cannot hold a negative number (row 0 at [0])"),
        ("int64", [[NAN, 1]], "got a missing value"),
        ("float16", [[70000, 1]], "which cannot hold a number of that size"),
        ("uint8", [[1], [1, 2]], "lists of equal lengths"),
        ("uint8", [[1, 2, 3]], "expected uint8 [-1,2], got uint8 [1,3]"),
        ("uint8", [["a", "b"]], "got text"),
    ],
)
def test_lists_become_tensors_where_they_keep_their_values(dtype: str, given: Any, text: str) -> None:
    contract = signature(tensor(dtype, [-1, 2]))
    if text:
        assert text in refused(contract, given, "mlflow-compat")
    else:
        got = contract.enforce_inputs(given, mode="mlflow-compat")["input-0"]
        assert (got.dtype, got.tolist()) == (np.dtype(dtype), given)


HUGE = 2**53 + 1  # the first integer that no float64 is


@pytest.mark.parametrize(
    ("spec", "given", "wanted"),
    [
        pytest.param(column("long"), [HUGE, 1.0], [HUGE, 1], id="long beside a float"),
        pytest.param(column("long"), [HUGE, "1.0"], [HUGE, 1], id="long beside text"),
        pytest.param(column("long"), [HUGE, True], [HUGE, 1], id="long beside a boolean"),
        pytest.param(column("long"), [HUGE, None], "got a missing value (row 1)", id="long beside null"),
        pytest.param(column("float"), [2**24 + 1, 1.5], "an integer of so many digits (row 0)", id="float beside a float"),
        pytest.param(column("double"), [1.5, HUGE], "an integer of so many digits (row 1)", id="double beside a float"),
        pytest.param(column("double"), [1.5, 2**70], [1.5, 2.0**70], id="double of a power of two"),
        pytest.param(tensor("float64", [-1]), [HUGE, 1.5], "an integer of so many digits (row 0)", id="tensor beside a float"),
        pytest.param(tensor("float64", [-1]), [None, HUGE], "an integer of so many digits (row 1)", id="tensor beside null"),
        pytest.param(tensor("int64", [-1]), [HUGE, 1.0], [HUGE, 1], id="tensor of integers beside a float"),
        pytest.param(tensor("uint64", [-1]), [2**64 - 1, 0], [2**64 - 1, 0], id="the largest"),
    ],
)
def test_an_integer_among_other_numbers_keeps_its_value(spec: dict[str, Any], given: list[Any], wanted: Any) -> None:
    contract = signature(spec)
    data = given if spec["type"] == "tensor" else [{"a": value} for value in given]
    if isinstance(wanted, str):
        assert wanted in refused(contract, data, "mlflow-compat")
    else:
        (got,) = contract.enforce_inputs(data, mode="mlflow-compat").values()
        assert got.tolist() == wanted


def test_a_wide_text_among_lists_takes_no_room(tracemalloc_peak: Callable[[Callable[[], object]], int]) -> None:
    contract, wide = signature(tensor("float32", [-1])), ["x" * 1_000_000, *([""] * 1000)]
    assert tracemalloc_peak(lambda: refused(contract, wide, "mlflow-compat")) < 1 << 20


@pytest.mark.parametrize(
    "data",
    [
        pytest.param([{str(row): 1} for row in range(3000)], id="records"),
        pytest.param([[1] * 3000, *([[1]] * 3000)], id="rows"),
        pytest.param({"a": [1] * 3000, **{str(at): 1 for at in range(3000)}}, id="one value beside a list"),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_rows_that_differ_make_no_table_without_end(
    data: Any, named: bool, tracemalloc_peak: Callable[[Callable[[], object]], int]
) -> None:
    spec = column("long") if named else {"type": "long"}

    def enforced() -> None:
        with contextlib.suppress(SignatureMismatch):
            signature(spec).enforce_inputs(data, mode="mlflow-compat")

    assert tracemalloc_peak(enforced) < 8 << 20  # a table of all of them takes 72 MB


@pytest.mark.parametrize(
    ("data", "text"), [([], "no rows"), ("x", "values without a name"), ([[1, 2]], "values without a name")]
)
def test_columns_are_wanted_by_name(data: Any, text: str) -> None:
    assert refused(signature(column("long")), data) == (
        f'expected at least one of "a" long by name, as records or as a map of lists, got {text}'
    )


def test_there_are_two_modes() -> None:
    with pytest.raises(InvalidConfig, match="mode: wanted strict or mlflow-compat, got foo"):
        signature(column("long")).enforce_inputs([{"a": 1}], mode="foo")  # type: ignore[arg-type]


def test_what_nobody_asked_for_is_dropped_there() -> None:
    contract = signature(tensor("int64", [-1], "x"))
    assert list(contract.enforce_inputs({"x": [1], "y": ["text"]}, mode="mlflow-compat")) == ["x"]


# params

PARAMS = signature(
    column("long"),
    params=[
        {"name": "k", "type": "long", "default": 3, "shape": None},
        {"name": "t", "dtype": "double", "default": None},
        {"name": "names", "type": "string", "default": ["x"], "shape": [-1]},
        {"name": "since", "type": "datetime", "default": "2024-05-06"},
        {"name": "point", **POINT, "default": {"y": 0.5}},
    ],
)
DEFAULTS = {"k": 3, "t": None, "names": ["x"], "since": date(2024, 5, 6), "point": {"y": 0.5}}


def test_defaults_are_filled_in_and_the_unknown_is_left_out() -> None:
    assert PARAMS.enforce_params(None) == DEFAULTS
    assert PARAMS.enforce_params({"k": np.int32(5), "unknown": 1}) == {**DEFAULTS, "k": 5}
    assert Signature.parse(PARAMS.document()) == PARAMS


PARAM_VALUES = [
    *(True, 1, 2**40, 1.5, "x", None, [1], {"y": 1.5}, {"z": 1}, MOMENT, date(2024, 5, 6), b"x"),
    *(np.int32(1), np.int64(1), np.int8(1), np.float32(1.5), np.float64(1.5), np.bool_(True), np.str_("x"), "2024-05-06"),
    *(
        ["x", "y"],
        [1, None],
        np.array([1, 2]),
        np.array([[1]]),
        np.datetime64("2024-05-06"),
        np.datetime64(1, "ns"),
        Decimal(1),
    ),
]


@pytest.mark.parametrize("kind", ["boolean", "integer", "long", "float", "double", "string", "datetime", "object"])
@pytest.mark.parametrize("shape", [None, [-1]], ids=["scalar", "list"])
def test_a_param_is_what_mlflow_makes_of_it(kind: str, shape: list[int] | None) -> None:
    schema = pytest.importorskip("mlflow.types.schema")
    if kind == "object" and shape:
        pytest.skip("there is no list of objects")
    entry = {"name": "p", **(POINT if kind == "object" else {"type": kind}), "shape": shape}
    entry["default"] = {"y": 0.5} if kind == "object" else [] if shape else None
    (ours,), (theirs,) = signature(column("long"), params=[entry]).params, schema.ParamSchema.from_json(json.dumps([entry]))
    for value in PARAM_VALUES:
        got: list[Any] = []
        for enforce in (ours.enforce, lambda one: schema.ParamSpec.validate_param_spec(one, theirs)):
            try:
                result = enforce(value)
                got.append((type(result), result))
            except (SignatureMismatch, schema.MlflowException, TypeError):
                got.append("refused")
        assert got[0] == got[1], f"{value!r}"


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ([{"name": "k", "type": "long"}], "each wants `name`, `type` and `default`"),
        ([{"name": "k", "type": "binary", "default": None}], "a param is a scalar other than binary"),
        ([{"name": "k", "type": "array", "items": {"type": "long"}, "default": None}], "a param is a scalar"),
        ([{"name": "k", "type": "long", "default": "x"}], 'param "k": expected long, got text, which is its default'),
        ([{"name": "k", "type": "long", "default": 1, "shape": [-1]}], "expected a list of long, got int"),
        ([{"name": "k", "type": "long", "default": 1, "shape": [2]}], "no shape, or [-1]"),
        ([{"name": "k", "type": "long", "default": 1}] * 2, "two of one name"),
        ([{"name": "k", "type": "words", "default": 1}], "type 'words' is none of"),
        ("k", "wanted a list of maps"),
    ],
)
def test_bad_params_are_refused(params: Any, text: str) -> None:
    with pytest.raises(UnsupportedModel, match=re.escape(text)):
        signature(column("long"), params=params)


def test_a_bad_param_is_named() -> None:
    with pytest.raises(SignatureMismatch, match='param "k": expected long, got float'):
        PARAMS.enforce_inputs([{"a": 1}], {"k": 1.5})


# what goes

TARGET = signature(column("long"), outputs=[column("long", "target")])
TWO = signature(column("long"), outputs=[column("string", "label"), column("float", "score")])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: {"target": np.array([1, 0])}, id="dict"),
        pytest.param(lambda: np.array([1, 0], "int32"), id="array, narrower"),
        pytest.param(lambda: [1, 0], id="list"),
        pytest.param(lambda: [{"target": 1}, {"target": 0}], id="records"),
        pytest.param(lambda: pytest.importorskip("pandas").Series([1, 0]), id="Series"),
        pytest.param(lambda: pytest.importorskip("pandas").DataFrame({"target": [1, 0], "p": [0.5, 0.5]}), id="DataFrame"),
        pytest.param(lambda: {"target": np.array([1, 0], "uint64")}, id="another width"),
    ],
)
def test_columns_go_in_every_form(data: Callable[[], Any]) -> None:
    got = TARGET.enforce_outputs(data(), 2)["target"]
    assert (got.dtype, got.tolist()) == (np.dtype("int64"), [1, 0])


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"label": objects("a"), "score": np.array([0.5])}, 'output "score": expected float, got float64 [1]'),
        ({"label": np.array([1]), "score": np.array([0.5], "f4")}, 'output "label": expected string, got int64'),
        ({"label": objects("a")}, "output \"score\" is missing; the model gave ['label']"),
        ({"label": objects("a", "b"), "score": np.array([0.5, 1], "f4")}, 'output "label": expected 1 row, got 2'),
        ({"label": objects(None), "score": np.array([2**24 + 1])}, 'output "score": expected float, which cannot hold'),
        (None, "expected columns, got NoneType"),
        ("text", 'output "label" is missing'),
    ],
    ids=str,
)
def test_a_broken_promise_names_the_output(data: Any, text: str) -> None:
    with pytest.raises(EngineError, match=re.escape(text)):
        TWO.enforce_outputs(data, 1)


def test_a_model_that_declares_no_outputs_names_its_own() -> None:
    contract = signature(column("long"))
    assert contract.enforce_outputs({"scores": np.zeros((2, 3))}, 2)["scores"].shape == (2, 3)
    assert contract.enforce_outputs(np.array([1, 2]), 2)["output-0"].tolist() == [1, 2]
    assert contract.enforce_outputs([1, 2], 2)["output-0"].dtype == np.int64
    for broken, text in (
        (np.zeros(3), "expected 2 rows, got 3"),
        (None, "got NoneType"),
        (np.array(1), "expected 2 rows, got none"),
    ):
        with pytest.raises(EngineError, match=text):
            contract.enforce_outputs(broken, 2)


# pandas


def test_pandas_is_never_imported_for_anybody() -> None:
    program = """
import sys, numpy
from tensign.signature import Signature
columns = Signature.parse({"inputs": [{"name": "a", "type": "long"}, {"name": "b", "type": "any"}]})
for data in ({"a": [1], "b": [2]}, [{"a": 1, "b": None}], {"a": numpy.array([1]), "b": numpy.array([b"[1]"], object)}):
    columns.enforce_inputs(data)
    columns.enforce_inputs(data, mode="mlflow-compat")
columns.enforce_outputs([1, 2], 2)
print("pandas" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
