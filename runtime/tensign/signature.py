"""The tensor signature: the contract between a model and whoever calls it, enforced by one function for every transport."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign import datatypes
from tensign.errors import EngineError, InvalidInput, SignatureMismatch, UnsupportedModel
from tensign.mlmodel import read_mlmodel

Arrays = Mapping[str, npt.NDArray[Any]]

MAX_RANK = 32  # as in numpy before 2.0; a product over a million axes would take minutes
_MAX_NAME = 256
_MAX_BYTES = 1 << 31  # of one row, or of the whole where the rows are fixed: protobuf ends there


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype and shape of one tensor; -1 is an axis of any length, axis 0 counts rows.

    named is False where the signature gave no name and `input-0` or `output-0` stands in.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    named: bool = True

    def __str__(self) -> str:
        return f"{self.dtype} [{','.join(map(str, self.shape))}]"

    def matches(self, array: npt.NDArray[Any]) -> bool:
        """True where dtype, rank and every fixed axis are as declared; text of any width is an object tensor's."""
        return (
            (array.dtype == self.dtype or (array.dtype.kind in "OSU" and self.dtype.kind == "O"))
            and len(self.shape) == array.ndim
            and all(want in (-1, got) for want, got in zip(self.shape, array.shape, strict=True))
        )


@dataclass(frozen=True, slots=True)
class Signature:
    """The tensors a model takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __str__(self) -> str:
        return " -> ".join(", ".join(map(str, specs)) for specs in (self.inputs, self.outputs))

    @classmethod
    def load(cls, path: Path | str) -> Signature:
        """Reads the signature of an MLmodel directory. Raises ModelNotFound or UnsupportedModel."""
        return cls.parse(read_mlmodel(path).signature)

    @classmethod
    def parse(cls, document: Mapping[str, Any] | None) -> Signature:
        """Builds it from the decoded `signature:` map of an MLmodel file. Raises UnsupportedModel.

        Source of the grammar: mlflow.types.schema, release 3.18.
        """
        if document is None or not document.get("inputs"):
            raise UnsupportedModel("the model has no signature; log it again with `signature=` so that input can be checked")
        if not document.get("outputs"):
            raise UnsupportedModel("the model's signature declares no outputs; log it again with an output example")
        if document.get("params"):
            raise UnsupportedModel("the model's signature declares params, which this version does not serve")
        return cls(_parse_specs("input", document["inputs"]), _parse_specs("output", document["outputs"]))

    def enforce_inputs(self, data: npt.NDArray[Any] | Arrays, encoded: Collection[str] = ()) -> dict[str, npt.NDArray[Any]]:
        """Checks names, dtypes, shapes and rows; gives the arrays back by name, in the signature's order, uncopied.

        data: {name: array [n,...]}, or one array where the model has one input. An input named in `encoded` may also
        come as n encoded images, an object array [n] of bytes. Raises SignatureMismatch.
        """
        named = data if isinstance(data, Mapping) else {self.inputs[0].name: data}
        arrays = {name: np.asarray(array) for name, array in named.items()}
        wanted = {spec.name: spec for spec in self.inputs}
        if missing := wanted.keys() - arrays.keys():
            raise SignatureMismatch(f"missing {_quoted(missing)}; the model takes {_listed(self.inputs)}")
        if unexpected := arrays.keys() - wanted.keys():
            raise SignatureMismatch(f"unexpected {_quoted(unexpected)}; the model takes {_listed(self.inputs)}")
        for name, spec in wanted.items():
            array = arrays[name]
            if name in encoded and array.dtype.kind == "O" and array.ndim == 1:
                continue
            if not spec.matches(array):
                alternative = " or encoded images BYTES [-1]" if name in encoded else ""
                raise SignatureMismatch(f'input "{name}": expected {spec}{alternative}, got {_described(array)}')
        rows = {name: len(arrays[name]) for name in wanted if arrays[name].ndim}
        if len(set(rows.values())) > 1:
            raise SignatureMismatch(f"inputs disagree on the number of rows: {rows}")
        if 0 in rows.values():
            raise SignatureMismatch(f'input "{self.inputs[0].name}": expected at least 1 row, got 0')
        for name in wanted:
            if arrays[name].size == 0:
                raise SignatureMismatch(f'input "{name}": expected axes of at least 1, got {_described(arrays[name])}')
        return {name: arrays[name] for name in wanted}

    def enforce_outputs(self, data: Arrays, rows: int) -> dict[str, npt.NDArray[Any]]:
        """Checks what the model gave for a batch of `rows`. Raises EngineError: a wrong answer is never sent."""
        for spec in self.outputs:
            if spec.name not in data:
                raise EngineError(f'output "{spec.name}" is missing; the model gave {sorted(data)}')
            if not spec.matches(data[spec.name]):
                raise EngineError(f'output "{spec.name}": expected {spec}, got {_described(data[spec.name])}')
            if len(data[spec.name]) != rows:
                raise EngineError(f'output "{spec.name}": expected {rows} rows, got {len(data[spec.name])}')
        return {spec.name: data[spec.name] for spec in self.outputs}


def _parse_specs(kind: str, entries: Any) -> tuple[TensorSpec, ...]:
    if not isinstance(entries, Sequence) or not all(isinstance(entry, Mapping) for entry in entries):
        raise UnsupportedModel(f"signature {kind}s: wanted a list of maps")
    columns = [entry for entry in entries if entry.get("type") != "tensor"]
    if columns:
        raise UnsupportedModel(
            f"signature {kind}s: column-based ({len(columns)} columns such as {columns[0].get('name')!r} of type"
            f" {columns[0].get('type')!r}); this version serves tensor signatures"
        )
    specs = tuple(_parse_spec(kind, index, entry) for index, entry in enumerate(entries))
    if len(specs) > 1 and len({spec.name for spec in specs if spec.named}) != len(specs):
        raise UnsupportedModel(f"signature {kind}s: several tensors need a name each")
    return specs


def _parse_spec(kind: str, index: int, entry: Mapping[str, Any]) -> TensorSpec:
    given = entry.get("name")
    name = f"{kind}-{index}" if given is None else str(given)
    if not name.isprintable() or len(name) > _MAX_NAME:
        raise UnsupportedModel(f"signature {kind}s: wanted a name of at most {_MAX_NAME} printable letters, got {name[:64]!a}")
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
    return TensorSpec(name, dtype, shape, named=given is not None)


def _parse_dtype(name: Any) -> np.dtype[np.generic]:
    """One word: numpy's grammar of dtypes has lists, records and sub-arrays besides."""
    if not isinstance(name, str) or not re.fullmatch(r"[<>=|]?[A-Za-z]{1,16}\d{0,4}", name):
        raise InvalidInput(f"dtype {str(name)[:64]!a} is none of numpy's")
    return datatypes.of_numpy(np.dtype(name)).numpy


def _described(array: npt.NDArray[Any]) -> str:
    return f"{array.dtype} [{','.join(map(str, array.shape))}]"


def _quoted(names: Collection[str]) -> str:
    few, more = sorted(names)[:4], len(names) - 4
    return ", ".join(f'input "{name[:64]}"' for name in few) + (f" and {more} more" if more > 0 else "")


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f'"{spec.name}" {spec}' for spec in specs)
