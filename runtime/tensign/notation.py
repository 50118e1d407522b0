"""One line of text -> an entry of a signature: `image:uint8[-1,300,300,3]`, `age:long`, `tags?:array<string>`, `t:double=0.5`.

What is read here is what MLflow's own to_dict would write. Source of the grammar: mlflow.types.schema, release 3.17.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import date as _Date
from typing import Any

import numpy as np

from tensign import datatypes
from tensign.errors import InvalidConfig, InvalidInput

SCALARS = ("boolean", "integer", "long", "float", "double", "string", "binary", "datetime")
_SINGLE = (*SCALARS, "any", "sparkml_vector")
_PYTHON: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "string": (str,),
    "datetime": (str,),
}


def parse_specs(text: str) -> list[dict[str, Any]]:
    """Inputs or outputs, one or several with commas between them; or MLflow's own JSON. Raises InvalidConfig."""
    if text.lstrip().startswith(("{", "[")):
        return _parse_json(text)
    return [_parse_spec(part.strip()) for part in _split(text, ",")]


def parse_param(text: str) -> list[dict[str, Any]]:
    """`NAME:TYPE=DEFAULT`, `NAME:TYPE[]=[...]`, the default as JSON, text also bare; or MLflow's own. Raises InvalidConfig."""
    if text.lstrip().startswith(("{", "[")):
        return _parse_json(text)
    found = re.fullmatch(r"(.+?)\s*:\s*(\w+)\s*(\[(?:-1)?\])?\s*=\s*(.*)", text.strip(), re.DOTALL)
    if found is None or found[2] not in _PYTHON:
        raise InvalidConfig(f"param {text[:100]!a}: write NAME:TYPE=DEFAULT, TYPE one of {', '.join(_PYTHON)}, with [] a list")
    name, kind, many, said = found.groups()
    try:
        default = json.loads(said)
    except ValueError:
        default = said
    default = str(default) if kind in ("string", "datetime") and not many and not isinstance(default, str | None) else default
    values = default if many and isinstance(default, list) else [default]
    if (many and not isinstance(default, list)) or not all(_is(value, kind) for value in values):
        raise InvalidConfig(f"param {name[:64]!a}: {said[:64]!a} is no {'list of ' if many else ''}{kind}")
    values = [_as(value, kind) for value in values]
    return [{"name": name, "default": values if many else values[0], "shape": [-1] if many else None, "type": kind}]


def _parse_json(text: str) -> list[dict[str, Any]]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f"{text[:100]!a} begins as JSON and is none: {error}") from None
    entries = entries if isinstance(entries, list) else [entries]
    if not all(isinstance(entry, dict) and "type" in entry for entry in entries):
        raise InvalidConfig(f"{text[:100]!a}: wanted a map with `type`, or a list of them, as MLflow writes it")
    return entries


def _parse_spec(text: str) -> dict[str, Any]:
    """Tried at each colon, from the left: names may hold some, as ONNX's `input:0` does."""
    failure = InvalidConfig(f"{text[:100]!a}: no type")
    for name, kind in _readings(text):
        try:
            entry = _parse_type(kind)
        except InvalidConfig as error:
            failure = InvalidConfig(f"{text[:100]!a}: {error}")
            continue
        required = not name.endswith("?")
        if "tensor-spec" in entry:
            if not required:
                raise InvalidConfig(f"{text[:100]!a}: a tensor cannot be optional")
            return {**({"name": name} if name else {}), **entry}
        return {**entry, **({"name": name.removesuffix("?")} if name else {}), "required": required}
    raise failure


def _readings(text: str) -> Iterator[tuple[str, str]]:
    yield "", text
    for colon in re.finditer(":", text):
        name = text[: colon.start()].strip()
        if name.removesuffix("?"):
            yield name, text[colon.end() :].strip()


def _parse_type(text: str) -> dict[str, Any]:
    if found := re.fullmatch(r"(\S+?)\s*\[(.*)\]", text):
        return _parse_tensor(found[1], found[2])
    if text in _SINGLE:
        return {"type": text}
    if found := re.fullmatch(r"(array|map|object)\s*<(.*)>", text, re.DOTALL):
        if found[1] == "object":
            return {"type": "object", "properties": dict(sorted(map(_parse_property, _split(found[2], ","))))}
        return {"type": found[1], "items" if found[1] == "array" else "values": _parse_type(found[2].strip())}
    raise InvalidConfig(
        f"type {text[:64]!a} is neither a tensor's DTYPE[AXES] nor one of {', '.join(_SINGLE)}, array<>, map<>, object<>"
    )


def _parse_property(text: str) -> tuple[str, dict[str, Any]]:
    name, colon, kind = text.partition(":")
    name = name.strip()
    if not colon or not name.removesuffix("?"):
        raise InvalidConfig(f"property {text[:64]!a}: write NAME: TYPE, or NAME?: TYPE")
    return name.removesuffix("?"), {**_parse_type(kind.strip()), "required": not name.endswith("?")}


def _parse_tensor(dtype: str, axes: str) -> dict[str, Any]:
    shape = [-1 if axis.strip() in ("?", "*") else axis.strip() for axis in axes.split(",")]
    for axis in shape:
        if not re.fullmatch(r"-1|[1-9][0-9]{0,9}", str(axis)):
            raise InvalidConfig(f"axis {str(axis)[:32]!a}: wanted -1 (any length) or a length of at least 1")
    try:
        known = np.dtype(dtype) if re.fullmatch(r"[a-z]+[0-9]*", dtype) else None
        if known is None or known.name != dtype:
            means = "" if known is None else f": numpy takes that for {known.name}"
            raise InvalidConfig(f"dtype {dtype[:32]!a}{means}; wanted one such as uint8, int64, float32, bool, str, object")
        datatypes.of_numpy(known)
    except (TypeError, ValueError, InvalidInput) as error:
        raise InvalidConfig(f"dtype {dtype[:32]!a}: {error}") from None
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [int(axis) for axis in shape]}}


def _split(text: str, mark: str) -> list[str]:
    """At marks that stand outside of all brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[<{") - (letter in "]>}")
        if letter == mark and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _is(value: Any, kind: str) -> bool:
    """None is no value; otherwise as MLflow's ParamSpec converts."""
    if value is None:
        return True
    if kind == "datetime":
        try:
            return isinstance(np.datetime64(value).item(), _Date) if isinstance(value, str) else False
        except ValueError:
            return False
    return type(value) in _PYTHON[kind]


def _as(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "datetime":
        return np.datetime64(value).item().isoformat()
    return float(value) if kind in ("float", "double") else value
