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

from tensign import resample
from tensign.config import MAX_PIXELS
from tensign.decode import Picture, Pictures, Pixels, pictures
from tensign.errors import UndecodableImage, UnsupportedModel
from tensign.hoststeps import (
    RESIZING,
    CentreCrop,
    CropPad,
    HostStep,
    RatioResize,
    Resize,
    ResizeShorter,
    check_choice,
    parse_step,
)

__all__ = ["CentreCrop", "CropPad", "HostStep", "PreprocessSpec", "RatioResize", "Resize", "ResizeShorter"]


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
        check_choice("preprocess", "exif_orientation", self.exif_orientation, ("ignore", "apply"))
        check_choice("preprocess", "mode", self.mode, ("RGB", "L"))

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
            steps = tuple(parse_step(step) for step in document.get("steps", ()))
            graph, mode = tuple(document.get("graph", ())), document.get("mode", "RGB")
            spec = cls(steps, document.get("exif_orientation", "ignore"), graph, mode)
            digest = spec.digest
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise UnsupportedModel(f"preprocess: {type(error).__name__}: {error}") from None
        if document.get("sha256", digest) != digest:
            raise UnsupportedModel(f"preprocess: changed since it was hashed: {document['sha256']} became {digest}")
        return spec

    def prepare(self) -> None:
        """Compiles, once in a process, what resizes faster than Pillow, if a step resizes: before the first request."""
        if any(isinstance(step, RESIZING) for step in self.steps):
            resample.prepare()

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what leaves the last step for a picture of the signature's size; -1 is any."""
        for step in self.steps:
            height, width = step.becomes(height, width)
        return height, width

    def encoded(
        self,
        images: Sequence[bytes],
        *,
        height: int,
        width: int,
        max_pixels: int = MAX_PIXELS,
        decoder: Pictures = pictures,
    ) -> Pixels:
        """Decodes and transforms n encoded images: uint8 [n,H,W,3] or [n,H,W]. Raises UndecodableImage, which names the row.

        height, width: what the engine wants; -1 is any size, the same for all rows. decoder: what decodes them, in order.
        """
        prepared: Pixels | None = None
        upright = self.exif_orientation == "apply"
        decoded = decoder(images, max_pixels=max_pixels, apply_exif_orientation=upright, mode=self.mode)
        for row in range(len(images)):
            try:
                pixels = self._transform(next(decoded), max_pixels)
            except UndecodableImage as error:
                raise UndecodableImage(f"row {row}: {error}") from None
            if prepared is None:
                alone = len(images) == 1 and pixels.base is None  # nothing else lies in its memory
                prepared = pixels[None] if alone else np.empty((len(images), *pixels.shape), np.uint8)
            if pixels.shape != prepared.shape[1:] or any(
                w not in (-1, g) for w, g in zip((height, width), pixels.shape, strict=False)
            ):
                (high, wide), got = prepared.shape[1:3], f"{pixels.shape[0]}x{pixels.shape[1]}"
                wanted = f"{high if height == -1 else height}x{wide if width == -1 else width}"
                said = "the ratio stays, and the model wants" if self.steps else "the model resizes nothing and wants"
                raise UndecodableImage(f"row {row}: {said} {wanted} pixels, got {got}")
            if prepared.base is not pixels:
                prepared[row] = pixels
        assert prepared is not None  # the signature lets no request of 0 rows through
        return prepared

    def arrays(self, images: Pixels, *, max_pixels: int = MAX_PIXELS) -> Pixels:
        """Transforms raw pixels, uint8 [n,H,W,3] or [n,H,W], as the training library transforms a picture of that size."""
        if self.keeps(*images.shape[1:3]):
            return images
        return np.stack([self._transform(image, max_pixels) for image in images])

    def keeps(self, height: int, width: int) -> bool:
        """True when a picture of this size passes through every step unchanged."""
        return all(step.becomes(height, width) == (height, width) for step in self.steps)

    def _transform(self, picture: Picture, max_pixels: int) -> Pixels:
        if isinstance(picture, np.ndarray) and self.keeps(*picture.shape[:2]):
            return picture
        for step in self.steps:
            picture = step.apply(picture, max_pixels)
        return np.asarray(picture)
