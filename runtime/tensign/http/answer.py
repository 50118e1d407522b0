"""Outputs -> JSON, in the form in which the model itself returned them, as MLflow's server writes it.

Source: mlflow.utils.proto_json_utils, `_get_jsonable_obj` and `NumpyEncoder`, release 3.17.
"""

from __future__ import annotations

import base64
import json
from datetime import date, datetime, time
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.model import Model
from tensign.request import Outputs

TABLES = ("dataframe", "series")


def written(model: Model, outputs: Outputs) -> str:
    """{output: [n,...]} -> JSON text, as the model itself would have returned it."""
    kind, names = form_of(model)
    named = dict(zip(names, outputs.values(), strict=True)) if len(names) == len(outputs) else dict(outputs)
    return json.dumps(jsonable(named, kind), default=_plain)


def form_of(model: Model) -> tuple[str, tuple[str, ...]]:
    """What kind of thing the model returns, and its own names for the parts."""
    return ("dict" if model.signature.outputs[0].named else "ndarray"), ()


def jsonable(outputs: Outputs, kind: str) -> Any:
    """The same before it is text.

    kind: "dict" of arrays, "ndarray", "list", "tuple", "scalar", or what has rows of named cells: "dataframe", "series",
    "records".
    """
    if kind in (*TABLES, "records"):
        cells = [_row_cells(array) for array in outputs.values()]
        return [dict(zip(outputs, row, strict=True)) for row in zip(*cells, strict=True)]
    if kind == "dict":
        return {name: array.tolist() for name, array in outputs.items()}
    if kind == "tuple" or len(outputs) > 1:
        return [array.tolist() for array in outputs.values()]
    (only,) = outputs.values()
    return only.tolist() if kind != "scalar" else only.tolist()[0]


def _row_cells(array: npt.NDArray[Any]) -> list[Any]:
    """What a DataFrame's column gives for each row."""
    if array.dtype.kind == "M":
        return [_moment(value) for value in array]
    return list(array) if array.ndim > 1 else array.tolist()


def _moment(value: np.datetime64) -> str:
    """ISO 8601 as pandas writes it: fractions only as far as there are any."""
    if np.isnat(value):
        return "NaT"
    nanoseconds = int(value.astype("datetime64[ns]").astype(np.int64)) % 1_000_000_000
    digits = 0 if not nanoseconds else 6 if nanoseconds % 1000 == 0 else 9
    unit = {0: "s", 6: "us", 9: "ns"}[digits]
    return str(np.datetime_as_string(value, unit=unit))


def _plain(value: Any) -> Any:
    """What JSON has no word for."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.datetime64):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bytes | bytearray):
        return base64.encodebytes(value).decode("ascii")
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__} is nothing that JSON holds")
