"""A signature's names and the network's: which tensor of one is which of the other, and what they carry to and fro."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tensign.engines import Engine
from tensign.errors import UnsupportedModel
from tensign.request import Formed, Outputs
from tensign.signature import Arrays, Signature
from tensign.specs import ColumnSpec, Spec, TensorSpec


@dataclass(frozen=True, slots=True)
class Binding:
    """inputs: the signature's name -> what the network gets; outputs: -> what it gives, {} where it is not told; columns: of
    the outputs.
    """

    signature: Signature
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    columns: frozenset[str] = frozenset()

    @classmethod
    def of(cls, signature: Signature, inputs: Sequence[Spec], engine: Engine) -> Binding:
        """inputs: the signature's, as they are once pictures are preprocessed; engine: loaded. Raises UnsupportedModel."""
        columns = frozenset(spec.name for spec in signature.outputs if not isinstance(spec, TensorSpec))
        return cls(
            signature, bound("input", inputs, engine.inputs), bound("output", signature.outputs, engine.outputs), columns
        )

    @property
    def even(self) -> bool:
        """Whether all rows are as large as those of warm-up, which then tells how long any of them takes."""
        return all(-1 not in spec.shape[1:] and spec.dtype.kind != "O" for spec in self.inputs.values())

    def to_network(self, arrays: Arrays) -> Outputs:
        """By the network's names; a column as [n,1] where it wants that."""
        if not self.signature.columnar:
            return {self.inputs[name].name: array for name, array in arrays.items()}
        specs = {name: self.inputs[name] for name in arrays}
        return {spec.name: arrays[name][:, None] if len(spec.shape) == 2 else arrays[name] for name, spec in specs.items()}

    def run(self, engine: Engine, batch: Arrays, params: Mapping[str, Any], deadline: float | None = None) -> Outputs:
        """{network's input: [B,...]} -> {signature's output: [B,...]}, enforced. Raises what the engine raises, EngineError."""
        rows = len(next(iter(batch.values())))
        answers = engine.run(batch, params, deadline)
        if self.outputs and not engine.outputs:  # it answers by the signature's names, as far as it could
            return Formed(self.signature.enforce_outputs(answers, rows), engine.form)
        named = {name: answers[spec.name] for name, spec in self.outputs.items()} if self.outputs else answers
        if self.columns:
            named = {
                name: array[:, 0] if name in self.columns and array.shape[1:] == (1,) else array
                for name, array in named.items()
            }
        return Formed(self.signature.enforce_outputs(named, rows), engine.form)


def bound(kind: str, declared: Sequence[Spec], network: Sequence[TensorSpec]) -> dict[str, TensorSpec]:
    """Signature's names to the network's tensors: by name, or the only one to the only one.

    Each has the network's name and, axis by axis, the more definite length of the two. An engine that does not tell what
    it has, (), has what is declared. Raises UnsupportedModel where signature and network contradict each other.
    """
    if not network:
        return {spec.name: TensorSpec(spec.name, spec.dtype, spec.shape, spec.named) for spec in declared}
    if len(declared) == len(network) == 1:
        return {declared[0].name: _merged(kind, declared[0], network[0])}
    by_name = {spec.name: spec for spec in network}
    missing = [spec.name for spec in declared if spec.name not in by_name]
    if missing or (kind == "input" and len(declared) != len(network)):
        raise UnsupportedModel(
            f"the signature's {kind}s {[spec.name for spec in declared]} are not the network's {sorted(by_name)}"
        )
    return {spec.name: _merged(kind, spec, by_name[spec.name]) for spec in declared}


def _merged(kind: str, declared: Spec, network: TensorSpec) -> TensorSpec:
    shape = declared.shape
    if isinstance(declared, ColumnSpec) and len(network.shape) == 2:  # networks made from columns want each as [n,1]
        shape = (-1, 1)
    agree = len(shape) == len(network.shape) and all(
        want == got or -1 in (want, got) for want, got in zip(shape, network.shape, strict=True)
    )
    if declared.dtype != network.dtype or not agree:
        raise UnsupportedModel(
            f'{kind} "{declared.name}": the signature promises {declared}, the network in the file has {network}'
        )
    return replace(network, shape=tuple(map(max, shape, network.shape)))
