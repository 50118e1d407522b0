"""The signature: the contract between a model and whoever calls it, enforced by one function for every transport."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from tensign import forms
from tensign.errors import InvalidConfig, ModelFailed, SignatureMismatch, UnsupportedModel
from tensign.mlmodel import read_mlmodel
from tensign.specs import MAX_RANK, ColumnSpec, ParamSpec, Spec, TensorSpec, parse_params, parse_specs, tensor_specs
from tensign.values import enforce_column, text_tensor

__all__ = ["MAX_RANK", "Arrays", "ColumnSpec", "Mode", "ParamSpec", "Signature", "Spec", "TensorSpec"]

Arrays = Mapping[str, npt.NDArray[Any]]
Mode = Literal["strict", "mlflow-compat"]
_MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, slots=True)
class Signature:
    """The tensors or columns a model takes and gives, and its params; outputs is () where the MLmodel declares none."""

    inputs: tuple[TensorSpec, ...] | tuple[ColumnSpec, ...]
    outputs: tuple[TensorSpec, ...] | tuple[ColumnSpec, ...]
    params: tuple[ParamSpec, ...] = ()

    def __str__(self) -> str:
        return " -> ".join(", ".join(map(_shown, specs)) for specs in (self.inputs, self.outputs))

    @classmethod
    def load(cls, path: Path | str) -> Signature:
        """Reads the signature of an MLmodel directory. Raises ModelNotFound or UnsupportedModel."""
        return cls.parse(read_mlmodel(path).signature)

    @classmethod
    def parse(cls, document: Mapping[str, Any] | None) -> Signature:
        """Builds it from the decoded `signature:` map of an MLmodel file. Raises UnsupportedModel.

        Source of the grammar: mlflow.types.schema, release 3.17.
        """
        if document is None or not document.get("inputs"):
            raise UnsupportedModel(
                "the model has no signature, so no input can be checked: write one with tensign sign, or log it again with"
                " `signature=`"
            )
        outputs = document.get("outputs")
        return cls(
            parse_specs("input", document["inputs"]),
            parse_specs("output", outputs) if outputs else (),
            parse_params(document.get("params")),
        )

    @property
    def columnar(self) -> bool:
        """True where the inputs are columns, False where they are tensors."""
        return isinstance(self.inputs[0], ColumnSpec)

    def enforce_inputs(
        self,
        data: Any,
        params: Mapping[str, Any] | None = None,
        mode: Mode = "strict",
        encoded: Collection[str] = (),
    ) -> dict[str, npt.NDArray[Any]]:
        """Checks names, dtypes, shapes and rows; gives the arrays back by name, in the signature's order.

        data: {name: array [n,...]}, or one array where the model has one input; a pandas DataFrame; for columns besides
        a list of records, a list of rows, and a dict of lists. Of a tensor's arrays none is copied. A column becomes
        [n]: numbers and booleans of the type's dtype, datetime64[ns], text, bytes and compound types as objects; an
        optional one that did not come is left out.
        params: checked, as `enforce_params` does. encoded: inputs that may also come as n encoded images, an object
        array [n] of bytes.
        mode: "strict" casts what MLflow's Python path casts; "mlflow-compat" takes what its HTTP path takes: inputs
        nobody asked for are dropped, lists become arrays, and values are cast where they keep their value.
        MLflow itself is the oracle of both; the few places where we differ on purpose, such as unexpected inputs and
        objects of any kind in a column of text, are the table DIFFERENCES of tests/differential.py, each with its reason.
        Raises SignatureMismatch, and InvalidConfig for another mode.
        """
        if mode not in _MODES:
            raise InvalidConfig(f"mode: wanted {' or '.join(_MODES)}, got {str(mode)[:64]}")
        self.enforce_params(params, mode)
        lossless = mode == "mlflow-compat"
        if self.columnar:
            return self._enforce_columns(data, lossless)
        specs = tensor_specs(self.inputs)
        arrays = self._present(forms.tensors(data, specs, lossless=lossless), lossless)
        wanted = {spec.name: spec for spec in specs}
        for name, spec in wanted.items():
            array = arrays[name]
            if name in encoded and array.dtype.kind == "O" and array.ndim == 1:
                continue
            if not spec.matches(array):
                alternative = " or encoded images BYTES [-1]" if name in encoded else ""
                raise SignatureMismatch(f'input "{name}": expected {spec}{alternative}, got {_described(array)}')
        self._check_rows(arrays)
        for name, spec in wanted.items():
            if spec.text and name not in encoded:
                arrays[name] = text_tensor(f'input "{name}"', arrays[name])
            if arrays[name].size == 0:
                raise SignatureMismatch(f'input "{name}": expected axes of at least 1, got {_described(arrays[name])}')
        return arrays

    def enforce_params(self, params: Mapping[str, Any] | None, mode: Mode = "strict") -> dict[str, Any]:
        """{param: plain value}, defaults filled in; what the signature does not declare is left out, as MLflow does.

        Raises SignatureMismatch.
        """
        if not (params is None or isinstance(params, Mapping)):
            raise SignatureMismatch(f"params: expected a map, got {type(params).__name__}")
        given = {str(name): value for name, value in (params or {}).items()}
        return {spec.name: spec.enforce(given[spec.name]) if spec.name in given else spec.default for spec in self.params}

    def enforce_outputs(self, data: Any, rows: int | None = None) -> dict[str, npt.NDArray[Any]]:
        """Checks what the model gave; gives the arrays back by name, in the signature's order, the undeclared left out.

        data: {name: array}, an array or a pandas Series where there is one output, a list, a pandas DataFrame. Tensors
        are as declared to the dtype; the values of a column may be cast where all of them keep their value. rows: of the
        batch, None where nobody knows. A signature without outputs lets every array through that counts rows.
        Raises ModelFailed: a wrong answer is never sent.
        """
        try:
            found = self._outputs(data)
        except SignatureMismatch as error:
            raise ModelFailed(str(error)) from None
        for name, array in found.items():
            if array.ndim == 0 or len(array) != (len(next(iter(found.values()))) if rows is None else rows):
                wanted = "as many rows as the others" if rows is None else f"{rows} row{'s' if rows != 1 else ''}"
                raise ModelFailed(f'output "{name}": expected {wanted}, got {len(array) if array.ndim else "none"}')
        return found

    def document(self) -> dict[str, Any]:
        """As MLflow writes it, each part as JSON values."""
        parts = {"inputs": self.inputs, "outputs": self.outputs, "params": self.params}
        return {part: [spec.document() for spec in specs] or None for part, specs in parts.items()}

    def _outputs(self, data: Any) -> dict[str, npt.NDArray[Any]]:
        if not self.outputs:
            return forms.undeclared(data)
        if isinstance(data, dict) and all(_is_as_declared(data.get(spec.name), spec) for spec in self.outputs):
            return {spec.name: data[spec.name] for spec in self.outputs}
        tensors = tensor_specs(self.outputs)
        arrays = forms.tensors(data, tensors, kind="output") if tensors else forms.answered(data, self.outputs)
        found = {}
        for spec in self.outputs:
            if spec.name not in arrays:
                if isinstance(spec, ColumnSpec) and not spec.required:
                    continue
                raise SignatureMismatch(f'output "{spec.name}" is missing; the model gave {sorted(arrays)[:8]}')
            array = arrays[spec.name]
            if isinstance(spec, ColumnSpec):
                array = enforce_column(f'output "{spec.name}"', array, spec.type, spec.required, exact=True)
            elif not spec.matches(array):
                raise SignatureMismatch(f'output "{spec.name}": expected {spec}, got {_described(array)}')
            found[spec.name] = array
        return found

    def _enforce_columns(self, data: Any, lossless: bool) -> dict[str, npt.NDArray[Any]]:
        specs = [spec for spec in self.inputs if isinstance(spec, ColumnSpec)]
        given = forms.columns(data, specs)
        if specs[0].named and forms.is_nameless(data) and not given.keys() & {spec.name for spec in specs}:
            got = "values without a name" if given else "no rows"
            raise SignatureMismatch(
                f"expected at least one of {_listed(self.inputs)} by name, as records or as a map of lists, got {got}"
            )
        found = self._present(given, lossless)
        for spec in specs:
            if spec.name in found:
                found[spec.name] = enforce_column(
                    f'input "{spec.name}"', found[spec.name], spec.type, spec.required, lossless=lossless
                )
        if not found:
            raise SignatureMismatch(f"expected at least one of {_listed(self.inputs)}")
        self._check_rows(found)
        return found

    def _present(self, arrays: Arrays, lossless: bool) -> dict[str, npt.NDArray[Any]]:
        """What came of what the signature names, in its order."""
        required = {spec.name for spec in self.inputs if isinstance(spec, TensorSpec) or spec.required}
        if missing := required - arrays.keys():
            raise SignatureMismatch(f"missing {_quoted(missing)}; the model takes {_listed(self.inputs)}")
        if not lossless and (unexpected := arrays.keys() - {spec.name for spec in self.inputs}):
            raise SignatureMismatch(f"unexpected {_quoted(unexpected)}; the model takes {_listed(self.inputs)}")
        return {spec.name: arrays[spec.name] for spec in self.inputs if spec.name in arrays}

    def _check_rows(self, arrays: Arrays) -> None:
        rows = {name: len(array) for name, array in arrays.items() if array.ndim}
        if len(set(rows.values())) > 1:
            raise SignatureMismatch(f"inputs disagree on the number of rows: {rows}")
        if 0 in rows.values():
            raise SignatureMismatch(f'input "{next(iter(rows))}": expected at least 1 row, got 0')


def _shown(spec: Spec) -> str:
    return f'"{spec.name}" {spec}' if isinstance(spec, ColumnSpec) and spec.named else str(spec)


def _is_as_declared(array: object, spec: Spec) -> bool:
    return isinstance(array, np.ndarray) and isinstance(spec, TensorSpec) and spec.matches(array)


def _described(array: npt.NDArray[Any]) -> str:
    return f"{'text' if array.dtype.kind == 'U' else array.dtype} [{','.join(map(str, array.shape))}]"


def _quoted(names: Collection[str]) -> str:
    few, more = sorted(names)[:4], len(names) - 4
    return ", ".join(f'input "{name[:64]}"' for name in few) + (f" and {more} more" if more > 0 else "")


def _listed(specs: Sequence[Spec]) -> str:
    return ", ".join(f'"{spec.name}" {spec}' for spec in specs)
