"""TensorSpec, ColumnSpec, ParamSpec: one line of a signature each, read from MLflow's JSON."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign import datatypes
from tensign.coltypes import BINARY, ColumnType, ObjectType, ScalarType, parse_type
from tensign.errors import InvalidInput, UnsupportedModel
from tensign.params import param_value

MAX_RANK = 32  # as in numpy before 2.0; a product over a million axes would take minutes
_MAX_NAME = 256
_MAX_BYTES = 1 << 31  # of one row, or of the whole where the rows are fixed: protobuf ends there


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype and shape of one tensor; -1 is an axis of any length, axis 0 counts rows.

    named is False where the signature gave no name and `input-0` or `output-0` stands in. text is True where an object
    tensor holds text, as MLflow's dtype str promises, and not bytes.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    named: bool = True
    text: bool = False

    def __str__(self) -> str:
        return f"{self.dtype} [{','.join(map(str, self.shape))}]"

    def document(self) -> dict[str, Any]:
        """As MLflow writes it."""
        tensor = {
            "type": "tensor",
            "tensor-spec": {"dtype": "str" if self.text else self.dtype.name, "shape": list(self.shape)},
        }
        return {"name": self.name, **tensor} if self.named else tensor

    def matches(self, array: npt.NDArray[Any]) -> bool:
        """True where dtype, rank and every fixed axis are as declared; text of any width is an object tensor's."""
        return (
            (array.dtype == self.dtype or (array.dtype.kind in "OSU" and self.dtype.kind == "O"))
            and len(self.shape) == array.ndim
            and all(want in (-1, got) for want, got in zip(self.shape, array.shape, strict=True))
        )


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """Name and type of one column, an array [n]; one that is not required may be left out.

    named is False where the signature gave no name and `input-0` or `output-0` stands in.
    """

    name: str
    type: ColumnType
    required: bool = True
    named: bool = True

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its array: numpy's for numbers, datetime64[ns], object for everything else."""
        return self.type.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """One value a row."""
        return (-1,)

    def __str__(self) -> str:
        return f"{self.type}{'' if self.required else ', optional'}"

    def document(self) -> dict[str, Any]:
        """As MLflow writes it."""
        return {**self.type.document(), **({"name": self.name} if self.named else {}), "required": self.required}


@dataclass(frozen=True, slots=True)
class ParamSpec:
    """Name, type and default of a parameter; one of shape (-1,) is a list. None stands for no value."""

    name: str
    type: ScalarType | ObjectType
    default: Any
    shape: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return f"{self.type}{'' if self.shape is None else '[]'}"

    def document(self) -> dict[str, Any]:
        """As MLflow writes it."""
        default = self.default
        if isinstance(default, list):
            default = [one.isoformat() if isinstance(one, date) else one for one in default]
        elif isinstance(default, date):
            default = default.isoformat()
        shape = None if self.shape is None else list(self.shape)
        return {"name": self.name, "default": default, "shape": shape, **self.type.document()}

    def enforce(self, value: Any) -> Any:
        """The value as plain Python. Raises SignatureMismatch."""
        return param_value(f'param "{self.name}"', value, self.type, self.shape)


Spec = TensorSpec | ColumnSpec


def tensor_specs(specs: Sequence[Spec]) -> tuple[TensorSpec, ...]:
    """The tensors among them: all or none, in a signature."""
    return tuple(spec for spec in specs if isinstance(spec, TensorSpec))


def described(spec: Spec) -> dict[str, Any]:
    """What an engine that runs the model's own code is told of it."""
    column = isinstance(spec, ColumnSpec)
    return {"name": spec.name, "named": spec.named, "dtype": spec.dtype.str, "shape": spec.shape, "column": column}


def parse_specs(kind: str, entries: Any) -> tuple[TensorSpec, ...] | tuple[ColumnSpec, ...]:
    """What a signature declares as its "input" or "output" (`kind`). Raises UnsupportedModel for what MLflow refuses."""
    where = f"signature {kind}s"
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not all(isinstance(one, Mapping) for one in entries):
        raise UnsupportedModel(f"{where}: wanted a list of maps")
    tensors = sum(entry.get("type") == "tensor" for entry in entries)
    if 0 < tensors < len(entries):
        raise UnsupportedModel(f"{where}: {tensors} of {len(entries)} are tensors; wanted all tensors, or all columns")
    specs: tuple[TensorSpec, ...] | tuple[ColumnSpec, ...]
    if tensors:
        specs = tuple(_parse_tensor(kind, index, entry) for index, entry in enumerate(entries))
    else:
        specs = tuple(_parse_column(kind, index, entry) for index, entry in enumerate(entries))
    if tensors > 1 and len({spec.name for spec in specs if spec.named}) != len(specs):
        raise UnsupportedModel(f"{where}: several tensors need a name each")
    if len({spec.named for spec in specs}) > 1:
        raise UnsupportedModel(f"{where}: some have a name and some have none")
    if len({spec.name for spec in specs}) != len(specs):
        raise UnsupportedModel(f"{where}: two columns of one name")
    return specs


