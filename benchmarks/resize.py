"""Decoding a JPEG and resizing it, by Pillow and by tensign, on one thread: milliseconds, medians of alternating rounds.

python benchmarks/resize.py [--rounds 7]                         # half a minute; needs tensign[fast-resize]
"""

from __future__ import annotations

import argparse
import io
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import PIL.Image
from PIL.Image import Resampling

from tensign import resample
from tensign.decode import read
from tensign.proof.samples import photographs
from tensign.resample import Geometry, Pixels, by_pillow, resized

GEOMETRIES = (((480, 640), (300, 300)), ((1080, 1920), (224, 224)))
FILTERS = (Resampling.BILINEAR, Resampling.BICUBIC)
ROUND_S = 0.3


def photograph(high: int, wide: int) -> bytes:
    """A bundled photograph of that size, as a JPEG of quality 90."""
    buffer = io.BytesIO()
    with PIL.Image.open(photographs()[0]) as image:
        image.convert("RGB").resize((wide, high)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def pillow_decode(encoded: bytes) -> Pixels:
    """As a server without tensign does it."""
    return np.asarray(PIL.Image.open(io.BytesIO(encoded)).convert("RGB"))


def pillow_both(encoded: bytes, height: int, width: int, filter: Resampling) -> Pixels:
    """The same with Pillow's resize, and one copy fewer."""
    return np.asarray(PIL.Image.open(io.BytesIO(encoded)).convert("RGB").resize((width, height), filter))


def tensign_decode(encoded: bytes) -> Pixels:
    """As a request's row is decoded."""
    pixels = read(encoded, max_pixels=1 << 24)
    assert isinstance(pixels, np.ndarray)
    return pixels


def tensign_both(encoded: bytes, height: int, width: int, filter: Resampling) -> Pixels:
    """And resized."""
    return resized(tensign_decode(encoded), height, width, filter)


def milliseconds(works: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Of one call of each: the median of its rounds."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, took in zip(works, times, strict=True):
            begin, calls = time.perf_counter(), 0
            while time.perf_counter() - begin < ROUND_S:
                work()
                calls += 1
            took.append((time.perf_counter() - begin) / calls * 1e3)
    return [statistics.median(each) for each in times]


def main() -> int:
    """Prints a Markdown table; status 1 where the pixels are not Pillow's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds: int = parser.parse_args().rounds
    resample.prepare()
    print("| picture | filter | step | Pillow, ms | tensign, ms | times as fast |\n|---|---|---|---|---|---|")
    for ((high, wide), (height, width)), filter in itertools.product(GEOMETRIES, FILTERS):
        encoded, size = photograph(high, wide), (height, width, filter)
        decoded = tensign_decode(encoded)
        geometry = Geometry(decoded.shape, *size)
        for _ in range(3):  # the first is Pillow's, the second proves the kernels, the third is theirs
            made = resized(decoded, *size)
        if not np.array_equal(made, pillow_both(encoded, *size)):
            print(f"{geometry}: the pixels are not Pillow's", file=sys.stderr)
            return 1
        works: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "decode": (partial(pillow_decode, encoded), partial(tensign_decode, encoded)),
            "resize": (partial(by_pillow, decoded, geometry), partial(resized, decoded, *size)),
            "both": (partial(pillow_both, encoded, *size), partial(tensign_both, encoded, *size)),
        }
        for step, (pillow, ours) in works.items():
            before, after = milliseconds((pillow, ours), rounds)
            picture = f"{wide}x{high} to {width}x{height}"
            print(f"| {picture} | {filter.name.lower()} | {step} | {before:.2f} | {after:.2f} | {before / after:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
