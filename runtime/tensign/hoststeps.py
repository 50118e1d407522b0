"""The steps on uint8 pixels, each with the very pixels of the training library that it is named after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import PIL.Image

from tensign.config import MAX_PIXELS
from tensign.decode import Picture, as_image
from tensign.errors import UndecodableImage, UnsupportedModel
from tensign.resample import resized

_INTERPOLATION = {each.name.lower(): each for each in PIL.Image.Resampling}  # Pillow 13 knows two more than six
_PAD_MODE: dict[str, Any] = {"zeros": "constant", "border": "edge", "reflection": "reflect"}
_METHODS = ("crop", "pad", "squish")


@dataclass(frozen=True, slots=True)
class Resize:
    """fastai's Resize: the largest centred crop (or the smallest padding) of the target's ratio, then one resampling."""

    op: ClassVar[str] = "resize"
    height: int
    width: int
    method: str = "crop"
    pad_mode: str = "reflection"
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        _check_size(self.op, self.height, self.width)
        check_choice(self.op, "method", self.method, _METHODS)
        check_choice(self.op, "pad_mode", self.pad_mode, _PAD_MODE)
        check_choice(self.op, "interpolation", self.interpolation, _INTERPOLATION)

    def becomes(self, height: int, width: int) -> tuple[int, int]:
        """What comes of a picture of that height and width; -1 is any."""
        return self.height, self.width

    def apply(self, image: Picture, max_pixels: int) -> Picture:
        """The picture, height x width. Raises UndecodableImage where padding would need more than max_pixels."""
        if self.method != "squish":
            width, height = _size(image)
            across, down = width / self.width, height / self.height
            scale = max(across, down) if self.method == "pad" else min(across, down)
            image = _centre(image, int(scale * self.width), int(scale * self.height), self.pad_mode, max_pixels, half=0.5)
        return _resized(image, self.height, self.width, self.interpolation)


@dataclass(frozen=True, slots=True)
class CropPad:
    """fastai's CropPad: the centre of the picture at its own scale, padded where it is smaller than the target."""

    op: ClassVar[str] = "crop_pad"
    height: int
    width: int
    pad_mode: str = "zeros"

    def __post_init__(self) -> None:
        _check_size(self.op, self.height, self.width)
        check_choice(self.op, "pad_mode", self.pad_mode, _PAD_MODE)

    def becomes(self, height: int, width: int) -> tuple[int, int]:
        """What comes of a picture of that height and width; -1 is any."""
        return self.height, self.width

    def apply(self, image: Picture, max_pixels: int) -> Picture:
        """The picture, height x width. Raises UndecodableImage where that is more than max_pixels."""
        return _centre(image, self.width, self.height, self.pad_mode, max_pixels)


@dataclass(frozen=True, slots=True)
class RatioResize:
    """fastai's RatioResize: the longer side becomes longest, the ratio stays.

    Where the other side must be rounded fastai crops the rest at a random corner, at inference too; here it is the centre.
    """

    op: ClassVar[str] = "ratio_resize"
    longest: int
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        _check_size(self.op, self.longest, 1)
        check_choice(self.op, "interpolation", self.interpolation, _INTERPOLATION)

    def becomes(self, height: int, width: int) -> tuple[int, int]:
        """What comes of a picture of that height and width; -1 is any."""
        if -1 in (height, width):
            return -1, -1
        if width >= height:
            return int(height * self.longest / width), self.longest
        return self.longest, int(width * self.longest / height)

    def apply(self, image: Picture, max_pixels: int) -> Picture:
        """The picture, its longer side `longest`. Raises UndecodableImage where nothing of the other is left."""
        wide, high = _size(image)
        height, width = self.becomes(high, wide)
        if not height or not width:
            raise UndecodableImage(f"{wide}x{high} pixels leave nothing at a longer side of {self.longest}")
        return Resize(height, width, interpolation=self.interpolation).apply(image, max_pixels)


@dataclass(frozen=True, slots=True)
class ResizeShorter:
    """torchvision's Resize of one number, as it resizes Pillow's pictures: the shorter side becomes that, the ratio stays."""

    op: ClassVar[str] = "resize_shorter"
    size: int
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        _check_size(self.op, self.size, self.size)
        check_choice(self.op, "interpolation", self.interpolation, _INTERPOLATION)

    def becomes(self, height: int, width: int) -> tuple[int, int]:
        """What comes of a picture of that height and width; -1 is any."""
        if -1 in (height, width):
            return -1, -1
        if width <= height:
            return int(self.size * height / width), self.size
        return self.size, int(self.size * width / height)

    def apply(self, image: Picture, max_pixels: int) -> Picture:
        """The picture, its shorter side `size`. Raises UndecodableImage where that is more than max_pixels."""
        wide, high = _size(image)
        height, width = self.becomes(high, wide)
        if height * width > max_pixels:  # a picture of one row
            raise UndecodableImage(f"resized to {width}x{height} pixels it is more than the limit of {max_pixels}")
        return _resized(image, height, width, self.interpolation)


