"""In which order a network takes and gives what its signature names; where the two contradict each other, it is refused."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tensign.errors import UnsupportedModel
from tensign.specs import TensorSpec


def taken_order(module: nn.Module, said: Sequence[TensorSpec], wanted: Sequence[TensorSpec]) -> list[int]:
    """Which of the signature's inputs is the network's first, its second, and so on.

    said: what the file says of them, nothing of most networks: the names are then those of the module's arguments. One alone
    is what it is, whatever its name. Raises UnsupportedModel for other names, counts, types or fixed lengths than `wanted`.
    """
    order = _order("takes", [spec.name for spec in said] or _arguments(module, len(wanted)), wanted)
    for spec, index in zip(said, order if said else [], strict=True):
        _check("takes", spec, wanted[index], loose=False)
    return order


def given_order(said: Sequence[TensorSpec], wanted: Sequence[TensorSpec]) -> list[int]:
    """Which of what the network gives is the signature's first output, its second, and so on. Raises as `taken_order` does."""
    if not said:
        return list(range(len(wanted)))
    order = _order("gives", [spec.name if spec.named else "" for spec in said], wanted)
    for spec, index in zip(said, order, strict=True):
        _check("gives", spec, wanted[index], loose=True)
    return [order.index(index) for index in range(len(wanted))]


class Ordered(nn.Module):
    """A network that takes tensors in the signature's order and gives a tuple in that of its outputs."""

    def __init__(self, network: nn.Module, taken: Sequence[int], given: Sequence[int], outputs: Sequence[str]) -> None:
        """taken, given: as the functions above give them; outputs: the names, of a network that answers with a dict."""
        super().__init__()
        self.network, self.taken, self.given, self.outputs = network, list(taken), list(given), list(outputs)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = self.network(*(tensors[index] for index in self.taken))
        if isinstance(given, dict):
            return self._named(given)
        given = tuple(given) if isinstance(given, list | tuple) else (given,)
        if len(given) != len(self.given):
            raise UnsupportedModel(f"the signature promises {len(self.given)} outputs, the network gives {len(given)}")
        return tuple(given[index] for index in self.given)

    def _named(self, given: dict[str, Tensor]) -> tuple[Tensor, ...]:
        if len(given) == len(self.outputs) == 1:
            return tuple(given.values())
        if not set(self.outputs) <= set(given):
            raise _differ("gives", list(map(str, given)), self.outputs)
        return tuple(given[name] for name in self.outputs)


class Sole(nn.Module):
    """A network whose one tensor may lie in a dict or a tuple of its own, without that."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        given = self.network(x)
        if isinstance(given, dict | list | tuple) and len(given) == 1:
            (given,) = given.values() if isinstance(given, dict) else given
        return given


def _arguments(module: nn.Module, count: int) -> list[str]:
    """Names of the first arguments of its forward, at most `count`; none of one that takes any number."""
    if isinstance(module, torch.jit.ScriptModule):
        schema = module.forward.schema  # type: ignore[attr-defined]  # torch does not type its scripted methods
        return [argument.name for argument in schema.arguments[1 : count + 1]]
    parameters = inspect.signature(module.forward).parameters.values()
    names = [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    several = any(each.kind == each.VAR_POSITIONAL for each in parameters) and len(names) < count
    return [""] * count if several else names[:count]


def _order(verb: str, names: Sequence[str], wanted: Sequence[TensorSpec]) -> list[int]:
    """For each of these names the signature's spec: by name, or by position where the network has none."""
    asked = [spec.name for spec in wanted]
    if len(names) == len(asked) and (len(asked) == 1 or not all(names)):
        return list(range(len(asked)))
    if sorted(names) != sorted(asked):
        raise _differ(verb, names, asked)
    return [asked.index(name) for name in names]


def _check(verb: str, said: TensorSpec, wanted: TensorSpec, *, loose: bool) -> None:
    """loose: whether an axis that the file fixes may be of any length in the signature."""
    axes = zip(said.shape, wanted.shape, strict=False)
    fits = all(one == other or one == -1 or (loose and other == -1) for one, other in axes)
    if said.dtype != wanted.dtype or len(said.shape) != len(wanted.shape) or not fits:
        raise UnsupportedModel(
            f'the network {verb} "{said.name[:60]}" as {said}, the signature says "{wanted.name[:60]}" is {wanted}: correct the'
            " signature"
        )


def _differ(verb: str, names: Sequence[str], asked: Sequence[str]) -> UnsupportedModel:
    told = [f"{len(each)}, {', '.join(name[:40] or 'without a name' for name in each[:8])}" for each in (names, asked)]
    return UnsupportedModel(f"the network {verb} {told[0]}; the signature has {told[1]}: they need the same names")
