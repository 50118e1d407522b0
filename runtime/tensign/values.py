"""Columns and their cells against their types: what MLflow calls safe, without importing pandas.

Source of the rules: mlflow.models.utils, `_enforce_mlflow_datatype` and its neighbours, release 3.17 on pandas 3.
`strict` widens, as MLflow's Python path does; `lossless` besides casts whatever keeps its value, as its HTTP path does
without looking whether it does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign import coltext
from tensign.coltypes import (
    BINARY,
    BOOLEAN,
    DATETIME,
    DOUBLE,
    STRING,
    AnyType,
    ArrayType,
    ColumnType,
    MapType,
    ObjectType,
    ScalarType,
)
from tensign.errors import SignatureMismatch
from tensign.jsontext import check_containers

Column = npt.NDArray[Any]

_DATES = (date, np.datetime64)
_MAX_DIGITS = 300


def objects(values: Any) -> Column:
    """[n] -> an object array [n], whatever the elements are."""
    return np.fromiter(values, object, len(values))


def is_missing(value: Any) -> bool:
    """True for None, NaN, NaT and pandas' NA."""
    if value is None:
        return True
    if isinstance(value, float | np.floating | np.datetime64 | datetime):
        return bool(value != value)
    return type(value).__name__ == "NAType"


def enforce_column(
    where: str, values: Column, kind: ColumnType, required: bool, *, lossless: bool = False, exact: bool = False
) -> Column:
    """A column [n] of any dtype -> [n] of the type's own; `where` begins the text of every refusal.

    lossless: as the text of this file says; exact: integers and floats also go to a type that holds each of them.
    Bytes in a column of another type are its text form: UTF-8, ISO 8601 or, where all are bytes, JSON.
    Raises SignatureMismatch.
    """
    if isinstance(kind, ScalarType):
        if exact and kind.dtype.kind in "if" and values.dtype.kind == "O":
            values = inferred(values)
        if exact and kind.dtype.kind in "if" and values.dtype.kind in "iuf" and not _narrows(values.dtype, kind.dtype):
            return cast(where, values, kind.dtype, str(kind))
        return _lossless(where, values, kind) if lossless else _strict(where, values, kind)
    cells = objects(list(values)) if values.dtype.kind != "O" else values
    wire = all(isinstance(cell, bytes) for cell in cells)
    if wire:
        check_containers(cells)
        cells = objects([_at(where, row, coltext.read_json, cell) for row, cell in enumerate(cells)])
    if wire or lossless:
        cells = objects([_at(where, row, coltext.typed, cell, kind) for row, cell in enumerate(cells)])
    return objects([enforce_cell(f"{where}, row {row}", cell, kind, required) for row, cell in enumerate(cells)])