@dataclass(frozen=True, slots=True)
class CentreCrop:
    """torchvision's CenterCrop: the centre of the picture at its own scale, black around it where it is smaller."""

    op: ClassVar[str] = "centre_crop"
    height: int
    width: int

    def __post_init__(self) -> None:
        _check_size(self.op, self.height, self.width)

    def becomes(self, height: int, width: int) -> tuple[int, int]:
        """What comes of a picture of that height and width; -1 is any."""
        return self.height, self.width

    def apply(self, image: Picture, max_pixels: int) -> Picture:
        """The picture, height x width. Raises UndecodableImage where that is more than max_pixels."""
        if self.height * self.width > max_pixels:
            raise UndecodableImage(f"cropped to {self.width}x{self.height} pixels it is more than the limit of {max_pixels}")
        wide, high = _size(image)
        left, top = _corner(wide - self.width), _corner(high - self.height)
        if self.width > wide or self.height > high:
            image = as_image(image)  # Pillow makes black what lies outside
        return _crop(image, left, top, left + self.width, top + self.height)


RESIZING = (Resize, RatioResize, ResizeShorter)
HostStep = Resize | CropPad | RatioResize | ResizeShorter | CentreCrop
STEPS: dict[str, type[HostStep]] = {step.op: step for step in (Resize, CropPad, RatioResize, ResizeShorter, CentreCrop)}


def parse_step(document: Mapping[str, Any]) -> HostStep:
    """A map of `op` and that step's options -> the step. Raises UnsupportedModel for a step or value that is unknown, and
    KeyError or TypeError for a map of other keys."""
    options = {key: value for key, value in document.items() if key != "op"}
    if document["op"] not in STEPS:
        raise UnsupportedModel(f'preprocess: step "{document["op"]}" is unknown; this tensign knows {", ".join(STEPS)}')
    return STEPS[document["op"]](**options)


def _corner(over: int) -> int:
    """torchvision rounds half the difference to even where it crops, and down where it pads."""
    return round(over / 2) if over > 0 else -(-over // 2)


def _size(image: Picture) -> tuple[int, int]:
    """Width and height."""
    return (image.shape[1], image.shape[0]) if isinstance(image, np.ndarray) else image.size


def _crop(image: Picture, left: int, top: int, right: int, bottom: int) -> Picture:
    """Of an array it is a view."""
    return image[top:bottom, left:right] if isinstance(image, np.ndarray) else image.crop((left, top, right, bottom))


def _resized(image: Picture, height: int, width: int, interpolation: str) -> Picture:
    if _size(image) == (width, height):
        return image
    filter = _INTERPOLATION[interpolation]
    if isinstance(image, np.ndarray):
        return resized(image, height, width, filter)
    return image.resize((width, height), filter)


def _centre(image: Picture, width: int, height: int, pad_mode: str, max_pixels: int, *, half: float | None = None) -> Picture:
    """Crops and pads to width x height around the centre. Raises UndecodableImage beyond max_pixels.

    fastai rounds the corner in two ways: Resize truncates half the difference towards zero, CropPad floors it.
    """
    if width * height > max_pixels:  # a picture of one row, padded to a square
        raise UndecodableImage(f"padded to {width}x{height} pixels it is more than the limit of {max_pixels}")
    wide, high = _size(image)
    over_x, over_y = wide - width, high - height
    left, top = (int(half * over_x), int(half * over_y)) if half else (over_x // 2, over_y // 2)
    if over_x > 0 or over_y > 0:
        image = _crop(image, max(left, 0), max(top, 0), min(left + width, wide), min(top + height, high))
    before_x, before_y = max(-left, 0), max(-top, 0)
    after_x, after_y = max(-over_x - before_x, 0), max(-over_y - before_y, 0)
    if before_x or before_y or after_x or after_y:
        pixels = np.asarray(image)
        padding = ((before_y, after_y), (before_x, after_x), (0, 0))[: pixels.ndim]
        image = np.pad(pixels, padding, mode=_PAD_MODE[pad_mode])
    return image


def _check_size(op: str, height: Any, width: Any) -> None:
    if not all(type(side) is int and side > 0 for side in (height, width)):
        raise UnsupportedModel(f"preprocess: {op}: wanted positive height and width, got {height!r} and {width!r}")
    if height * width > MAX_PIXELS:
        raise UnsupportedModel(f"preprocess: {op}: {height}x{width} pixels are more than the limit of {MAX_PIXELS}")


def check_choice(op: str, option: str, given: str, known: Sequence[str] | Mapping[str, Any]) -> None:
    if given not in known:
        raise UnsupportedModel(f'preprocess: {op}: {option} "{given}" is unknown; wanted one of {", ".join(known)}')
