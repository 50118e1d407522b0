"""The step `decode`: JPEGs decoded on the GPU beside the CPU: how far apart their pixels are, and from which size it pays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

from gpu import device
from gpu.step import Absent, Cell, Task
from gpu.timing import rate_per_s
from tensign.config import MAX_PIXELS
from tensign.crossover import crossover, difference, grid, on_cpu
from tensign.decode import opened
from tensign.errors import ProviderUnavailable
from tensign.gpudecoding import MEAN, MOST
from tensign.nvimagecodec import NvImageCodec

_SIDES = (1, 2, 4, 6)  # of the grids of photographs that are timed
_SECONDS = 0.5


def cells(task: Task) -> Iterator[Cell]:
    """On a CPU by nvImageCodec's own decoder there, which shows that it runs."""
    decoder = cache(partial(_decoder, task))
    threads = device.cores()
    yield "difference", partial(_difference, decoder)
    for count in dict.fromkeys((threads, 1)):
        yield f"crossover, {count} threads", partial(_crossover, decoder, count)
    for side in _SIDES if task.on_gpu else _SIDES[:2]:
        encoded = grid(side)
        wide, high = opened(encoded, MAX_PIXELS).size
        yield f"{wide}x{high} by the CPU, {threads} threads", partial(_rate, lambda: on_cpu, encoded, threads)
        yield f"{wide}x{high} by the GPU, {threads} threads", partial(_rate, partial(_by, decoder), encoded, threads)


def _decoder(task: Task) -> NvImageCodec:
    try:
        return NvImageCodec(task.index if task.on_gpu else None)
    except ProviderUnavailable as reason:
        raise Absent(str(reason)) from None


def _by(decoder: Callable[[], NvImageCodec]) -> Callable[[bytes], Any]:
    opened = decoder()
    return lambda encoded: opened.decode([encoded])


def _difference(decoder: Callable[[], NvImageCodec]) -> dict[str, Any]:
    """Levels of 255: of any pixel, and in the mean of the worst picture."""
    found = difference(decoder())
    return {"most": found.most, "mean": found.mean, "allowed_most": MOST, "allowed_mean": MEAN}


def _crossover(decoder: Callable[[], NvImageCodec], threads: int) -> dict[str, Any]:
    pixels = crossover(decoder(), threads=threads, max_pixels=MAX_PIXELS)
    return {"threads": threads, "pays_from_pixels": "no size" if pixels is None else pixels}


def _rate(way: Callable[[], Callable[[bytes], Any]], encoded: bytes, threads: int) -> dict[str, Any]:
    decode = partial(way(), encoded)
    decode()
    return {"pictures_per_s": rate_per_s(decode, threads, _SECONDS), "file_bytes": len(encoded)}