def parse_params(entries: Any) -> tuple[ParamSpec, ...]:
    """What a signature declares as its params, () for none. Raises UnsupportedModel for what MLflow refuses."""
    if not entries:
        return ()
    if not isinstance(entries, Sequence) or not all(isinstance(entry, Mapping) for entry in entries):
        raise UnsupportedModel("signature params: wanted a list of maps")
    params = tuple(map(_parse_param, entries))
    if len({param.name for param in params}) != len(params):
        raise UnsupportedModel("signature params: two of one name")
    return params


def _parse_name(kind: str, index: int, entry: Mapping[str, Any]) -> str:
    given = entry.get("name")
    name = f"{kind}-{index}" if given is None else str(given)
    if not name or not name.isprintable() or len(name) > _MAX_NAME:
        raise UnsupportedModel(f"signature {kind}s: wanted a name of at most {_MAX_NAME} printable letters, got {name[:64]!a}")
    return name


def _parse_tensor(kind: str, index: int, entry: Mapping[str, Any]) -> TensorSpec:
    name = _parse_name(kind, index, entry)
    try:
        tensor = entry["tensor-spec"]
        dtype = _parse_dtype(tensor["dtype"])
        shape = tuple(int(operator.index(axis)) for axis in tensor["shape"])
    except (KeyError, TypeError, ValueError, InvalidInput) as error:
        raise UnsupportedModel(
            f'signature {kind} "{name}": not a tensor-spec that MLflow writes: {type(error).__name__}: {str(error)[:200]}'
        ) from None
    if not 0 < len(shape) <= MAX_RANK or any(axis < -1 or axis == 0 for axis in shape):
        few = f"{list(shape[:8])}{' and more' if len(shape) > 8 else ''}"
        raise UnsupportedModel(f'signature {kind} "{name}": wanted 1 to {MAX_RANK} axes of -1 or more than 0, got {few}')
    if math.prod(map(abs, shape)) * dtype.itemsize > _MAX_BYTES:
        raise UnsupportedModel(f'signature {kind} "{name}": {list(shape[:8])} of {dtype} is more than any message can carry')
    return TensorSpec(name, dtype, shape, entry.get("name") is not None, np.dtype(tensor["dtype"]).kind == "U")


def _parse_dtype(name: Any) -> np.dtype[np.generic]:
    """One word: numpy's grammar of dtypes has lists, records and sub-arrays besides."""
    if not isinstance(name, str) or not re.fullmatch(r"[<>=|]?[A-Za-z]{1,16}\d{0,4}", name):
        raise InvalidInput(f"dtype {str(name)[:64]!a} is none of numpy's")
    dtype = np.dtype(name)
    if dtype.kind in "SU" and dtype.itemsize:
        raise InvalidInput(f"dtype {name} has a width, which MLflow does not allow")
    return datatypes.of_numpy(dtype).numpy


def _parse_column(kind: str, index: int, entry: Mapping[str, Any]) -> ColumnSpec:
    name, named = _parse_name(kind, index, entry), entry.get("name") is not None
    try:
        column = parse_type(entry)
    except UnsupportedModel as error:
        raise UnsupportedModel(f'signature {kind} "{name}": {error}') from None
    if isinstance(column, ScalarType) and entry.keys() - {"name", "type", "required"}:
        raise UnsupportedModel(f'signature {kind} "{name}": keys besides name, type and required, which MLflow refuses')
    # MLflow reads a compound type that says nothing as optional, unless the columns have no names.
    required = entry.get("required", isinstance(column, ScalarType) or None)
    if not (isinstance(required, bool) or required is None):
        raise UnsupportedModel(f'signature {kind} "{name}": `required` is true or false')
    if not named and required is False:
        raise UnsupportedModel(f'signature {kind} "{name}": optional, and without a name to tell it by')
    return ColumnSpec(name, column, bool(required) or not named, named)


def _parse_param(entry: Mapping[str, Any]) -> ParamSpec:
    if "name" not in entry or "default" not in entry or not (entry.keys() & {"type", "dtype"}):
        raise UnsupportedModel("signature params: each wants `name`, `type` and `default`")
    name, shape = str(entry["name"]), entry.get("shape")
    if not name or not name.isprintable() or len(name) > _MAX_NAME:
        raise UnsupportedModel(f"signature params: wanted a name of at most {_MAX_NAME} printable letters, got {name[:64]!a}")
    try:
        param = parse_type({**entry, "type": entry.get("type") or entry.get("dtype")})
        if not isinstance(param, ScalarType | ObjectType) or param is BINARY:
            raise UnsupportedModel(f"a param is a scalar other than binary, or an object, not {param}")
        if shape is not None and (not isinstance(shape, Sequence) or list(shape) != [-1] or isinstance(param, ObjectType)):
            raise UnsupportedModel("a param has no shape, or [-1] for a list of scalars")
        spec = ParamSpec(name, param, None, None if shape is None else (-1,))
        return ParamSpec(name, param, spec.enforce(entry["default"]), spec.shape)
    except UnsupportedModel as error:
        raise UnsupportedModel(f'signature param "{name}": {error}') from None
    except InvalidInput as error:
        raise UnsupportedModel(f"signature {error}, which is its default") from None
