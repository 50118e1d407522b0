"""The input example that was saved with a model -> specs of its inputs and params, as MLflow would infer them from it.

JSON has no dtypes: whole numbers are long or int64, others double or float64. Source: mlflow.types.utils, release 3.17.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tensign.choice import inside
from tensign.errors import UnsupportedModel
from tensign.mlmodel import ModelManifest

_MAX_BYTES = 64 << 20
_SCALARS = {bool: "boolean", int: "long", float: "double", str: "string"}

Entries = list[dict[str, Any]]


def example_specs(manifest: ModelManifest) -> tuple[Entries, Entries, str]:
    """(inputs, params, the file's name); inputs is empty where no example was saved. Raises UnsupportedModel."""
    info = manifest.saved_input_example
    if not info:
        return [], [], ""
    file = inside(manifest, info.get("artifact_path"))
    if file.stat().st_size > _MAX_BYTES:
        raise UnsupportedModel(f"{file.name}: more than {_MAX_BYTES} bytes")
    try:
        example = json.loads(file.read_text(encoding="utf-8"))
        params: Any = {}
        if info.get("params"):
            example, params = example["inputs"], example["params"]
        specs = _specs(str(info.get("type")), example)
        return specs, [_param(name, value) for name, value in params.items()], file.name
    except UnsupportedModel as error:
        raise UnsupportedModel(f"{file.name}: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UnsupportedModel(f"{file.name}: no input example that MLflow wrote: {type(error).__name__}") from None


def _specs(kind: str, example: Any) -> Entries:
    if kind == "ndarray":
        named = isinstance(example, dict)
        return [{"name": name, **_tensor(name, one)} for name, one in example.items()] if named else [_tensor("", example)]
    if kind == "dataframe":
        columns, names = zip(*example["data"], strict=True), example.get("columns")
        if names is None:
            return [_unnamed(column) for column in columns]
        return [_column(str(name), column) for name, column in zip(names, columns, strict=True)]
    if kind != "json_object":
        raise UnsupportedModel(f"of a kind ({kind[:32]!a}) that no signature is inferred from; give --input")
    if isinstance(example, dict):
        return [_column(name, [value]) for name, value in example.items()]
    if isinstance(example, list) and example and all(isinstance(row, dict) for row in example):
        keys = dict.fromkeys(name for row in example for name in row)
        return [_column(name, [row.get(name) for row in example]) for name in keys]
    return [_unnamed(example if isinstance(example, list) else [example])]


def _unnamed(values: Sequence[Any]) -> dict[str, Any]:
    return {**_type("", values), "required": True}


def _tensor(name: str, values: Any) -> dict[str, Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "biufU" or not array.ndim:
        raise UnsupportedModel(f"tensor {name[:64]!a}: no array of numbers or text")
    dtype = "str" if array.dtype.kind == "U" else array.dtype.name
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, *array.shape[1:]]}}


def _column(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """A column that misses values is optional; of whole numbers it is then double, since pandas has no missing integers."""
    missing = any(map(_is_missing, values))
    kind = _type(name, values)
    if missing and kind == {"type": "long"}:
        kind = {"type": "double"}
    return {**kind, "name": name, "required": not missing}


def _type(name: str, values: Sequence[Any]) -> dict[str, Any]:
    present = [value for value in values if not _is_missing(value)]
    kinds = {type(value) for value in present}
    if not kinds or (kinds <= {list, dict} and not any(present)):
        return {"type": "double" if any(isinstance(value, float) for value in values) else "any"}
    if kinds == {list}:
        return {"type": "array", "items": _type(name, [item for value in present for item in value])}
    if kinds == {dict}:
        names = sorted({key for value in present for key in value})
        return {"type": "object", "properties": {key: _property(name, key, present) for key in names}}
    if kinds == {int, float}:
        return {"type": "double"}
    if len(kinds) == 1 and (found := _SCALARS.get(kinds.pop())):
        return {"type": found}
    raise UnsupportedModel(f"column {name[:64]!a}: values of several types; give --input")


def _property(name: str, key: str, values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = [value.get(key) for value in values]
    return {**_type(name, found), "required": not any(map(_is_missing, found))}


def _is_missing(value: Any) -> bool:
    """null, or NaN, which is what pandas makes of it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _param(name: str, value: Any) -> dict[str, Any]:
    many = isinstance(value, list)
    kind = _type(name, value if many else [value])
    if kind["type"] not in _SCALARS.values():
        raise UnsupportedModel(f"param {name[:64]!a}: neither a scalar nor a list of scalars; give --param")
    default = [float(one) for one in value] if many and kind["type"] == "double" else value
    return {"name": name, "default": default, "shape": [-1] if many else None, **kind}
