"""The loss -> what `get_preds` makes of logits: activation, class axis, threshold; and what the numbers are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tensign.errors import UnsupportedModel, UntrustedModel
from tensign_converters.learners.recording import Loss, Recording
from tensign_converters.pictures.activation import activated
from tensign_converters.subject import Head

_SOFTMAX = {"CrossEntropyLossFlat", "FocalLossFlat", "DiceLoss"}  # along their own axis
_SOFTMAX_LAST = {"LabelSmoothingCrossEntropy", "LabelSmoothingCrossEntropyFlat"}  # along the last one, whatever theirs is
_SIGMOID = {"BCEWithLogitsLossFlat"}
_NONE = {"BaseLoss", "BCELossFlat", "FocalLoss", "L1LossFlat", "MSELossFlat"}


def head(recording: Recording, shape: tuple[int, ...]) -> Head:
    """What stands on the network; shape: of its logits, [n,...]. Raises UnsupportedModel, UntrustedModel."""
    activation, axis = _activation(recording.loss, len(shape))
    vocab = recording.vocab or _mask_codes(recording)
    if any(isinstance(names, tuple | list) for names in vocab):
        raise UnsupportedModel(f"{len(vocab)} targets with names of their own: this version converts Learners of one")
    labels = tuple(map(str, vocab))
    if len(shape) not in (2, 4):
        raise UnsupportedModel(f"the network gives {list(shape)}; wanted [n,values] or, for each pixel, [n,classes,H,W]")
    if labels and len(labels) != shape[1]:
        raise UnsupportedModel(f"the Learner knows {len(labels)} labels, its network gives {shape[1]} values")
    threshold = None
    if activation == "sigmoid":
        threshold = recording.loss.attributes.get("thresh", 0.5)
        if type(threshold) not in (int, float) or not 0 <= threshold <= 1:
            raise UnsupportedModel(f"the loss {recording.loss.name}: thresh {str(threshold)[:60]} is no number from 0 to 1")
    return Head(_task(len(shape), activation, named=bool(labels)), activation, axis, labels, threshold)


def _mask_codes(recording: Recording) -> tuple[Any, ...]:
    """The names of a segmentation's classes, which stand in a transform of its masks."""
    for transform in recording.item_transforms:
        codes = transform.attributes.get("codes")
        if transform.path == "fastai.vision.core.AddMaskCodes" and isinstance(codes, tuple | list | np.ndarray):
            return tuple(codes)
    return ()


def _task(rank: int, activation: str, *, named: bool) -> str:
    if activation == "none" and not named:
        return "regression"
    if rank == 4:
        return "segmentation"
    return "multilabel" if activation == "sigmoid" else "classification"


def _activation(loss: Loss, rank: int) -> tuple[str, int]:
    package, name = loss.path.partition(".")[0], loss.name
    if package == "fastai" and "activation" not in loss.attributes:  # one of its own that somebody put there
        if name in _SOFTMAX:
            axis = loss.attributes.get("axis", 1 if name == "DiceLoss" else -1)
            if type(axis) is not int or not -rank <= axis < rank:
                raise UnsupportedModel(f"the loss {name}: axis {str(axis)[:60]} is none of the network's {rank}")
            return "softmax", axis
        if name in _SOFTMAX_LAST:
            return "softmax", -1
        if name in _SIGMOID:
            return "sigmoid", -1
        if name in _NONE:
            return "none", -1
    if package == "torch":  # has no activation that fastai would apply
        return "none", -1
    if loss.activation is not None:
        return _found_out(loss, loss.activation, rank)
    raise UntrustedModel(f"the loss {loss.path[:200]} is none that is known, and only its code can say what its activation is")


def _found_out(loss: Loss, applied: Callable[[Tensor], Any], rank: int) -> tuple[str, int]:
    """Which activation it is, by applying it to numbers."""
    probe = torch.linspace(-3, 3, 120).reshape((4, 5, 1, 6)[:rank] if rank == 4 else (20, 6))
    given = applied(probe.clone())
    for name, axis in _candidates(rank):
        wanted = activated(Head("", name, axis), probe)
        if isinstance(given, Tensor) and given.shape == wanted.shape and torch.allclose(given, wanted, atol=1e-6):
            return name, axis
    raise UnsupportedModel(f"the loss {loss.name} has an activation that is not softmax, sigmoid or none")


def _candidates(rank: int) -> Iterator[tuple[str, int]]:
    yield from (("sigmoid", -1), ("none", -1))
    yield from (("softmax", axis) for axis in (1, -1)[: 2 if rank == 4 else 1])