def _at(where: str, row: int, read: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except SignatureMismatch as error:
        raise SignatureMismatch(f"{where}, row {row}: {error}") from None


def _strict(where: str, values: Column, kind: ScalarType) -> Column:
    if kind is STRING:
        return _texts(where, values)
    if kind is BINARY:
        return _contents(where, values)
    if values.dtype.kind == "O":
        values = inferred(values)
    if kind is DATETIME:
        return _datetimes(where, values)
    if values.dtype.kind == "O":
        return _of_objects(where, values, kind)
    if values.dtype == kind.dtype:
        return values
    if _widens(values, kind.dtype):
        return values.astype(kind.dtype)
    raise SignatureMismatch(f"{where}: expected {kind}, got {described(values)}")


def _narrows(got: np.dtype[Any], want: np.dtype[Any]) -> bool:
    """True from a float to a narrower one, or to an integer."""
    return got.kind == "f" and (want.kind == "i" or want.itemsize < got.itemsize)


def _widens(values: Column, want: np.dtype[Any]) -> bool:
    got = values.dtype
    if got.kind == want.kind:
        return got.itemsize <= want.itemsize
    if got.kind == "u" and want.kind == "i":
        return got.itemsize < want.itemsize
    if got.kind in "iu" and want == np.float64 and got.itemsize <= 4:
        return True
    return bool(got == np.int64 and want.kind == "f" and np.isin(values, (0, 1)).all())


def _of_objects(where: str, values: Column, kind: ScalarType) -> Column:
    """What no single dtype holds: booleans with missing ones among them, and numbers with Decimals for a double."""
    present = [value for value in values if not is_missing(value)]
    if kind is BOOLEAN and all(isinstance(value, bool | np.bool_) for value in present):
        return values
    if kind is DOUBLE and all(isinstance(value, Decimal) or _is_number(value) for value in present):
        _check_integers(where, values, kind)
        return np.array([math.nan if is_missing(value) else float(value) for value in values], np.float64)
    raise SignatureMismatch(f"{where}: expected {kind}, got {described(values)}")


def _check_integers(where: str, values: Column, kind: ScalarType) -> None:
    """Raises SignatureMismatch for a Python integer that no float64 is."""
    for row, value in enumerate(values):
        if isinstance(value, int) and not (
            abs(value) <= 1 << 53 or (value.bit_length() <= 1023 and int(float(value)) == value)
        ):
            raise SignatureMismatch(f"{where}: expected {kind}, {_unheld(value, np.dtype(np.float64), (row,))}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def text_tensor(where: str, array: Column) -> Column:
    """Text [...] as Python's, where it came as bytes: UTF-8. Raises SignatureMismatch."""
    if array.dtype.kind != "S" and not (array.dtype.kind == "O" and any(isinstance(cell, bytes) for cell in array.flat)):
        return array
    return _texts(where, objects(array.ravel().tolist())).reshape(array.shape)


def _texts(where: str, values: Column) -> Column:
    if values.dtype.kind == "U":
        return values.astype(object)
    if values.dtype.kind == "S":
        values = values.astype(object)
    wrong = next((value for value in values if not isinstance(value, str | bytes) and not is_missing(value)), None)
    if values.dtype.kind != "O" or wrong is not None or _are_narrow_floats(values):
        raise SignatureMismatch(
            f"{where}: expected string, got {described(values) if wrong is None else described_value(wrong)}"
        )
    if any(isinstance(value, bytes) for value in values):
        return objects([_at(where, row, coltext.read_text, v) if isinstance(v, bytes) else v for row, v in enumerate(values)])
    return values


def _are_narrow_floats(values: Column) -> bool:
    """NaN of NumPy's narrower floats alone is a column of these to pandas; other NaN is a column where all is missing."""
    return bool(len(values)) and all(isinstance(value, np.float16 | np.float32) for value in values)


def _contents(where: str, values: Column) -> Column:
    if values.dtype.kind == "S":
        return values.astype(object)
    wrong = next((value for value in values if not isinstance(value, bytes | bytearray) and not is_missing(value)), None)
    if values.dtype.kind != "O" or wrong is not None or _are_narrow_floats(values):
        raise SignatureMismatch(
            f"{where}: expected binary, got {described(values) if wrong is None else described_value(wrong)}"
        )
    return values


def _datetimes(where: str, values: Column) -> Column:
    if values.dtype.kind == "O":
        if any(isinstance(value, bytes) for value in values):
            values = objects(
                [
                    _at(where, row, lambda cell: coltext.read_datetime(coltext.read_text(cell)), v)
                    if isinstance(v, bytes)
                    else v
                    for row, v in enumerate(values)
                ]
            )
        wrong = next((value for value in values if not isinstance(value, _DATES) and not is_missing(value)), None)
        if wrong is not None:
            raise SignatureMismatch(f"{where}: expected datetime, got {described_value(wrong)}")
        if any(getattr(value, "tzinfo", None) is not None for value in values):
            raise SignatureMismatch(f"{where}: expected datetime without a time zone, got one with")
        values = np.array([np.datetime64("NaT") if is_missing(v) else _moment(v) for v in values], "datetime64")
    if values.dtype.kind != "M":
        raise SignatureMismatch(f"{where}: expected datetime, got {described(values)}")
    exact = values.astype("datetime64[ns]")
    if values.dtype != exact.dtype and not (np.isnat(values) | (exact.astype(values.dtype) == values)).all():
        raise SignatureMismatch(f"{where}: expected datetime, of the years 1678 to 2261")
    return exact


def _moment(value: Any) -> np.datetime64:
    return np.datetime64(value.to_datetime64() if hasattr(value, "to_datetime64") else value)


def inferred(values: Column) -> Column:
    """Objects [n] -> booleans, numbers or datetimes where all of them are such, else as they came.

    Missing values among numbers become NaN and make floats of integers, among datetimes NaT.
    """
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return values
    if all(issubclass(kind, bool | np.bool_) for kind in kinds):
        return values if any(value is None for value in values) else values.astype(bool)
    if all(issubclass(kind, int | float | np.integer | np.floating) and kind is not bool for kind in kinds):
        return _numbers(values, kinds)
    if all(issubclass(kind, datetime | np.datetime64 | float) for kind in kinds):
        present = [value for value in values if not is_missing(value)]
        if present and not any(isinstance(v, float) or getattr(v, "tzinfo", None) is not None for v in present):
            return np.array([np.datetime64("NaT") if is_missing(v) else _moment(v) for v in values], "datetime64")
    return values


def _numbers(values: Column, kinds: set[type]) -> Column:
    if len(kinds) == 1 and kinds <= {int, float} and not any(value is None for value in values):  # most columns, and fast
        try:
            return values.astype(np.float64 if kinds == {float} else np.int64)
        except OverflowError:
            pass
    integers = all(issubclass(kind, int | np.integer) for kind in kinds)
    whole = [int(value) for value in values if isinstance(value, int | np.integer)]
    low, high = min(whole, default=0), max(whole, default=0)
    if high >= 1 << 64 or low < -(1 << 63) or (low < 0 and high >= 1 << 63):
        return values
    if any(value is None for value in values) or not integers:
        if all(issubclass(kind, np.floating) for kind in kinds) and None not in values.tolist():
            return np.array(values.tolist(), np.result_type(*(np.dtype(kind) for kind in kinds)))
        return np.array([math.nan if value is None else float(value) for value in values], np.float64)
    if all(issubclass(kind, np.integer) for kind in kinds):
        return values.astype(np.result_type(*(np.dtype(kind) for kind in kinds)))
    return values.astype(np.uint64 if high >= 1 << 63 else np.int64)


def _lossless(where: str, values: Column, kind: ScalarType) -> Column:
    """As a transport without types of its own has them: text, and numbers of JSON."""
    if kind is STRING:
        if values.dtype.kind in "biuf":
            values = values.astype(object)
        if values.dtype.kind == "O":
            values = objects([str(v) if (_is_number(v) and not is_missing(v)) or isinstance(v, bool) else v for v in values])
        return _texts(where, values)
    if kind is BINARY:
        cells = values if values.dtype.kind == "O" else objects(values.tolist())
        return _contents(
            where,
            objects([_at(where, row, coltext.read_base64, v) if isinstance(v, str) else v for row, v in enumerate(cells)]),
        )
    cells = values.astype(object) if values.dtype.kind in "US" else values
    if kind is DATETIME:
        if cells.dtype.kind in "iu":
            cells = cells.astype("datetime64[ns]")
        if cells.dtype.kind == "O":
            cells = objects(
                [_at(where, row, coltext.read_datetime, v) if isinstance(v, str) else v for row, v in enumerate(cells)]
            )
        return _strict(where, cells, kind)
    if cells.dtype.kind == "O":
        if any(isinstance(value, str) for value in cells):
            cells = objects([_parsed(value) for value in cells])
        if kind is not BOOLEAN:
            return cast_objects(where, cells, kind.dtype, str(kind))
        cells = inferred(cells)
    if cells.dtype.kind == "O":
        return _of_objects(where, cells, kind)
    return cast(where, cells, kind.dtype, str(kind))


def _parsed(value: Any) -> Any:
    """A number written as text -> the number; what is no number, or none that a float holds, stays."""
    if not isinstance(value, str) or len(value) > _MAX_DIGITS or "_" in value:
        return value
    try:
        return int(value)
    except ValueError:
        pass
    try:
        number = float(value)
    except ValueError:
        return value
    return value if math.isinf(number) and "inf" not in value.lower() else number


def cast(where: str, values: Column, want: np.dtype[Any], name: str) -> Column:
    """Numbers [...] to another dtype, where each keeps its value; a float may be rounded to a narrower float.

    Raises SignatureMismatch.
    """
    if values.dtype == want:
        return values
    if values.dtype.kind not in "biuf" or want.kind not in "biuf":
        raise SignatureMismatch(f"{where}: expected {name}, got {described(values)}")
    result, kept = _tried(values, want)
    if not kept.all():
        place = tuple(np.argwhere(~kept)[0])
        raise SignatureMismatch(f"{where}: expected {name}, {_unheld(values[place].item(), want, place)}")
    return result


def cast_objects(where: str, cells: Column, want: np.dtype[Any], name: str) -> Column:
    """Objects [...] to a dtype of numbers as `cast` does, each by itself: no integer becomes a float on the way to another.

    What is missing is NaN. Raises SignatureMismatch.
    """
    values = cells.ravel().tolist()
    kinds = set(map(type, values))
    if not kinds <= {bool, int, float}:
        values = [_number_of(value) for value in values]
        odd = next((cell for cell, value in zip(cells.ravel(), values, strict=True) if value is None), None)
        if odd is not None:
            raise SignatureMismatch(f"{where}: expected {name}, got {described_value(odd)}")
        kinds = set(map(type, values))
    result, kept = np.empty(len(values), want), np.ones(len(values), bool)
    for kind, dtype in ((bool, np.bool_), (float, np.float64), (int, None)):
        if kind in kinds:
            here = np.fromiter((type(value) is kind for value in values), bool, len(values))
            part: list[Any] = [value for value in values if type(value) is kind]
            result[here], kept[here] = _tried(np.array(part, dtype), want) if dtype else _tried_integers(part, want)
    if not kept.all():
        first = int(np.argmin(kept))
        held = _unheld(values[first], want, np.unravel_index(first, cells.shape))
        raise SignatureMismatch(f"{where}: expected {name}, {held}")
    return result.reshape(cells.shape)


def _number_of(value: Any) -> bool | int | float | None:
    """A number of any library as Python's, NaN for what is missing, None for what is none."""
    if is_missing(value):
        return math.nan
    if isinstance(value, Decimal):
        whole = value.is_finite() and value.adjusted() < _MAX_DIGITS and value == value.to_integral_value()
        return int(value) if whole else float(value)
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    return float(value) if isinstance(value, float | np.floating) else None


def _tried(values: Column, want: np.dtype[Any]) -> tuple[Column, npt.NDArray[np.bool_]]:
    """Numbers [...] cast, and where they kept their value."""
    with np.errstate(all="ignore"):
        result = values.astype(want)
    return result, _kept(values, result)


def _tried_integers(values: list[int], want: np.dtype[Any]) -> tuple[Column, npt.NDArray[np.bool_]]:
    """The same of integers [n] of any size."""
    try:
        return _tried(np.array(values, np.int64), want)
    except OverflowError:
        pass
    if want.kind == "f":
        with np.errstate(all="ignore"):
            result = np.array([float(v) if v.bit_length() < 1024 else math.inf for v in values]).astype(want)
        return result, np.array([math.isfinite(r) and int(r) == v for r, v in zip(result, values, strict=True)])
    low, high = _limits(want)
    kept = [low <= value <= high for value in values]
    return np.array([v if k else 0 for v, k in zip(values, kept, strict=True)], want), np.array(kept)


def _limits(want: np.dtype[Any]) -> tuple[int, int]:
    return (0, 1) if want.kind == "b" else (int(np.iinfo(want).min), int(np.iinfo(want).max))


def _unheld(value: Any, want: np.dtype[Any], place: Sequence[Any]) -> str:
    """What kind of number a dtype cannot hold, and where it stands; never the number."""
    at = f" at {[int(index) for index in place[1:]]}" if len(place) > 1 else ""
    where = f"(row {int(place[0])}{at})" if place else ""
    if is_missing(value):
        return f"got a missing value {where}"
    if isinstance(value, float) and math.isinf(value):
        kind = "an infinite number"
    elif want.kind != "f" and isinstance(value, float) and not value.is_integer():
        kind = "a fraction"
    elif want.kind in "bu" and value < 0:
        kind = "a negative number"
    elif want.kind == "f" and isinstance(value, int) and abs(value) <= float(np.finfo(want).max):
        kind = "an integer of so many digits"
    else:
        kind = "a number of that size"
    return f"which cannot hold {kind} {where}".rstrip()


def _kept(values: Column, result: Column) -> npt.NDArray[np.bool_]:
    """Where a cast left a number what it was, [...]; of a float cast to a narrower one, where it is still finite."""
    want = result.dtype
    if want.kind == "f":
        if values.dtype.kind == "f":
            return np.isfinite(result) | ~np.isfinite(values)
        exact = 2 ** (np.finfo(want).nmant + 1)  # up to here every integer is one of its numbers
        kept = np.isfinite(result)
        for at in np.argwhere((values > exact) | (values < -exact) if values.dtype.kind in "iu" else np.zeros(values.shape)):
            place = tuple(at)
            kept[place] = kept[place] and int(result[place]) == int(values[place])
        return kept
    low, high = _limits(want)
    if values.dtype.kind == "f":
        return np.asarray((values == np.floor(values)) & (values >= low) & (values < float(high) + 1))
    return np.ones(values.shape, bool) if values.dtype.kind == "b" else np.asarray((values >= low) & (values <= high))


def enforce_cell(where: str, value: Any, kind: ColumnType, required: bool) -> Any:
    """One cell of any type -> plain Python. Raises SignatureMismatch."""
    match kind:
        case ScalarType():
            return _scalar(where, value, kind, required)
        case ArrayType(items):
            return _array(where, value, items, required)
        case ObjectType():
            return _object(where, value, kind, required)
        case MapType(values):
            return _map(where, value, values, required)
        case AnyType():
            return value


def _scalar(where: str, value: Any, kind: ScalarType, required: bool) -> Any:
    if not required and is_missing(value):
        return None
    if not (np.isscalar(value) or isinstance(value, datetime)):
        raise SignatureMismatch(f"{where}: expected {kind}, got {described_value(value)}")
    return _plain(_strict(where, objects([value]), kind))[0]


def _plain(values: Column) -> list[Any]:
    if values.dtype.kind == "M":
        return list(values.astype("datetime64[us]").tolist())
    return list(values.tolist())


def _array(where: str, value: Any, items: ColumnType, required: bool) -> Any:
    if (not required or isinstance(items, AnyType)) and (
        value is None or (isinstance(value, list | np.ndarray) and len(value) == 0)
    ):
        return value if value is None else []
    if not isinstance(value, list | np.ndarray) or (isinstance(value, np.ndarray) and value.ndim == 0):
        raise SignatureMismatch(f"{where}: expected array<{items}>, got {described_value(value)}")
    if not isinstance(items, ScalarType):
        return [enforce_cell(f"{where}[{index}]", one, items, required) for index, one in enumerate(value)]
    if len(value) == 0:
        return []
    if isinstance(value, np.ndarray) and value.ndim != 1:
        raise SignatureMismatch(f"{where}: expected array<{items}>, got {described(value)}")
    column = _strict(where, value if isinstance(value, np.ndarray) else objects(value), items)
    if items in (STRING, BINARY, BOOLEAN) and any(map(is_missing, column)):
        raise SignatureMismatch(f"{where}: expected array<{items}>, got a missing value in it")
    return _plain(column)


def _object(where: str, value: Any, kind: ObjectType, required: bool) -> Any:
    if not required and (value is None or value == {}):
        return value
    if not isinstance(value, dict):
        raise SignatureMismatch(f"{where}: expected {kind}, got {described_value(value)}")
    known = {of.name: of for of in kind.properties}
    if missing := [name for name, of in known.items() if of.required and name not in value]:
        raise SignatureMismatch(f'{where}: property "{missing[0]}" is missing')
    if unknown := [str(name) for name in value if name not in known]:
        raise SignatureMismatch(f'{where}: property "{unknown[0][:64]}" is not in the signature, which has {", ".join(known)}')
    return {name: enforce_cell(f"{where}.{name}", one, known[name].type, known[name].required) for name, one in value.items()}


def _map(where: str, value: Any, values: ColumnType, required: bool) -> Any:
    if (not required or isinstance(values, AnyType)) and (value is None or value == {}):
        return value
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise SignatureMismatch(f"{where}: expected map<{values}>, got {described_value(value)}")
    return {key: enforce_cell(f"{where}.{key[:64]}", one, values, required) for key, one in value.items()}


def described(values: Column) -> str:
    """dtype and shape of an array, and for objects what the first of them is; never a value."""
    if values.dtype.kind == "O" and values.ndim == 1:
        odd = {described_value(value) for value in values[:1000]}
        return " and ".join(sorted(odd)[:3])
    text = f"{'text' if values.dtype.kind == 'U' else values.dtype} [{','.join(map(str, values.shape))}]"
    lost = int(np.isnan(values).sum()) if values.dtype.kind == "f" else 0
    return f"{text} with {lost} missing" if lost else text


def described_value(value: Any) -> str:
    if is_missing(value):
        return "a missing value"
    return "text" if isinstance(value, str) else type(value).__name__
