"""Recording -> Learned: host steps, graph steps, activation and labels, in terms that the runtime and the graph have."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tensign.errors import UnsupportedModel, UntrustedModel
from tensign.preprocess import CropPad, PreprocessSpec, Resize
from tensign_converters.recording import Loss, Picture, Recording, Transform
from tensign_converters.steps import CentreCrop, IdentityWarp, Normalize, Scale, Step

_INTERPOLATION = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: torch.softmax(logits, dim=-1),
    "sigmoid": torch.sigmoid,
    "none": lambda logits: logits,
}
_LOSSES = {  # fastai's, by name -> what its `activation` does
    "CrossEntropyLossFlat": "softmax",
    "FocalLossFlat": "softmax",
    "LabelSmoothingCrossEntropy": "softmax",
    "LabelSmoothingCrossEntropyFlat": "softmax",
    "BCEWithLogitsLossFlat": "sigmoid",
    "BaseLoss": "none",
}
_AFFINE = {
    "AffineCoordTfm", "Flip", "DeterministicFlip", "Dihedral", "DeterministicDihedral", "Rotate", "Zoom", "Warp",
}  # fmt: skip
_NOT_LOADED = "the network, rebuilt from data, in torch on the recovered preprocessing; the original Learner was not loaded"


@dataclass(frozen=True, slots=True)
class Learned:
    """One model, taken apart.

    item_steps act on uint8 pixels; graph_steps on float [B,3,h,w] before the network; size is the h, w that reaches the
    graph; logits gives the answer that conversions are held against, [n,classes], for pictures (uint8 [H,W,3] or files);
    against says whose answer that is.
    """

    network: nn.Module
    item_steps: tuple[Resize | CropPad, ...]
    graph_steps: tuple[Step, ...]
    size: tuple[int, int]
    activation: str
    labels: tuple[str, ...]
    threshold: float | None
    logits: Callable[[Sequence[Picture]], npt.NDArray[np.float32]]
    versions: dict[str, str]
    against: str = "the original Learner"

    def activate(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(_ACTIVATIONS[self.activation](torch.from_numpy(logits)))


def learn(recording: Recording, size: tuple[int, int]) -> Learned:
    """size: height and width in the signature. Raises UnsupportedModel for what no step of ours does, UntrustedModel for
    what could be found out by running the original."""
    item_steps = tuple(step for each in recording.item_transforms for step in _checked(each, _item_steps))
    size = (item_steps[-1].height, item_steps[-1].width) if item_steps else size
    graph_steps, current = [], size
    for transform in recording.batch_transforms:
        for step in _checked(transform, partial(_graph_steps, size=current)):
            graph_steps.append(step)
            current = step.target if isinstance(step, IdentityWarp) else current
            current = (step.height, step.width) if isinstance(step, CentreCrop) else current
    threshold = recording.loss.attributes.get("thresh")
    rebuilt = _rebuilt(recording.network, PreprocessSpec(item_steps), tuple(graph_steps), size)
    return Learned(
        network=recording.network,
        item_steps=item_steps,
        graph_steps=tuple(graph_steps),
        size=size,
        activation=_activation(recording.loss),
        labels=tuple(map(str, recording.vocab)),
        threshold=threshold if isinstance(threshold, int | float) else None,
        logits=recording.logits or rebuilt,
        versions=dict(recording.versions),
        against="the original Learner" if recording.logits else _NOT_LOADED,
    )


def _checked(transform: Transform, make: Callable[[Transform], list[Any]]) -> list[Any]:
    """The steps of a transform, none of a train-only one; what its settings lead to where they are none is one error."""
    try:
        return [] if transform.train_only else make(transform)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnsupportedModel(f"{transform.path}: settings that it cannot have: {type(error).__name__}: {error}") from None


def _kind(transform: Transform) -> str:
    """The name of one of fastai's own classes; empty for somebody's subclass, which may do something else."""
    return transform.name if transform.path.startswith("fastai.") else ""


def _item_steps(transform: Transform) -> list[Resize | CropPad]:
    kind, said = _kind(transform), transform.attributes
    if kind == "ToTensor":
        return []
    if kind == "Resize":
        width, height = said["size"]
        return [Resize(height, width, str(said["method"]), str(said["pad_mode"]), _INTERPOLATION[int(said["mode"])])]
    if kind in ("CropPad", "RandomCrop"):
        width, height = said["size"]
        return [CropPad(height, width, str(said.get("pad_mode", "zeros")))]
    if kind == "RandomResizedCrop":
        width, height = said["size"]
        extra = math.ceil(max(width, height) * said["val_xtra"] / 8) * 8
        squish = Resize(height + extra, width + extra, "squish", interpolation=_INTERPOLATION[int(said["mode"])])
        return [squish, CropPad(height, width)] if extra else [squish]
    raise UnsupportedModel(f"the item transform {transform.path} has no counterpart here; skipping it would change predictions")


def _graph_steps(transform: Transform, size: tuple[int, int]) -> list[Step]:
    kind, said = _kind(transform), transform.attributes
    if kind == "IntToFloatTensor":
        return [Scale(float(said["div"]))]
    if kind == "Normalize":
        return [Normalize(said["mean"].flatten().tolist(), said["std"].flatten().tolist())]
    if kind in _AFFINE:
        target = said["size"] if said["size"] is not None else size
        target = (target, target) if isinstance(target, int) else tuple(target)
        sampling = {"mode": said["mode"], "pad_mode": said["pad_mode"], "align_corners": said["align_corners"]}
        return [IdentityWarp(size, target, **sampling)]
    if kind == "RandomResizedCropGPU":
        height, width = size
        low, high = said["ratio"]
        crop = (
            (int(width / low), width)
            if width / height < low
            else (height, int(height * high))
            if width / height > high
            else size
        )
        crop = (int(crop[0] * said["valid_scale"]), int(crop[1] * said["valid_scale"]))
        warp = IdentityWarp(crop, tuple(said["size"]), mode=said["mode"], pad_mode="reflection", align_corners=True)
        return [CentreCrop(*crop), warp]
    raise UnsupportedModel(
        f"the batch transform {transform.path} has no counterpart here; skipping it would change predictions"
    )


def _activation(loss: Loss) -> str:
    """Which activation `get_preds` applies: found out by applying it to numbers, or known by the name of the loss."""
    if loss.activation is None:
        home, _, name = loss.path.rpartition(".")
        if home in ("fastai.losses", "fastai.layers") and name in _LOSSES and "activation" not in loss.attributes:
            return _LOSSES[name]
        if home in ("torch.nn.functional", "torch.nn.modules.loss"):
            return "none"
        raise UntrustedModel(f"the loss {loss.path} is none that is known, and only its code can say what its activation is")
    probe = torch.linspace(-3, 3, 12).reshape(3, 4)
    applied = loss.activation(probe.clone())
    for name, activation in _ACTIVATIONS.items():
        if torch.allclose(applied, activation(probe), atol=1e-6):
            return name
    raise UnsupportedModel(f"the loss {loss.name} has an activation that is not softmax, sigmoid or none")


def _rebuilt(
    network: nn.Module, spec: PreprocessSpec, steps: tuple[Step, ...], size: tuple[int, int]
) -> Callable[[Sequence[Picture]], npt.NDArray[np.float32]]:
    """Logits of the network in torch, fed by the recovered preprocessing."""

    def one(picture: Picture) -> npt.NDArray[np.float32]:
        if isinstance(picture, Path):
            pixels = spec.encoded([picture.read_bytes()], height=size[0], width=size[1])
        else:
            pixels = spec.arrays(picture[None])
        with torch.no_grad():
            x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float()
            for step in steps:
                x = step(x)
            return np.asarray(network(x), np.float32)

    return lambda pictures: np.concatenate([one(picture) for picture in pictures])
