"""The values of params, by their types.

Source of the rules: mlflow.types.schema.ParamSpec.validate_param_spec, release 3.17.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np

from tensign.coltypes import BOOLEAN, DATETIME, DOUBLE, FLOAT, INTEGER, LONG, STRING, ObjectType, ScalarType
from tensign.errors import SignatureMismatch
from tensign.values import described_value, enforce_cell


def param_value(where: str, value: Any, kind: ScalarType | ObjectType, shape: tuple[int, ...] | None) -> Any:
    """A param's value as plain Python, None for none; of shape (-1,) a list of them. Raises SignatureMismatch."""
    if shape is not None:
        if not isinstance(value, list | np.ndarray) or (isinstance(value, np.ndarray) and value.ndim != 1):
            raise SignatureMismatch(f"{where}: expected a list of {kind}, got {described_value(value)}")
        return [param_value(where, one, kind, None) for one in value]
    if isinstance(kind, ObjectType):
        enforce_cell(where, value, kind, True)
        return value
    if value is None:
        return None
    if kind is DATETIME:
        return _datetime(where, value)
    if not any(type(value) in _TAKEN[allowed] for allowed in (*_CONVERSIONS.get(kind.name, ()), kind.name)):
        raise SignatureMismatch(f"{where}: expected {kind}, got {described_value(value)}")
    return _PYTHON[kind.name](value)


_TAKEN: Mapping[str, tuple[type, ...]] = {
    BOOLEAN.name: (bool, np.bool_),
    INTEGER.name: (int, np.int32),
    LONG.name: (int, np.int64),
    FLOAT.name: (float, np.float32),
    DOUBLE.name: (float, np.float64),
    STRING.name: (str, np.str_),
}
_CONVERSIONS = {
    LONG.name: (INTEGER.name,),
    FLOAT.name: (INTEGER.name, LONG.name),
    DOUBLE.name: (INTEGER.name, LONG.name, FLOAT.name),
}
_PYTHON: Mapping[str, type] = {
    BOOLEAN.name: bool,
    INTEGER.name: int,
    LONG.name: int,
    FLOAT.name: float,
    DOUBLE.name: float,
    STRING.name: str,
}


def _datetime(where: str, value: Any) -> Any:
    try:
        moment = np.datetime64(value).item()
    except (ValueError, TypeError, UserWarning):
        moment = None
    if not isinstance(moment, date):
        raise SignatureMismatch(f"{where}: expected datetime, got {described_value(value)}")
    return moment
