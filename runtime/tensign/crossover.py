"""How far another JPEG decoder's pixels are from the CPU's, and from how many pixels on it is faster: both measured here."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import PIL.Image

from tensign.config import MAX_PIXELS
from tensign.decode import Pixels, decode, read
from tensign.errors import ProviderUnavailable

SAMPLINGS = {"4:4:4": (1, 1), "4:2:2": (2, 1), "4:2:0": (2, 2)}  # of the chroma, with the factors that JPEG has for it
_PICTURES = Path(__file__).parent / "_demo" / "pictures"
_LARGE = ("china_640x427.jpg", "flower_progressive_640x427.jpg", "rocket_640x427.jpg")
_WIDTH, _HEIGHT = 640, 427
_SIDES = (6, 4, 3, 2, 1)  # of the grids that are timed
_ROUNDS = 3
_PAYS = 0.9  # of the CPU's time; for less nobody should have other pixels


class JpegDecoder(Protocol):
    """A second decoder, called from many threads at once."""

    def decode(self, encoded: Sequence[bytes]) -> list[Pixels | None]:
        """uint8 [H,W,3] of each, RGB, as it lies in the file; None of what it cannot decode."""


@dataclass(frozen=True, slots=True)
class Difference:
    """In levels of 255: the largest of any pixel, and the mean of the picture where that is largest."""

    most: int
    mean: float


def difference(decoder: JpegDecoder) -> Difference:
    """Over photographs of every sampling, baseline and progressive. Raises ProviderUnavailable where one is not decoded."""
    found = []
    for name, encoded in _samples():
        decoded = decoder.decode([encoded])[0]
        wanted = np.asarray(decode(encoded, max_pixels=MAX_PIXELS), np.int16)
        if decoded is None or decoded.shape != wanted.shape:
            got = "nothing" if decoded is None else f"pixels of shape {decoded.shape}"
            raise ProviderUnavailable(f"GPU decoding makes {got} of {name}: is nvJPEG there? pip install 'tensign[gpu-decode]'")
        apart = np.abs(decoded - wanted)
        found.append((int(apart.max()), float(apart.mean())))
    return Difference(max(most for most, _ in found), max(mean for _, mean in found))


def on_cpu(encoded: bytes) -> Any:
    """What the other decoder is compared with."""
    return read(encoded, max_pixels=MAX_PIXELS)


def crossover(
    decoder: JpegDecoder,
    *,
    threads: int,
    max_pixels: int,
    on_cpu: Callable[[bytes], Any] = on_cpu,
    clock: Callable[[], float] = time.perf_counter,
) -> int | None:
    """Pixels from which on it pays, None where it never does; with all threads at work, as under load.

    A CPU that decodes on every core may well be faster than a GPU that beats one of them.
    """
    found = None

    def on_gpu(encoded: bytes) -> Any:
        return decoder.decode([encoded])

    with ThreadPoolExecutor(threads) as pool:
        for side in _SIDES:
            if (pixels := side * side * _WIDTH * _HEIGHT) > max_pixels:
                continue
            work = [grid(side)] * threads
            took: dict[Callable[[bytes], Any], float] = {}
            for way in (on_cpu, on_gpu) * _ROUNDS:
                began = clock()
                list(pool.map(way, work))
                took[way] = min(took.get(way, float("inf")), clock() - began)
            if took[on_gpu] > _PAYS * took[on_cpu]:
                break
            found = pixels
    return found


def grid(side: int, **options: Any) -> bytes:
    """A JPEG of side x side photographs: as much detail for each pixel as a photograph has, which one made larger lacks."""
    tiles = _tiles()
    whole = PIL.Image.new("RGB", (side * _WIDTH, side * _HEIGHT))
    for place in range(side * side):
        down, across = divmod(place, side)
        whole.paste(tiles[(across + down) % len(tiles)], (across * _WIDTH, down * _HEIGHT))
    buffer = io.BytesIO()
    whole.save(buffer, "JPEG", **{"quality": 90, "subsampling": "4:2:0", **options})
    return buffer.getvalue()


@cache
def _tiles() -> list[PIL.Image.Image]:
    return [decode((_PICTURES / name).read_bytes(), max_pixels=MAX_PIXELS) for name in _LARGE]


def _samples() -> Iterator[tuple[str, bytes]]:
    for file in sorted(_PICTURES.glob("*.jpg")):
        yield file.name, file.read_bytes()
    for sampling in SAMPLINGS:
        for quality, progressive in ((50, True), (95, False)):
            name = f"a photograph of sampling {sampling} and quality {quality}"
            yield name, grid(1, subsampling=sampling, quality=quality, progressive=progressive)
