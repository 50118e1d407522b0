"""Pillow's Image.resize of uint8 pixels, bit for bit, and about three times as fast where numba is installed."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Callable
from itertools import permutations
from threading import Lock
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL.Image import Resampling

from tensign.coefficients import FILTERS, Axis, coefficients, count

log = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]
Pass = tuple[int, Axis]  # over rows, 0, or columns, 1
Passes = tuple[Pass, ...]  # in their order; none where Pillow is to do it

_KEPT = 128  # geometries
_LARGEST = 1 << 15  # coefficients of one side, so that no pictures make the tables, with their bounds, more than 64 MB
_MAX_PIXELS = 1 << 24  # of a picture: its proof takes as much again three times


class Geometry(NamedTuple):
    """A picture's shape, [H,W,3] or [H,W], the height and width that it gets, and how."""

    shape: tuple[int, ...]
    height: int
    width: int
    filter: Resampling

    @property
    def sides(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows, then columns: how many there are and how many there will be."""
        return (self.shape[0], self.height), (self.shape[1], self.width)


class Kernels(Protocol):
    """The two passes, as tensign.kernels has them."""

    horizontal: Callable[..., None]
    vertical: Callable[..., None]


class Resampler:
    """Of each geometry Pillow resizes the first picture. The second is resized by Pillow and by the kernels, which must agree.

    by_pillow: what they must agree with. Where they ever do not, it resizes all that follow.
    """

    def __init__(self, kernels: Kernels, by_pillow: Callable[[Pixels, Geometry], Pixels]) -> None:
        self._kernels, self._by_pillow = kernels, by_pillow
        self._differs = False
        self._known: OrderedDict[Geometry, Passes | None] = OrderedDict()  # None: seen once; the latest are last
        self._lock = Lock()

    def resized(self, pixels: Pixels, geometry: Geometry) -> Pixels:
        """Safe to call from any number of threads."""
        if self._differs or not _suits(geometry):
            return self._by_pillow(pixels, geometry)
        with self._lock:
            first = geometry not in self._known
            passes = self._known.setdefault(geometry, None)
            self._known.move_to_end(geometry)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        if passes:
            return self._fast(pixels, passes)
        wanted = self._by_pillow(pixels, geometry)
        if passes is None and not first:
            passes = self._proven(pixels, geometry, wanted)
            with self._lock:
                if geometry in self._known:
                    self._known[geometry] = passes
        return wanted

    def proven(self, geometry: Geometry) -> bool:
        """Whether the kernels resize it from now on."""
        return not self._differs and bool(self._known.get(geometry))

    @property
    def known(self) -> int:
        """How many geometries are remembered."""
        return len(self._known)

    def _proven(self, pixels: Pixels, geometry: Geometry, wanted: Pixels) -> Passes:
        """The passes in the order in which this Pillow does them, which is a matter of its version and of the geometry."""
        sides = [
            (side, coefficients(before, after, geometry.filter))
            for side, (before, after) in enumerate(geometry.sides)
            if before != after
        ]
        orders = self._agreeing(list(permutations(sides)), pixels, wanted)
        if orders:  # of a picture of one colour nothing else can come
            noise = np.random.default_rng(0).integers(0, 256, geometry.shape, np.uint8)
            orders = self._agreeing(orders, noise, self._by_pillow(noise, geometry))
        if not orders:
            with self._lock:
                known, self._differs = self._differs, True
            if not known:
                log.warning("this Pillow resizes otherwise than expected (%s): from now on it resizes all pictures", geometry)
        return orders[0] if len(orders) == 1 else ()

    def _agreeing(self, orders: list[Passes], pixels: Pixels, wanted: Pixels) -> list[Passes]:
        return [passes for passes in orders if np.array_equal(self._fast(pixels, passes), wanted)]

    def _fast(self, pixels: Pixels, passes: Passes) -> Pixels:
        for side, (weights, bounds) in passes:
            high, wide, *rest = pixels.shape
            shape = (high, len(weights), *rest) if side else (len(weights), wide, *rest)
            source, out = pixels.reshape(high, -1), np.empty(shape, np.uint8)
            if side:
                self._kernels.horizontal(source, source.shape[1] // wide, weights, bounds, out.reshape(high, -1))
            else:
                self._kernels.vertical(source, weights, bounds, out.reshape(len(weights), -1))
            pixels = out
        return pixels


_preparing = Lock()
_resampler: Resampler | None = None


def prepare() -> None:
    """Compiles the kernels where numba is installed: once in a process, in a second where an earlier one left them on disk."""
    global _resampler
    with _preparing:
        if _resampler is not None:
            return
        try:
            from tensign import kernels
        except ModuleNotFoundError:
            return
        except Exception as error:  # of a numba that does not fit this Python, numpy or processor
            log.warning("numba does not work here, so Pillow resizes all pictures: %s", error)
            return
        _resampler = Resampler(kernels, by_pillow)


def resized(pixels: Pixels, height: int, width: int, filter: Resampling) -> Pixels:
    """[H,W,3] or [H,W] -> [height,width,...], another size, as Image.resize does: by Pillow until `prepare` is called."""
    geometry = Geometry(pixels.shape, height, width, filter)
    return by_pillow(pixels, geometry) if _resampler is None else _resampler.resized(pixels, geometry)


def by_pillow(pixels: Pixels, geometry: Geometry) -> Pixels:
    """The same by Pillow."""
    return np.asarray(PIL.Image.fromarray(pixels).resize((geometry.width, geometry.height), geometry.filter))


def _suits(geometry: Geometry) -> bool:
    """Whether there are pixels, the filter is known, and its coefficients are few enough to be kept."""
    filter = geometry.filter
    return (
        0 < math.prod(geometry.shape[:2]) <= _MAX_PIXELS
        and filter in FILTERS
        and all(count(before, after, filter) <= _LARGEST for before, after in geometry.sides)
    )
