"""A program of torch's own operators as a module: its steps are called one by one, and nothing becomes Python source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tensign.errors import UnsupportedModel


@dataclass(frozen=True, slots=True)
class Ref:
    """A value that an earlier step gave."""

    name: str


@dataclass(frozen=True, slots=True)
class Step:
    """One call; results: the names its answer gets, nested as the answer is; over: names that no later step asks for."""

    callee: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    results: Any
    over: tuple[str, ...] = ()


class Program(nn.Module):
    """Tensors in, in the order of `taken` -> the tensor, or the tuple of tensors, of `given`."""

    def __init__(
        self,
        steps: list[Step],
        lifted: Mapping[str, str],
        constants: Mapping[str, Any],
        taken: list[str],
        given: list[str],
        tensors: Mapping[str, Tensor],
    ) -> None:
        """lifted: the names that steps use -> the dotted names that `tensors` have. Raises UnsupportedModel for a dotted
        name that no tensor of a module can have."""
        super().__init__()
        self.steps, self.lifted, self.constants = _ended(steps, given), lifted, constants
        self.taken, self.given = taken, given
        self.tensors = nn.Module()
        for path, tensor in tensors.items():
            _hold(self.tensors, path, tensor)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        held = dict(self.tensors.named_parameters()) | dict(self.tensors.named_buffers())
        values: dict[str, Any] = {name: held[path] for name, path in self.lifted.items()}
        values.update(self.constants)
        values.update(zip(self.taken, inputs, strict=True))
        for step in self.steps:
            args = [_filled(each, values) for each in step.args]
            kwargs = {name: _filled(each, values) for name, each in step.kwargs.items()}
            _name(step.results, step.callee(*args, **kwargs), values)
            for name in step.over:
                del values[name]
        answers = tuple(values[name] for name in self.given)
        return answers[0] if len(answers) == 1 else answers


def _ended(steps: list[Step], given: list[str]) -> list[Step]:
    """The same steps, each with the names that it is the last to ask for."""
    wanted, ended = set(given), []
    for step in reversed(steps):
        mentioned = dict.fromkeys([*_names([*step.args, *step.kwargs.values()]), *_results(step.results)])
        over = tuple(name for name in mentioned if name not in wanted)
        wanted.update(over)
        ended.append(Step(step.callee, step.args, step.kwargs, step.results, over))
    return ended[::-1]


def _names(values: list[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, Ref):
            yield value.name
        elif isinstance(value, list):
            yield from _names(value)


def _results(results: Any) -> Iterator[str]:
    for each in results if isinstance(results, list) else [results]:
        if isinstance(each, list):
            yield from _results(each)
        elif each is not None:
            yield each


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, Ref):
        return values[value.name]
    return [_filled(each, values) for each in value] if isinstance(value, list) else value


def _name(results: Any, answer: Any, values: dict[str, Any]) -> None:
    if isinstance(results, list):
        for each, part in zip(results, answer, strict=True):
            _name(each, part, values)
    elif results is not None:
        values[results] = answer


def _hold(owner: nn.Module, path: str, tensor: Tensor) -> None:
    *parts, leaf = path.split(".")
    try:
        for part in parts:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        if isinstance(tensor, nn.Parameter):
            owner.register_parameter(leaf, tensor)
        else:
            owner.register_buffer(leaf, tensor)
    except KeyError:  # torch's: the module has another attribute of that name
        raise UnsupportedModel(f"a tensor of an odd name, {path[:60]!a}") from None
