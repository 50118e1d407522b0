"""Column values as text, where a transport has nothing better: UTF-8, ISO 8601, JSON with base64."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tensign.coltypes import BINARY, DATETIME, ArrayType, ColumnType, MapType, ObjectType, ScalarType
from tensign.errors import InvalidInput, SignatureMismatch, TooLarge
from tensign.jsontext import parse_json


def read_text(content: bytes) -> str:
    """UTF-8 -> text. Raises SignatureMismatch."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise SignatureMismatch(f"not UTF-8 at byte {error.start}") from None


def read_datetime(text: str) -> np.datetime64[Any]:
    """ISO 8601 -> datetime64[ns]; an offset is taken off, so that UTC remains. Raises SignatureMismatch."""
    try:
        if text[-1:].isdigit() and "+" not in text and text.count("-") == 2:
            exact: Any = np.datetime64(text)  # numpy reads nine digits of a second, datetime six
            nanoseconds: np.datetime64[Any] = exact.astype("datetime64[ns]")
            if nanoseconds.astype(exact.dtype) != exact:
                raise ValueError(text)
            return nanoseconds
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            moment = moment.astimezone(UTC).replace(tzinfo=None)
        nanoseconds = np.datetime64(moment, "ns")
        if nanoseconds.astype("datetime64[us]").item() != moment:
            raise ValueError(text)
        return nanoseconds
    except (ValueError, OverflowError):
        raise SignatureMismatch("expected a date and time such as 2024-05-06T07:08:09, of the years 1678 to 2261") from None


def read_base64(text: str) -> bytes:
    """Base64, lines or none -> bytes. Raises SignatureMismatch."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise SignatureMismatch("expected base64") from None


def read_json(text: str | bytes) -> Any:
    """JSON -> plain Python, as `parse_json` reads it. Raises SignatureMismatch."""
    try:
        return parse_json(text)
    except (InvalidInput, TooLarge) as error:
        raise SignatureMismatch(f"expected JSON: {str(error).removeprefix('JSON: ')}") from None


def write_json(value: Any) -> str:
    """A cell of a compound column -> JSON: bytes as base64, datetimes as ISO 8601. Raises TypeError and ValueError."""
    return json.dumps(value, default=_plain, ensure_ascii=False)


def write_datetime(value: Any) -> str:
    """datetime64 -> ISO 8601, and "" for a missing one."""
    return "" if np.isnat(value) else np.datetime_as_string(value, unit="auto")


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    if isinstance(value, np.datetime64):
        return write_datetime(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON")


def typed(value: Any, kind: ColumnType) -> Any:
    """A cell as JSON has it -> the cell with numpy's numbers, bytes and datetimes where its type wants them.

    What is not as the type wants it is left for enforcement to refuse. Raises SignatureMismatch for text that is no
    base64 or no datetime.
    """
    match kind:
        case ArrayType(items) if isinstance(value, list):
            return [typed(one, items) for one in value]
        case MapType(values) if isinstance(value, Mapping):
            return {key: typed(one, values) for key, one in value.items()}
        case ObjectType(properties) if isinstance(value, Mapping):
            kinds = {of.name: of.type for of in properties}
            return {key: typed(one, kinds[key]) if key in kinds else one for key, one in value.items()}
        case ScalarType() if kind is BINARY and isinstance(value, str):
            return read_base64(value)
        case ScalarType() if kind is DATETIME and isinstance(value, str):
            return read_datetime(value)
        case ScalarType() if kind.dtype.kind in "if" and type(value) in (int, float):
            return _number(value, kind.dtype)
    return value


def _number(value: float, dtype: np.dtype[Any]) -> Any:
    """The number in the column's own dtype where it fits, else as it came."""
    if dtype.kind == "i":
        limits = np.iinfo(dtype)
        return dtype.type(value) if type(value) is int and limits.min <= value <= limits.max else value
    try:
        number = float(value)
    except OverflowError:
        return value
    fits = not abs(number) > np.finfo(dtype).max or abs(number) == float("inf")
    return dtype.type(number) if fits and (type(value) is float or int(number) == value) else value
