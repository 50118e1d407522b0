"""The pictures among a request's inputs, made into the pixels that the network gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.decode import Pictures, pictures
from tensign.errors import UndecodableImage
from tensign.preprocess import PreprocessSpec
from tensign.signature import Arrays
from tensign.specs import Spec, TensorSpec


@dataclass(frozen=True, slots=True)
class Images:
    """name: the input that takes pictures; preprocess: what is done to them, None where the engine does it all."""

    name: str
    preprocess: PreprocessSpec | None
    max_pixels: int

    @classmethod
    def ready(cls, name: str, preprocess: PreprocessSpec | None, max_pixels: int) -> Images:
        """With all compiled that the first request would else wait for."""
        if preprocess is not None:
            preprocess.prepare()
        return cls(name, preprocess, max_pixels)

    def becoming(self, specs: Sequence[Spec]) -> tuple[Spec, ...]:
        """A signature's inputs as they are once pictures are preprocessed."""
        if self.preprocess is None:
            return tuple(specs)
        size = self.preprocess.size
        return tuple(
            replace(spec, shape=(spec.shape[0], *size(*spec.shape[1:3]), *spec.shape[3:]))
            if isinstance(spec, TensorSpec) and spec.name == self.name
            else spec
            for spec in specs
        )

    def need_work(self, arrays: Arrays) -> bool:
        """Whether they are to be decoded or resized."""
        given = arrays[self.name]
        return given.dtype == object or (self.preprocess is not None and not self.preprocess.keeps(*given.shape[1:3]))

    def pixels(self, arrays: Arrays, size: Sequence[int], decoder: Pictures = pictures) -> npt.NDArray[Any]:
        """[n,...] as the engine wants them; size: height and width, -1 is any. Raises UndecodableImage, which names the row."""
        given, limit = arrays[self.name], self.max_pixels
        if self.preprocess is None:
            return _decoded(list(given), limit, decoder)
        if given.dtype != object:
            return self.preprocess.arrays(given, max_pixels=limit)
        height, width = size
        return self.preprocess.encoded(list(given), height=height, width=width, max_pixels=limit, decoder=decoder)


def size_of(pixels: npt.NDArray[Any]) -> int:
    """Bytes, also of those that are each of their own size."""
    return sum(item.nbytes for item in pixels) if pixels.dtype == object else pixels.nbytes


def _decoded(images: list[bytes], max_pixels: int, decoder: Pictures) -> npt.NDArray[Any]:
    """n encoded images -> object array [n] of uint8 [H,W,3], each of its own size. Raises UndecodableImage: names the row."""
    pixels = np.empty(len(images), object)
    decoded = decoder(images, max_pixels=max_pixels)
    for row in range(len(images)):
        try:
            pixels[row] = np.asarray(next(decoded))
        except UndecodableImage as error:
            raise UndecodableImage(f"row {row}: {error}") from None
    return pixels
