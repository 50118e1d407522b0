"""Recorded transforms -> host steps on uint8 pixels and graph steps on floats, with the pixels that fastai would make.

What has no counterpart is refused by name: a transform that is skipped changes predictions in silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import PIL.Image

from tensign.config import MAX_PIXELS
from tensign.errors import UnsupportedModel
from tensign.preprocess import CropPad, HostStep, PreprocessSpec, RatioResize, Resize
from tensign_converters.learners.recording import Transform
from tensign_converters.pictures.preprocessing import MASK, MODES, Preprocessing
from tensign_converters.pictures.steps import CentreCrop, Codes, IdentityWarp, Normalize, Scale, Step

_INTERPOLATION = {int(each): each.name.lower() for each in PIL.Image.Resampling}
_NO_OPERATION = {"ToTensor", "PointScaler", "BBoxLabeler", "AddMaskCodes"}  # on pictures
_NO_FUNCTION = {"noop", "noops", "identity"}
_WARPS = {
    "AffineCoordTfm",
    "DeterministicDihedral",
    "DeterministicFlip",
    "Dihedral",
    "Flip",
    "Rotate",
    "Warp",
    "Zoom",
}
_PACKAGES = {"fastai", "fastcore", "fasttransform"}


def preprocessing(kind: str, item: Iterable[Transform], batch: Iterable[Transform], size: tuple[int, int]) -> Preprocessing:
    """What the transforms come to at inference for pictures of height and width `size`. Raises UnsupportedModel."""
    if kind not in MODES:
        named = f"inputs of type {kind}" if kind else "inputs of a type that could not be read"
        raise UnsupportedModel(f"{named}: this version converts Learners of {', '.join(MODES)}")
    host: list[HostStep] = []
    graph: list[Step] = []
    for transform in _inference(item):
        if _kind(transform) == "IntToFloatTensor":  # an item's, after ToTensor
            graph += _graph_steps(_Read(transform), kind, size)
        else:
            host += _host_steps(_Read(transform), kind)
    size = PreprocessSpec(tuple(host)).size(*size)
    if 0 in size:
        raise UnsupportedModel(f"pictures of the signature's size become {size[0]}x{size[1]} pixels")
    current = size
    for transform in _inference(batch):
        for step in _graph_steps(_Read(transform), kind, current):
            graph.append(step)
            current = step.target if isinstance(step, IdentityWarp) else current
            current = (step.height, step.width) if isinstance(step, CentreCrop) else current
    return Preprocessing(kind, tuple(host), tuple(graph), size, current)


def _inference(transforms: Iterable[Transform]) -> list[Transform]:
    """Without the train-only ones. An affine transform's own split_idx is overwritten by use, that of others says it too."""
    return [
        transform
        for transform in transforms
        if not transform.train_only and (transform.attributes.get("split_idx") != 0 or _kind(transform) in {"", *_WARPS})
    ]


def _kind(transform: Transform) -> str:
    """The name of one of fastai's own classes; empty for somebody's subclass, which may do something else."""
    return transform.name if transform.path.partition(".")[0] in _PACKAGES else ""


def _host_steps(read: _Read, kind: str) -> list[HostStep]:
    name, mask = _kind(read.transform), kind == MASK
    if name in _NO_OPERATION or _does_nothing(read.transform):
        return []
    if name == "Resize":
        height, width = read.width_height()
        method, pad_mode = read.word("method"), read.word("pad_mode")
        return [Resize(height, width, method, pad_mode, read.interpolation("mode_mask" if mask else "mode"))]
    if name in ("CropPad", "OldRandomCrop", "RandomCrop"):
        height, width = read.width_height()
        return [CropPad(height, width, read.word("pad_mode") if name != "RandomCrop" else "zeros")]
    if name == "RandomResizedCrop":
        height, width = read.width_height()
        extra = math.ceil(max(width, height) * read.number("val_xtra", least=0) / 8) * 8
        interpolation = read.interpolation("mode_mask" if mask else "mode")
        squish = Resize(height + extra, width + extra, "squish", interpolation=interpolation)
        return [squish, CropPad(height, width)] if extra else [squish]
    if name == "RatioResize":
        both = read.get("resamples", lambda value: isinstance(value, tuple | list) and len(value) == 2)
        return [RatioResize(read.whole("max_sz"), read.interpolation_of(both[mask]))]
    raise read.refused("item")


