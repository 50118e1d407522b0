"""model.fastai -> Learned: network, preprocessing, labels and activation, as they act at inference.

`load_learner` unpickles, so this runs only when the operator said --trust, and only in the converter's own process.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tensign.errors import UnsupportedModel
from tensign.mlmodel import ModelManifest
from tensign.preprocess import CropPad, Resize
from tensign_converters.steps import CentreCrop, IdentityWarp, Normalize, Scale, Step

_INTERPOLATION = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: torch.softmax(logits, dim=-1),
    "sigmoid": torch.sigmoid,
    "none": lambda logits: logits,
}

Picture = npt.NDArray[np.uint8] | Path


@dataclass(frozen=True, slots=True)
class Learned:
    """One model, taken apart.

    item_steps act on uint8 pixels; graph_steps on float [B,3,h,w] before the network; size is the h, w that reaches the
    graph; logits gives the original's own answer, [n,classes], for pictures (uint8 [H,W,3] or files).
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

    def activate(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(_ACTIVATIONS[self.activation](torch.from_numpy(logits)))


def read_learner(manifest: ModelManifest, size: tuple[int, int]) -> Learned:
    """Loads the Learner of a fastai flavor, running its pickle. size: height and width in the signature.

    Raises UnsupportedModel for what this fastai cannot load, or what no step of ours does.
    """
    import fastai
    import fastcore
    from fastai.learner import load_learner

    file = manifest.path / str(manifest.flavors["fastai"].get("data", "model.fastai"))
    written = manifest.flavors["fastai"].get("fastai_version", "an unknown version")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fastai's own, about pickles and old torch calls
            learn = load_learner(file, cpu=True)
    except FileNotFoundError:
        raise UnsupportedModel(f"{file.name}: the MLmodel names it, and it is not there") from None
    except Exception as error:  # a pickle fails in whatever way its code does
        reason = " ".join(str(error).split())[:200]
        raise UnsupportedModel(
            f"{file.name}: written by fastai {written}, and fastai {fastai.__version__} cannot load it:"
            f" {type(error).__name__}: {reason}"
        ) from None
    learn.model.eval()
    valid = learn.dls.valid
    item_steps = tuple(step for transform in _inference(valid.after_item) for step in _item_steps(transform))
    size = (item_steps[-1].height, item_steps[-1].width) if item_steps else size
    graph_steps, current = [], size
    for transform in _inference(valid.after_batch):
        for step in _graph_steps(transform, current):
            graph_steps.append(step)
            current = step.target if isinstance(step, IdentityWarp) else current
            current = (step.height, step.width) if isinstance(step, CentreCrop) else current
    vocab = getattr(learn.dls, "vocab", None) or ()
    return Learned(
        network=learn.model,
        item_steps=item_steps,
        graph_steps=tuple(graph_steps),
        size=size,
        activation=_activation(learn.loss_func),
        labels=tuple(map(str, vocab)),
        threshold=getattr(learn.loss_func, "thresh", None),
        logits=lambda pictures: _logits(learn, pictures),
        versions={
            "fastai": fastai.__version__,
            "fastcore": fastcore.__version__,
            "torch": str(torch.__version__),
            "written_by_fastai": str(written),
        },
    )


def _inference(pipeline: Any) -> list[Any]:
    """A pipeline's transforms but for the train-only ones, as the class says: an instance's split_idx is overwritten by use."""
    return [transform for transform in pipeline.fs if getattr(type(transform), "split_idx", None) != 0]


def _kind(transform: Any) -> str:
    """The name of one of fastai's own classes; empty for somebody's subclass, which may do something else."""
    return type(transform).__name__ if type(transform).__module__.split(".")[0] == "fastai" else ""


def _item_steps(transform: Any) -> list[Resize | CropPad]:
    kind = _kind(transform)
    if kind == "ToTensor":
        return []
    if kind == "Resize":
        width, height = transform.size
        return [Resize(height, width, str(transform.method), str(transform.pad_mode), _INTERPOLATION[int(transform.mode)])]
    if kind in ("CropPad", "RandomCrop"):
        width, height = transform.size
        return [CropPad(height, width, str(getattr(transform, "pad_mode", "zeros")))]
    if kind == "RandomResizedCrop":
        width, height = transform.size
        extra = math.ceil(max(width, height) * transform.val_xtra / 8) * 8
        squish = Resize(height + extra, width + extra, "squish", interpolation=_INTERPOLATION[int(transform.mode)])
        return [squish, CropPad(height, width)] if extra else [squish]
    raise UnsupportedModel(
        f"the item transform {type(transform).__name__} has no counterpart here; skipping it would change predictions"
    )


def _graph_steps(transform: Any, size: tuple[int, int]) -> list[Step]:
    from fastai.vision.augment import AffineCoordTfm

    kind = _kind(transform)
    if kind == "IntToFloatTensor":
        return [Scale(float(transform.div))]
    if kind == "Normalize":
        return [Normalize(transform.mean.flatten().tolist(), transform.std.flatten().tolist())]
    if kind and isinstance(transform, AffineCoordTfm):
        target = transform.size if transform.size is not None else size
        target = (target, target) if isinstance(target, int) else tuple(target)
        sampling = {"mode": transform.mode, "pad_mode": transform.pad_mode, "align_corners": transform.align_corners}
        return [IdentityWarp(size, target, **sampling)]
    if kind == "RandomResizedCropGPU":
        height, width = size
        low, high = transform.ratio
        crop = (
            (int(width / low), width)
            if width / height < low
            else (height, int(height * high))
            if width / height > high
            else size
        )
        crop = (int(crop[0] * transform.valid_scale), int(crop[1] * transform.valid_scale))
        warp = IdentityWarp(crop, tuple(transform.size), mode=transform.mode, pad_mode="reflection", align_corners=True)
        return [CentreCrop(*crop), warp]
    raise UnsupportedModel(
        f"the batch transform {type(transform).__name__} has no counterpart here; skipping it would change predictions"
    )


def _activation(loss: Any) -> str:
    """Which activation `get_preds` applies, found out by applying it to numbers."""
    probe = torch.linspace(-3, 3, 12).reshape(3, 4)
    applied = loss.activation(probe.clone()) if hasattr(loss, "activation") else probe
    for name, activation in _ACTIVATIONS.items():
        if torch.allclose(applied, activation(probe), atol=1e-6):
            return name
    raise UnsupportedModel(f"the loss {type(loss).__name__} has an activation that is not softmax, sigmoid or none")


def _logits(learn: Any, pictures: Sequence[Picture]) -> npt.NDArray[np.float32]:
    with warnings.catch_warnings(), learn.no_bar(), learn.no_logging():
        warnings.simplefilter("ignore")
        batches = learn.dls.test_dl(list(pictures), num_workers=0, bs=16)
        logits, _ = learn.get_preds(dl=batches, act=lambda raw: raw)
    return np.asarray(logits, np.float32)
