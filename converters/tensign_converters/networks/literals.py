"""The parts of an exported program's JSON: objects with fields, values of one kind, and constants."""

from __future__ import annotations

from typing import Any

import torch

from tensign.errors import UnsupportedModel

DTYPES = {  # schema.ScalarType -> torch's name, where ONNX has it too
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64", 12: "bool",
    13: "bfloat16",
}  # fmt: skip
_CODES: dict[str, dict[int, Any]] = {
    "as_scalar_type": {code: getattr(torch, name) for code, name in DTYPES.items()},
    "as_memory_format": {
        1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format,
    },
    "as_layout": {7: torch.strided},
}  # fmt: skip


def field(document: Any, name: str, kind: type[Any]) -> Any:
    """A part of a JSON object, of that kind. Raises UnsupportedModel."""
    value = document.get(name) if isinstance(document, dict) else None
    if type(value) is not kind:
        raise UnsupportedModel(f"a broken program: wanted its {name} as {kind.__name__}, got {type(value).__name__}")
    return value


def union(value: Any) -> tuple[str, Any]:
    """Kind and content of {"as_int": 3}. Raises UnsupportedModel."""
    if isinstance(value, dict) and len(value) == 1:
        ((kind, content),) = value.items()
        return kind, content
    raise UnsupportedModel("a broken program: wanted a value of one kind")


def constant(kind: str, value: Any) -> Any:
    """A constant. Raises UnsupportedModel where it is not what its kind says."""
    singular = kind.removesuffix("s")
    if kind in ("as_ints", "as_floats", "as_bools", "as_strings") and isinstance(value, list):
        return [constant(singular, each) for each in value]
    if kind == "as_none":
        return None
    if kind == "as_float" and (type(value) is float or value in ("Infinity", "-Infinity", "NaN")):
        return float(value)
    if (kind, type(value)) in (("as_bool", bool), ("as_string", str)):
        return value
    if kind == "as_int" and type(value) is int and abs(value) < 1 << 63:
        return value
    if kind in _CODES and type(value) is int and value in _CODES[kind]:
        return _CODES[kind][value]
    raise UnsupportedModel(f"a value of kind {kind[:50]!a} that is none, or none that is known")
