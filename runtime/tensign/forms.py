"""The forms that a caller's data comes in -> named arrays: dicts, lists of records or rows, arrays, DataFrames.

pandas is never imported: a caller who has a DataFrame has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.coltypes import ArrayType, ObjectType
from tensign.devicememory import DeviceArray
from tensign.errors import SignatureMismatch
from tensign.specs import ColumnSpec, TensorSpec
from tensign.values import cast, cast_objects, described, inferred, objects

Column = npt.NDArray[Any]

_MAX_SPREAD = 4  # cells that are made, for each that came, of rows that name or have different ones
_UNREAD = np.empty(0, object)  # in place of a column that the signature does not name


def is_frame(data: Any) -> bool:
    """True for a pandas DataFrame."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(data, pandas.DataFrame)


def is_series(data: Any) -> bool:
    """True for a pandas Series."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(data, pandas.Series)


def columns(data: Any, specs: Sequence[ColumnSpec | TensorSpec]) -> dict[str, Column]:
    """{name: [n]} of whatever form, in the words of MLflow's `_enforce_schema`. Raises SignatureMismatch.

    Columns without names of their own, and those for specs without, go by their place.
    """
    found = _labelled(data, specs)
    if specs and not specs[0].named and not found.keys() <= {spec.name for spec in specs}:
        names = [spec.name for spec in specs] + [f"input-{index}" for index in range(len(specs), len(found))]
        found = dict(zip(names, found.values(), strict=True)) if len(found) >= len(specs) else found
        if len(found) < len(specs):
            raise SignatureMismatch(f"expected {len(specs)} columns, got {len(found)}")
    return found


def is_nameless(data: Any) -> bool:
    """True for rows, and for one value, that name no column."""
    return (isinstance(data, list) and not _is_records(data)) or isinstance(data, np.ndarray) or bool(np.isscalar(data))


def columns_read(names: Collection[Any], rows: int, cells: int, specs: Sequence[ColumnSpec | TensorSpec]) -> set[str]:
    """Which of the names that came to make columns of: those of the signature, or all where it has none of its own.

    cells: how many came for all rows. A few of them must not make columns without end. Raises SignatureMismatch.
    """
    if specs and specs[0].named:
        return {spec.name for spec in specs}
    check_spread(len(names), rows, cells)
    return {str(name) for name in names}


def check_spread(names: int, rows: int, cells: int) -> None:
    """Raises SignatureMismatch where a table would have many more cells than came."""
    if rows * names > _MAX_SPREAD * (cells + rows):
        raise SignatureMismatch(f"expected rows that are alike, got {cells} cells in {rows} rows of {names} names")


def _labelled(data: Any, specs: Sequence[ColumnSpec | TensorSpec]) -> dict[str, Column]:
    if is_series(data):
        return {str(0 if data.name is None else data.name): _of_series(data)}
    if is_frame(data):
        labels = [str(label) for label in data.columns]
        if len(set(labels)) != len(labels):
            raise SignatureMismatch("two columns of one name")
        return {label: _of_series(data.iloc[:, index]) for index, label in enumerate(labels)}
    if isinstance(data, Mapping):
        return _of_mapping(data, specs)
    if isinstance(data, np.ndarray):
        if data.ndim not in (1, 2) or data.dtype.names:
            raise SignatureMismatch(f"expected columns, got {described(data)}")
        table = data[:, None] if data.ndim == 1 else data
        return {str(index): table[:, index] for index in range(table.shape[1])}
    if isinstance(data, list):
        return _of_list(data, specs)
    if np.isscalar(data):
        return {"0": objects([data])}
    raise SignatureMismatch(f"expected columns, got {type(data).__name__}")


def _of_mapping(data: Mapping[Any, Any], specs: Sequence[ColumnSpec | TensorSpec]) -> dict[str, Column]:
    named = {str(name): value for name, value in data.items()}
    if named and all(isinstance(value, np.ndarray) and value.ndim > 0 for value in named.values()):
        return {name: _flat(array) for name, array in named.items()}
    compound = any(isinstance(spec, ColumnSpec) and isinstance(spec.type, ArrayType | ObjectType) for spec in specs)
    lists = {name for name, value in named.items() if _is_list(value)}
    if compound or not lists:
        return {name: objects([_unwrapped(value)]) for name, value in named.items()}
    rows = {len(named[name]) for name in lists}
    if len(rows) > 1:
        raise SignatureMismatch(f"columns disagree on the number of rows: {sorted(rows)[:8]}")
    (count,) = rows
    read = columns_read(named, count, count * len(lists), specs)
    return {
        name: _UNREAD
        if name not in read
        else _flat(value)
        if isinstance(value, np.ndarray) and name in lists
        else _of_series(value)
        if is_series(value)
        else objects(list(value))
        if name in lists
        else objects([_unwrapped(value)] * count)
        for name, value in named.items()
    }


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) or is_series(value) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _unwrapped(value: Any) -> Any:
    """A text in an array without axes -> the text."""
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind == "U" else value


def _flat(array: Column) -> Column:
    """[n] or [n,1] -> [n]; with more axes each row becomes a list."""
    if array.ndim == 1:
        return array
    return array[:, 0] if array.shape[1:] == (1,) else objects(array.tolist())


def _of_list(data: list[Any], specs: Sequence[ColumnSpec | TensorSpec]) -> dict[str, Column]:
    if _is_records(data):
        names = dict.fromkeys(name for row in data for name in row)
        read = columns_read(names, len(data), sum(map(len, data)), specs)
        return {str(name): objects([row.get(name, np.nan) for row in data]) if str(name) in read else _UNREAD for name in names}
    if data and all(isinstance(row, list | tuple | np.ndarray) for row in data):
        wide = max(map(len, data))
        read = columns_read(range(wide), len(data), sum(map(len, data)), specs)
        return {
            str(at): objects([row[at] if at < len(row) else None for row in data]) if str(at) in read else _UNREAD
            for at in range(wide)
        }
    return {"0": objects(data)} if data else {}


def _of_series(series: Any) -> Column:
    if isinstance(series.dtype, np.dtype):
        return series.to_numpy()  # type: ignore[no-any-return]
    plain = getattr(series.dtype, "numpy_dtype", None)
    if plain is not None and plain.kind in "biuf" and not series.isna().any():
        return series.to_numpy(dtype=plain)  # type: ignore[no-any-return]
    return np.asarray(series.array.to_numpy(dtype=object, na_value=None))


def answered(data: Any, specs: Sequence[Any]) -> dict[str, Column]:
    """{output: [n]} of what a model returned: columns by name, or by place where they came without."""
    nameless = is_series(data) or isinstance(data, np.ndarray) or (isinstance(data, list) and not _is_records(data))
    found = columns(data, () if nameless else specs)
    if nameless and len(found) == len(specs):
        return dict(zip((spec.name for spec in specs), found.values(), strict=True))
    return found


def undeclared(data: Any) -> dict[str, Column]:
    """{output: [n,...]} of what a model returned whose signature says nothing of it; "output-0" where it has no name."""
    if isinstance(data, Mapping) and all(isinstance(value, np.ndarray) for value in data.values()):
        return {str(name): array for name, array in data.items()}
    if isinstance(data, Mapping) or is_frame(data) or (isinstance(data, list) and _is_records(data)):
        return {name: inferred(array) if array.dtype.kind == "O" else array for name, array in columns(data, ()).items()}
    if is_series(data):
        data = _of_series(data)
    array = data if isinstance(data, np.ndarray) else inferred(objects(data)) if isinstance(data, list) else None
    if array is None:
        raise SignatureMismatch(f'output "output-0": expected an array, got {type(data).__name__}')
    return {"output-0": array}


def _is_records(data: list[Any]) -> bool:
    return bool(data) and all(isinstance(row, Mapping) for row in data)


def tensors(data: Any, specs: Sequence[TensorSpec], *, kind: str = "input", lossless: bool = False) -> dict[str, Column]:
    """{name: [n,...]} of whatever form; names, dtypes and shapes are left to check. Raises SignatureMismatch.

    lossless: lists too become arrays, and numbers the tensor's dtype where all keep their value.
    """
    if not isinstance(data, dict):
        if is_series(data):
            data = data.to_frame()
        if is_frame(data):
            return _of_frame(data, specs)
    if isinstance(data, list) and lossless and data and all(isinstance(row, Mapping) for row in data):
        names = [spec.name for spec in specs if any(spec.name in row for row in data)]
        data = {name: [row.get(name) for row in data] for name in names}
    named = {str(name): value for name, value in data.items()} if isinstance(data, Mapping) else {specs[0].name: data}
    wanted = {spec.name: spec for spec in specs}
    return {name: _tensor(f'{kind} "{name[:64]}"', value, wanted.get(name), lossless) for name, value in named.items()}


def _tensor(where: str, value: Any, spec: TensorSpec | None, lossless: bool) -> Column:
    if isinstance(value, DeviceArray):
        return value  # type: ignore[return-value]
    if not isinstance(value, np.ndarray | np.generic):
        if not lossless:
            raise SignatureMismatch(f"{where}: expected a numpy array, got {type(value).__name__}")
        value = of_lists(where, value)
    array = np.asarray(value)
    if not lossless or spec is None or array.dtype == spec.dtype:
        return array if spec is None or not spec.text or not lossless else _text(where, array, spec)
    if spec.dtype.kind not in "biuf":
        return array
    if array.dtype.kind != "O":
        return cast(where, array, spec.dtype, str(spec))
    if array.ndim == 1 and any(isinstance(value, bytes) for value in array):  # pictures
        return array
    return cast_objects(where, array, spec.dtype, str(spec))


def of_lists(where: str, value: Any) -> Column:
    """Nested lists -> objects [n,...], of the same cells: a number stays what it is, and a text takes no more room.

    Raises SignatureMismatch where their lengths differ.
    """
    try:
        array = np.array(value, object)
    except (ValueError, RecursionError):
        array = None
    if array is None or any(issubclass(kind, list | tuple | np.ndarray) for kind in set(map(type, array.ravel()))):
        raise SignatureMismatch(f"{where}: expected lists of equal lengths, of one kind of value")
    return array


def _text(where: str, array: Column, spec: TensorSpec) -> Column:
    odd = [kind.__name__ for kind in set(map(type, array.ravel())) if not issubclass(kind, str | bytes | type(None))]
    if odd and array.dtype.kind == "O":
        raise SignatureMismatch(f"{where}: expected {spec} of text, got {min(odd)}")
    return array


def _of_frame(frame: Any, specs: Sequence[TensorSpec]) -> dict[str, Column]:
    """A column of scalars, lists or arrays is a tensor each; unnamed, all columns together may be one [n,columns]."""
    if len(specs) == 1 and not specs[0].named:
        spec = specs[0]
        if len(frame.columns) == 1:
            return {spec.name: _of_cells(frame.iloc[:, 0], spec)}
        if spec.shape != (-1, len(frame.columns)):
            raise SignatureMismatch(f'input "{spec.name}": expected {spec}, got a DataFrame of {len(frame.columns)} columns')
        return {spec.name: frame.to_numpy()}
    wanted = {spec.name: spec for spec in specs}
    labels = [str(label) for label in frame.columns]
    if len(set(labels)) != len(labels):
        raise SignatureMismatch("two columns of one name")
    return {
        label: _of_cells(frame.iloc[:, index], wanted[label]) if label in wanted else frame.iloc[:, index].to_numpy()
        for index, label in enumerate(labels)
    }


def _of_cells(series: Any, spec: TensorSpec) -> Column:
    where = f'input "{spec.name}"'
    if spec.shape[0] != -1 or -1 in spec.shape[1:]:
        raise SignatureMismatch(f"{where}: expected {spec}; a DataFrame's column needs [-1,...] with fixed axes behind")
    cells = series.to_numpy()
    if not len(cells):
        raise SignatureMismatch(f"{where}: expected at least 1 row, got 0")
    first = cells[0]
    try:
        if isinstance(first, list | np.ndarray):
            together = np.vstack(series.tolist())
            array = together.reshape(len(cells), *spec.shape[1:])
            return array if isinstance(first, np.ndarray) else _cast_cells(where, array, spec)
        if np.isscalar(first) and spec.shape in ((-1,), (-1, 1)):
            return _cast_cells(where, np.array(cells.tolist()).reshape(len(cells), *spec.shape[1:]), spec)
    except ValueError:
        raise SignatureMismatch(f"{where}: expected {spec}, got cells of other lengths") from None
    raise SignatureMismatch(f"{where}: expected {spec}, got a DataFrame's column of {type(first).__name__}")


def _cast_cells(where: str, array: Column, spec: TensorSpec) -> Column:
    if spec.dtype.kind == "O":
        return array.astype(object)
    return cast(where, array, spec.dtype, str(spec))