def _graph_steps(read: _Read, kind: str, size: tuple[int, int]) -> list[Step]:
    name, mask = _kind(read.transform), kind == MASK
    if _does_nothing(read.transform):
        return []
    if name == "IntToFloatTensor":
        return [Codes(read.number("div_mask"))] if mask else [Scale(read.number("div"))]
    if name == "Normalize":
        return [] if mask else [Normalize(read.statistic("mean"), read.statistic("std"))]
    if -1 in size and name in {*_WARPS, "RandomResizedCropGPU"}:
        raise UnsupportedModel(
            f"{name} samples pictures of a fixed size, and the signature leaves height and width open: declare them"
        )
    if name in _WARPS:
        target = size if read.transform.attributes.get("size") is None else read.height_width()
        mode = read.word("mode_mask" if mask else "mode")
        aligned = read.get("align_corners", lambda value: value is None or type(value) is bool)
        return [_warp(read, size, target, mode, read.word("pad_mode"), bool(aligned))]
    if name == "RandomResizedCropGPU":
        crop = _valid_crop(read, size)
        warp = _warp(read, crop, read.height_width(), read.word("mode_mask" if mask else "mode"), "reflection", True)
        return [CentreCrop(*crop), warp] if crop != size else [warp]
    raise read.refused("batch")


def _valid_crop(read: _Read, size: tuple[int, int]) -> tuple[int, int]:
    height, width = size
    ratio = read.get("ratio", lambda value: isinstance(value, tuple | list) and len(value) == 2)
    low, high = (read.number_of(bound, "ratio") for bound in ratio)
    crop = size
    if width / height < low:
        crop = (int(width / low), width)
    elif width / height > high:
        crop = (height, int(height * high))
    scale = read.number("valid_scale")
    crop = int(crop[0] * scale), int(crop[1] * scale)
    if min(crop) < 1 or crop[0] > height or crop[1] > width:
        raise read.bad("valid_scale", scale)
    return crop


def _warp(
    read: _Read, source: tuple[int, int], target: tuple[int, int], mode: str, pad_mode: str, align_corners: bool
) -> IdentityWarp:
    if mode not in ("bilinear", "bicubic", "nearest"):
        raise read.bad("mode", mode)
    if pad_mode not in ("reflection", "border", "zeros"):
        raise read.bad("pad_mode", pad_mode)
    return IdentityWarp(source, target, mode=mode, pad_mode=pad_mode, align_corners=align_corners)


def _does_nothing(transform: Transform) -> bool:
    """A Transform round a function that gives back what it gets."""
    package, _, name = transform.function.rpartition(".")
    return _kind(transform) == "Transform" and package.partition(".")[0] in _PACKAGES and name in _NO_FUNCTION


class _Read:
    """The attributes of a transform, each checked: they may come from a file that anybody wrote."""

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def get(self, name: str, fits: Callable[[Any], bool]) -> Any:
        value = self.transform.attributes.get(name)
        if not fits(value):
            raise self.bad(name, value)
        return value

    def word(self, name: str) -> str:
        return str(self.get(name, lambda value: isinstance(value, str)))

    def whole(self, name: str) -> int:
        return int(self.get(name, _is_length))

    def number(self, name: str, *, least: float = 1e-30) -> float:
        return self.number_of(self.transform.attributes.get(name), name, least=least)

    def number_of(self, value: Any, name: str, *, least: float = 1e-30) -> float:
        if type(value) not in (int, float) or not least <= value < 1e30:
            raise self.bad(name, value)
        return float(value)

    def interpolation(self, name: str) -> str:
        return self.interpolation_of(self.transform.attributes.get(name))

    def interpolation_of(self, value: Any) -> str:
        if type(value) is not int or value not in _INTERPOLATION:
            raise self.bad("interpolation", value)
        return _INTERPOLATION[value]

    def width_height(self) -> tuple[int, int]:
        """An item transform's size, which fastai keeps as (width, height): height and width."""
        width, height = self.get("size", _is_size)
        return height, width

    def height_width(self) -> tuple[int, int]:
        """A batch transform's size: one length for both sides, or (height, width)."""
        size = self.get("size", lambda value: _is_length(value) or _is_size(value))
        height, width = (size, size) if _is_length(size) else size
        if height * width > MAX_PIXELS:
            raise self.bad("size", size)
        return height, width

    def statistic(self, name: str) -> Any:
        """One finite number, or one a channel."""

        def fits(value: Any) -> bool:
            if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or value.size not in (1, 3):
                return False
            along_channels = value.ndim == 4 and value.shape[1] == value.size
            return (along_channels or value.size == 1) and bool(np.isfinite(value).all())

        return np.asarray(self.get(name, fits), np.float32).reshape(-1)

    def bad(self, name: str, value: Any) -> UnsupportedModel:
        return UnsupportedModel(f"the transform {self.transform.name}: {name} {str(value)[:60]} is none that fastai works with")

    def refused(self, stage: str) -> UnsupportedModel:
        called = self.transform.function or (self.transform.name if _kind(self.transform) else self.transform.path)
        return UnsupportedModel(
            f"the {stage} transform {called[:200]} has no counterpart here; skipping it would change predictions"
        )


def _is_length(value: Any) -> bool:
    return type(value) is int and 0 < value <= MAX_PIXELS


def _is_size(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_length, value))
