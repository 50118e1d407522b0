"""Recording: what a Learner does at inference, as a network and plain data, whether read from a live one or from its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tensign_converters.pictures.picture import Answered, Picture

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Transform:
    """One transform of a pipeline.

    path: its class, with today's module names ("fastai.vision.augment.Resize"); attributes: of the instance, as None, bool,
    int, float, str, bytes, tuples, lists, dicts with str keys, and NumPy arrays for tensors and arrays; an enum as its value;
    else Opaque. train_only: the class says split_idx == 0 (an instance's own is overwritten by use); False for an unknown
    class. function: for a fastcore/fasttransform Transform round a function, the dotted path of what it calls, else "".
    """

    path: str
    attributes: Mapping[str, Any]
    train_only: bool
    function: str = ""

    @property
    def name(self) -> str:
        """The class's own name, without its module."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss, which decides what `get_preds` applies to the logits.

    path: class or function, dotted; attributes: as a Transform's; activation: the live one, None where the loss was only
    read from a file, whose methods are then those of the class of that name.
    """

    path: str
    attributes: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    activation: Callable[[Tensor], Tensor] | None = None

    @property
    def name(self) -> str:
        """The class's own name, without its module."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class Recording:
    """A Learner, taken apart. Transforms stand in the order in which they run, the train-only ones among them.

    network: in evaluation mode, on the CPU; types: class names of inputs and targets as the item pipelines make them
    ("PILImage", "Category"; "" where unknown); vocab: one list of names, or several for several targets; versions: of what
    wrote it and of what read it; loaded: whether the original ran here; answers: the original's own, None unless loaded.
    """

    network: nn.Module
    item_transforms: tuple[Transform, ...]
    batch_transforms: tuple[Transform, ...]
    types: tuple[str, ...]
    vocab: tuple[Any, ...]
    loss: Loss
    inputs: int
    versions: Mapping[str, str]
    loaded: bool
    answers: Callable[[Sequence[Picture]], Answered] | None
