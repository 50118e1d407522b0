"""Encoded images or raw arrays -> the array the engine wants, by a PreprocessSpec that is data inside the model directory.

Only steps on uint8 pixels happen here. Cast, scale, normalisation and transposition live inside the ONNX graph.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import PIL.Image

from tensign.config import MAX_PIXELS
from tensign.decode import decode
from tensign.errors import UndecodableImage, UnsupportedModel

_INTERPOLATION = {each.name.lower(): each for each in PIL.Image.Resampling}  # Pillow 13 knows two more than six
_PAD_MODE: dict[str, Any] = {"zeros": "constant", "border": "edge", "reflection": "reflect"}
_METHODS = ("crop", "pad", "squish")

Pixels = npt.NDArray[np.uint8]


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
        _check_choice(self.op, "method", self.method, _METHODS)
        _check_choice(self.op, "pad_mode", self.pad_mode, _PAD_MODE)
        _check_choice(self.op, "interpolation", self.interpolation, _INTERPOLATION)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """What comes of a picture of that height and width; -1 is any."""
        return self.height, self.width

    def apply(self, image: PIL.Image.Image, max_pixels: int) -> PIL.Image.Image:
        """The picture, height x width. Raises UndecodableImage where padding would need more than max_pixels."""
        target = (self.width, self.height)
        if self.method != "squish":
            across, down = image.width / self.width, image.height / self.height
            scale = max(across, down) if self.method == "pad" else min(across, down)
            image = _centre(image, int(scale * self.width), int(scale * self.height), self.pad_mode, max_pixels, half=0.5)
        return image if image.size == target else image.resize(target, _INTERPOLATION[self.interpolation])


@dataclass(frozen=True, slots=True)
class CropPad:
    """fastai's CropPad: the centre of the picture at its own scale, padded where it is smaller than the target."""

    op: ClassVar[str] = "crop_pad"
    height: int
    width: int
    pad_mode: str = "zeros"

    def __post_init__(self) -> None:
        _check_size(self.op, self.height, self.width)
        _check_choice(self.op, "pad_mode", self.pad_mode, _PAD_MODE)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """What comes of a picture of that height and width; -1 is any."""
        return self.height, self.width

    def apply(self, image: PIL.Image.Image, max_pixels: int) -> PIL.Image.Image:
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
        _check_choice(self.op, "interpolation", self.interpolation, _INTERPOLATION)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """What comes of a picture of that height and width; -1 is any."""
        if -1 in (height, width):
            return -1, -1
        if width >= height:
            return int(height * self.longest / width), self.longest
        return self.longest, int(width * self.longest / height)

    def apply(self, image: PIL.Image.Image, max_pixels: int) -> PIL.Image.Image:
        """The picture, its longer side `longest`. Raises UndecodableImage where nothing of the other is left."""
        height, width = self.size(image.height, image.width)
        if not height or not width:
            raise UndecodableImage(f"{image.width}x{image.height} pixels leave nothing at a longer side of {self.longest}")
        return Resize(height, width, interpolation=self.interpolation).apply(image, max_pixels)


HostStep = Resize | CropPad | RatioResize
_STEPS: dict[str, type[HostStep]] = {step.op: step for step in (Resize, CropPad, RatioResize)}


@dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """What happens to a picture before the engine sees it, in order. `graph` tells what the engine then does, in words.

    mode: "RGB" gives uint8 [n,H,W,3], "L", grey, [n,H,W].
    """

    VERSION: ClassVar[int] = 1
    steps: tuple[HostStep, ...] = ()
    exif_orientation: str = "ignore"
    graph: tuple[str, ...] = ()
    mode: str = "RGB"

    def __post_init__(self) -> None:
        _check_choice("preprocess", "exif_orientation", self.exif_orientation, ("ignore", "apply"))
        _check_choice("preprocess", "mode", self.mode, ("RGB", "L"))

    @property
    def digest(self) -> str:
        """SHA-256 of its canonical JSON, in hex: equal digests preprocess alike."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def document(self) -> dict[str, Any]:
        """The map that stands in `metadata: tensign: preprocess:` of an MLmodel file."""
        return {**self._content(), "sha256": self.digest}

    def _content(self) -> dict[str, Any]:
        steps = [{"op": step.op, **asdict(step)} for step in self.steps]
        content = {
            "version": self.VERSION,
            "exif_orientation": self.exif_orientation,
            "steps": steps,
            "graph": list(self.graph),
        }
        return content if self.mode == "RGB" else {**content, "mode": self.mode}  # digests of older releases stay

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> PreprocessSpec:
        """Reads `document()` back. Raises UnsupportedModel for what this version cannot do, or a digest that disagrees."""
        try:
            if document["version"] != cls.VERSION:
                raise UnsupportedModel(
                    f"preprocess: version {document['version']} is unknown; this tensign knows {cls.VERSION}"
                )
            steps = tuple(_parse_step(step) for step in document.get("steps", ()))
            graph, mode = tuple(document.get("graph", ())), document.get("mode", "RGB")
            spec = cls(steps, document.get("exif_orientation", "ignore"), graph, mode)
            digest = spec.digest
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise UnsupportedModel(f"preprocess: {type(error).__name__}: {error}") from None
        if document.get("sha256", digest) != digest:
            raise UnsupportedModel(f"preprocess: changed since it was hashed: {document['sha256']} became {digest}")
        return spec

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what leaves the last step for a picture of the signature's size; -1 is any."""
        for step in self.steps:
            height, width = step.size(height, width)
        return height, width

    def encoded(self, images: Sequence[bytes], *, height: int, width: int, max_pixels: int = MAX_PIXELS) -> Pixels:
        """Decodes and transforms n encoded images: uint8 [n,H,W,3] or [n,H,W]. Raises UndecodableImage, which names the row.

        height, width: what the engine wants; -1 is any size, the same for all rows.
        """
        prepared: Pixels | None = None
        for row, image in enumerate(images):
            try:
                upright = self.exif_orientation == "apply"
                decoded = decode(image, max_pixels=max_pixels, apply_exif_orientation=upright, mode=self.mode)
                pixels = self._transform(decoded, max_pixels)
            except UndecodableImage as error:
                raise UndecodableImage(f"row {row}: {error}") from None
            if prepared is None:
                prepared = np.empty((len(images), *pixels.shape), np.uint8)
            if pixels.shape != prepared.shape[1:] or any(
                w not in (-1, g) for w, g in zip((height, width), pixels.shape, strict=False)
            ):
                (high, wide), got = prepared.shape[1:3], f"{pixels.shape[0]}x{pixels.shape[1]}"
                wanted = f"{high if height == -1 else height}x{wide if width == -1 else width}"
                said = "the ratio stays, and the model wants" if self.steps else "the model resizes nothing and wants"
                raise UndecodableImage(f"row {row}: {said} {wanted} pixels, got {got}")
            prepared[row] = pixels
        assert prepared is not None  # the signature lets no request of 0 rows through
        return prepared

    def arrays(self, images: Pixels, *, max_pixels: int = MAX_PIXELS) -> Pixels:
        """Transforms raw pixels, uint8 [n,H,W,3] or [n,H,W], as the training library transforms a picture of that size."""
        if self.keeps(*images.shape[1:3]):
            return images
        return np.stack([self._transform(PIL.Image.fromarray(image), max_pixels) for image in images])

    def keeps(self, height: int, width: int) -> bool:
        """True when a picture of this size passes through every step unchanged."""
        return all(step.size(height, width) == (height, width) for step in self.steps)

    def _transform(self, image: PIL.Image.Image, max_pixels: int) -> Pixels:
        for step in self.steps:
            image = step.apply(image, max_pixels)
        return np.asarray(image)


def _parse_step(step: Mapping[str, Any]) -> HostStep:
    options = {key: value for key, value in step.items() if key != "op"}
    if step["op"] not in _STEPS:
        raise UnsupportedModel(f'preprocess: step "{step["op"]}" is unknown; this tensign knows {", ".join(_STEPS)}')
    return _STEPS[step["op"]](**options)


def _centre(
    image: PIL.Image.Image, width: int, height: int, pad_mode: str, max_pixels: int, *, half: float | None = None
) -> PIL.Image.Image:
    """Crops and pads to width x height around the centre. Raises UndecodableImage beyond max_pixels.

    fastai rounds the corner in two ways: Resize truncates half the difference towards zero, CropPad floors it.
    """
    if width * height > max_pixels:  # a picture of one row, padded to a square
        raise UndecodableImage(f"padded to {width}x{height} pixels it is more than the limit of {max_pixels}")
    over_x, over_y = image.width - width, image.height - height
    left, top = (int(half * over_x), int(half * over_y)) if half else (over_x // 2, over_y // 2)
    if over_x > 0 or over_y > 0:
        image = image.crop((max(left, 0), max(top, 0), min(left + width, image.width), min(top + height, image.height)))
    before_x, before_y = max(-left, 0), max(-top, 0)
    after_x, after_y = max(-over_x - before_x, 0), max(-over_y - before_y, 0)
    if before_x or before_y or after_x or after_y:
        padding = ((before_y, after_y), (before_x, after_x), (0, 0))[: 2 if image.mode == "L" else 3]
        image = PIL.Image.fromarray(np.pad(np.asarray(image), padding, mode=_PAD_MODE[pad_mode]))
    return image


def _check_size(op: str, height: Any, width: Any) -> None:
    if not all(type(side) is int and side > 0 for side in (height, width)):
        raise UnsupportedModel(f"preprocess: {op}: wanted positive height and width, got {height!r} and {width!r}")
    if height * width > MAX_PIXELS:
        raise UnsupportedModel(f"preprocess: {op}: {height}x{width} pixels are more than the limit of {MAX_PIXELS}")


def _check_choice(op: str, option: str, given: str, known: Sequence[str] | Mapping[str, Any]) -> None:
    if given not in known:
        raise UnsupportedModel(f'preprocess: {op}: {option} "{given}" is unknown; wanted one of {", ".join(known)}')
