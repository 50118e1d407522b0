"""A signature's names and the network's: which tensor of one is which of the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tensign.errors import UnsupportedModel
from tensign.specs import ColumnSpec, Spec, TensorSpec


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
