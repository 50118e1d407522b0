"""MLflow's column types: scalars, arrays, objects, maps and any, read from a signature's JSON.

Source of the grammar: mlflow.types.schema, release 3.17.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensign.errors import UnsupportedModel

_MAX_DEPTH = 20
_OBJECT: np.dtype[Any] = np.dtype(object)


@dataclass(frozen=True, slots=True)
class ScalarType:
    """One value a row: its name in a signature, and the numpy dtype of its column [n]; text and bytes are objects."""

    name: str
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return self.name

    def document(self) -> dict[str, Any]:
        """As MLflow writes it."""
        return {"type": self.name}


BOOLEAN = ScalarType("boolean", np.dtype(bool))
INTEGER = ScalarType("integer", np.dtype("int32"))
LONG = ScalarType("long", np.dtype("int64"))
FLOAT = ScalarType("float", np.dtype("float32"))
DOUBLE = ScalarType("double", np.dtype("float64"))
STRING = ScalarType("string", _OBJECT)
BINARY = ScalarType("binary", _OBJECT)
DATETIME = ScalarType("datetime", np.dtype("datetime64[ns]"))
SCALARS = {scalar.name: scalar for scalar in (BOOLEAN, INTEGER, LONG, FLOAT, DOUBLE, STRING, BINARY, DATETIME)}


@dataclass(frozen=True, slots=True)
class ArrayType:
    """A list of any length in each row. vector: Spark's name for an array of doubles."""

    items: ColumnType
    vector: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        return _OBJECT

    def __str__(self) -> str:
        return "sparkml_vector" if self.vector else f"array<{self.items}>"

    def document(self) -> dict[str, Any]:
        """As MLflow writes it."""
        return {"type": "sparkml_vector"} if self.vector else {"type": "array", "items": self.items.document()}


@dataclass(frozen=True, slots=True)
class Property:
    """A named value of an object."""

    name: str
    type: ColumnType
    required: bool = True

    def __str__(self) -> str:
        return f"{self.name}{'' if self.required else '?'}: {self.type}"


@dataclass(frozen=True, slots=True)
class ObjectType:
    """A dict of these properties, and no others, in each row; the properties in the order of their names."""

    properties: tuple[Property, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        return _OBJECT

    def __str__(self) -> str:
        return f"object<{', '.join(map(str, self.properties))}>"

    def document(self) -> dict[str, Any]:
        """As MLflow writes it."""
        properties = {of.name: {**of.type.document(), "required": of.required} for of in self.properties}
        return {"type": "object", "properties": properties}


@dataclass(frozen=True, slots=True)
class MapType:
    """A dict of text to values of one type in each row."""

    values: ColumnType

    @property
    def dtype(self) -> np.dtype[Any]:
        return _OBJECT

    def __str__(self) -> str:
        return f"map<{self.values}>"

    def document(self) -> dict[str, Any]:
        """As MLflow writes it."""
        return {"type": "map", "values": self.values.document()}


@dataclass(frozen=True, slots=True)
class AnyType:
    """Anything, unchecked."""

    @property
    def dtype(self) -> np.dtype[Any]:
        return _OBJECT

    def __str__(self) -> str:
        return "any"

    def document(self) -> dict[str, Any]:
        """As MLflow writes it."""
        return {"type": "any"}


ColumnType = ScalarType | ArrayType | ObjectType | MapType | AnyType


def parse_type(entry: Any, depth: int = 0) -> ColumnType:
    """The type that a map with a key `type` declares. Raises UnsupportedModel for what MLflow refuses."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("type"), str):
        raise UnsupportedModel("wanted a map with `type`")
    if depth > _MAX_DEPTH:
        raise UnsupportedModel(f"types nested deeper than {_MAX_DEPTH}")
    match entry["type"]:
        case "array":
            return ArrayType(parse_type(entry.get("items"), depth + 1))
        case "sparkml_vector":
            return ArrayType(DOUBLE, vector=True)
        case "map":
            return MapType(parse_type(entry.get("values"), depth + 1))
        case "any":
            return AnyType()
        case "object":
            return ObjectType(_parse_properties(entry.get("properties"), depth + 1))
        case name if name in SCALARS:
            return SCALARS[name]
        case name:
            raise UnsupportedModel(f"type {name[:64]!a} is none of {', '.join(SCALARS)}, array, object, map, any")


def _parse_properties(entries: Any, depth: int) -> tuple[Property, ...]:
    if not isinstance(entries, Mapping) or not entries:
        raise UnsupportedModel("an object wants a map of `properties`, at least one")
    found = []
    for name, entry in entries.items():
        kind, required = parse_type(entry, depth), entry.get("required", True)
        if not isinstance(required, bool):
            raise UnsupportedModel(f"property {str(name)[:64]!a}: `required` is true or false")
        if isinstance(kind, ArrayType) and kind.vector:
            raise UnsupportedModel(f"property {str(name)[:64]!a}: a sparkml_vector inside an object")
        found.append(Property(str(name), kind, required))
    return tuple(sorted(found, key=lambda of: of.name))
