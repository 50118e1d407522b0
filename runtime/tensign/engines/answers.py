"""What a model returned, whatever it is, as arrays by the names of the signature's outputs. In the worker only."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from tensign.errors import ModelFailed
from tensign.form import Form

if TYPE_CHECKING:
    import numpy.typing as npt

    Arrays = dict[str, npt.NDArray[Any]]


def named(value: Any, declared: list[dict[str, Any]]) -> tuple[Arrays, Form]:
    """({output: [n,...]}, the form it had).

    declared: the signature's outputs, each {"name", "named", "dtype", "column"}; [] where it declares none. Raises
    ModelFailed for what is no answer. Whether dtype, shape and rows are as promised is for the server to check.
    """
    pandas: Any = sys.modules.get("pandas")  # a model that returns a DataFrame has imported it
    if pandas is not None and isinstance(value, pandas.DataFrame):
        columns = _distinct([(name, value.iloc[:, index].to_numpy()) for index, name in enumerate(value.columns)])
        return _by_name("dataframe", columns, declared)
    if pandas is not None and isinstance(value, pandas.Series):
        return _single("series", value.to_numpy(), declared, str(value.name) if value.name is not None else "")
    if hasattr(value, "toarray"):  # of scipy
        value = value.toarray()
    if isinstance(value, np.ndarray):
        return _single("ndarray", value, declared)
    if isinstance(value, dict):
        return _by_name("dict", _distinct([(name, _array(item, None)) for name, item in value.items()]), declared)
    if isinstance(value, tuple):
        pieces = {str(number): _array(item, None) for number, item in enumerate(value)}
        return _by_name("tuple", pieces, declared)
    if isinstance(value, list):
        if value and all(isinstance(item, dict) for item in value):
            names = list(dict.fromkeys(name for item in value for name in item))
            if not _is_compound(declared):
                columns = _distinct([(name, _array([item.get(name) for item in value], None)) for name in names])
                return _by_name("records", columns, declared)
        return _single("list", _array(value, declared[0] if len(declared) == 1 else None), declared)
    raise ModelFailed(f"the model returned {'None' if value is None else 'a ' + type(value).__name__}, which holds no rows")


def _is_compound(declared: list[dict[str, Any]]) -> bool:
    """True where maps are what rows of the one output are."""
    return len(declared) == 1 and declared[0]["dtype"] in (None, "|O")


def _single(kind: str, array: npt.NDArray[Any], declared: list[dict[str, Any]], name: str = "") -> tuple[Arrays, Form]:
    if array.ndim == 0:
        raise ModelFailed("the model returned a single value, which holds no rows")
    if len(declared) > 1 and array.ndim == 2 and array.shape[1] == len(declared):  # several columns as one matrix
        pieces = {spec["name"]: array[:, index] for index, spec in enumerate(declared)}
        return pieces, Form(kind, ())
    if declared and len(declared) != 1:
        raise ModelFailed(f"the model returned one array {list(array.shape)} for {len(declared)} outputs")
    if declared and declared[0].get("column") and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    return {declared[0]["name"] if declared else "output-0": array}, Form(kind, (name,) if name else ())


def _by_name(kind: str, pieces: Arrays, declared: list[dict[str, Any]]) -> tuple[Arrays, Form]:
    """By the declared names; where those are not its own, by position."""
    form = Form(kind, tuple(pieces))
    if not declared:
        return pieces, form
    wanted = [spec["name"] for spec in declared]
    if all(name in pieces for name in wanted):
        return {name: pieces[name] for name in wanted}, form
    if len(pieces) == len(wanted) and not all(spec["named"] for spec in declared):
        arrays = list(pieces.values())
        return {name: arrays[index] for index, name in enumerate(wanted)}, form
    if len(wanted) == 1 and len(pieces) == 1:
        return {wanted[0]: next(iter(pieces.values()))}, form
    if len(wanted) == 1 and not declared[0].get("column"):  # a matrix, as MLflow's wrappers return it: a column each
        lengths = {len(piece) for piece in pieces.values()}
        if len(lengths) == 1 and all(piece.ndim == 1 for piece in pieces.values()):
            matrix = np.stack(list(pieces.values()), axis=1)
            if all(matrix.dtype == piece.dtype or _equal(matrix[:, at], piece) for at, piece in enumerate(pieces.values())):
                return {wanted[0]: matrix}, form
    raise ModelFailed(f"the model returned {sorted(pieces)[:8]}, the signature promises {wanted[:8]}")


def _array(value: Any, spec: dict[str, Any] | None) -> npt.NDArray[Any]:
    """A list has no dtype: it gets the declared one where that keeps every value, else numpy's or none."""
    if isinstance(value, np.ndarray):
        return value
    pandas: Any = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.Series):
        return np.asarray(value.to_numpy())
    if not isinstance(value, (list, tuple)):
        return np.asarray(value)
    if any(isinstance(item, (str, bytes, dict)) or item is None for item in value):
        return _objects(value)
    try:
        array = np.asarray(value)
    except ValueError:  # ragged
        return _objects(value)
    if array.dtype == object or array.dtype.kind in "SU":
        return array.astype(object) if array.ndim == 1 else _objects(value)
    if array.dtype.kind in "fc" and not _equal(array, np.asarray(value, object)):  # of integers and floats
        return _objects(value)
    if spec is not None and spec["dtype"] not in (None, "|O", array.dtype.str):
        wanted = np.dtype(spec["dtype"])
        if wanted.kind not in "biufc" or array.dtype.kind not in "biufc" or (array.dtype.kind == "c" and wanted.kind != "c"):
            return array
        with np.errstate(all="ignore"):
            cast = array.astype(wanted)
        if _equal(cast, array):
            return cast
    return array


def _equal(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> bool:
    """As Python compares, exactly: numpy would first cast integers to float64. NaN is NaN."""
    pairs = zip(ours.ravel().tolist(), theirs.ravel().tolist())
    return ours.shape == theirs.shape and all(one == other or (one != one and other != other) for one, other in pairs)


def _distinct(pieces: list[tuple[Any, npt.NDArray[Any]]]) -> Arrays:
    names = [str(name) for name, _ in pieces]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ModelFailed(f'the model returned two columns called "{twice[:64]}"')
    return {name: array for name, (_, array) in zip(names, pieces)}


def _objects(value: Any) -> npt.NDArray[Any]:
    array = np.empty(len(value), object)
    for index, item in enumerate(value):
        array[index] = item
    return array
