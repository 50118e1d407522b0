"""Outputs -> JSON, in the form in which the model itself returned them, as MLflow's server writes it.

Source: mlflow.utils.proto_json_utils, `_get_jsonable_obj` and `NumpyEncoder`, release 3.17.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import date, datetime, time
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.form import Form
from tensign.model import Model
from tensign.request import Formed, Outputs

_TABLES = ("dataframe", "series", "records")


def written(model: Model, outputs: Outputs) -> str:
    """{output: [n,...]} -> JSON text, as MLflow's server has it of the same model."""
    return json.dumps(jsonable(outputs, form_of(model, outputs)), default=_plain)


def form_of(model: Model, outputs: Outputs | None = None) -> Form:
    """What kind of thing the model returned, as `outputs` or last, or returned before it was converted, and its own names."""
    if model.plan.flavor != "tensign":
        return (outputs.form if isinstance(outputs, Formed) else model.form) or Form("dict")
    return model.plan.form


def jsonable(outputs: Outputs, form: Form) -> Any:
    """The same before it is text."""
    if form.kind in _TABLES:
        columns = _columns(outputs, form.names)
        return [dict(zip(columns, row, strict=True)) for row in zip(*map(_cells, columns.values()), strict=True)]
    if form.kind == "dict":
        return {name: array.tolist() for name, array in _renamed(outputs, form.names).items()}
    arrays = list(outputs.values())
    if form.kind == "tuple":
        return [array.tolist() for array in arrays]
    return arrays[0].tolist() if len(arrays) == 1 else np.stack(arrays, axis=1).tolist()


def _renamed(outputs: Outputs, names: Sequence[str]) -> Outputs:
    """By the model's own names, where it does not use the signature's."""
    if len(names) != len(outputs) or set(names) == outputs.keys():
        return outputs
    return dict(zip(names, outputs.values(), strict=True))


def _columns(outputs: Outputs, names: Sequence[str]) -> Outputs:
    if len(outputs) == 1 and len(names) > 1:  # columns that the signature calls one tensor
        (matrix,) = outputs.values()
        return {name: matrix[:, index] for index, name in enumerate(names)}
    return _renamed(outputs, names or ("0",) * (len(outputs) == 1))  # pandas' name for what has none


def _cells(array: npt.NDArray[Any]) -> list[Any]:
    """What a DataFrame's column gives for each row."""
    if array.dtype.kind == "M":
        return [_moment(value) for value in array]
    return list(array) if array.ndim > 1 else array.tolist()


def _moment(value: np.datetime64) -> str:
    """ISO 8601 as pandas writes it: fractions only as far as there are any."""
    if np.isnat(value):
        return "NaT"
    nanoseconds = int(value.astype("datetime64[ns]").astype(np.int64)) % 1_000_000_000
    if not nanoseconds:
        return str(value.astype("datetime64[s]"))
    return str(value.astype("datetime64[us]" if nanoseconds % 1000 == 0 else "datetime64[ns]"))


def _plain(value: Any) -> Any:
    """What JSON has no word for."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.datetime64):
        return _moment(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bytes | bytearray):
        return base64.encodebytes(value).decode("ascii")
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__} is nothing that JSON holds")
