"""The whole numbers by which Pillow multiplies pixels to resample them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL.Image import Resampling

Axis = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]  # weights [n,taps]; bounds [n,2]: first pixel, number of taps
Curve = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]

_ONE = 1 << 22


def _box(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)


def _bilinear(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    x = np.abs(x)
    return np.where(x < 1, 1.0 - x, 0.0)


def _bicubic(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


# How far it reaches, in pixels of the smaller picture, and its height there.
FILTERS: dict[Resampling, tuple[float, Curve]] = {
    Resampling.BOX: (0.5, _box),
    Resampling.BILINEAR: (1.0, _bilinear),
    Resampling.BICUBIC: (2.0, _bicubic),
}


def count(before: int, after: int, filter: Resampling) -> int:
    """How many `coefficients` gives."""
    return after * (math.ceil(FILTERS[filter][0] * max(before / after, 1.0)) * 2 + 1)


def coefficients(before: int, after: int, filter: Resampling) -> Axis:
    """Those of an axis of so many pixels. Each operation is in Pillow's order: what floats are rounded to depends on it."""
    reach, curve = FILTERS[filter]
    scale = before / after
    stretch = max(scale, 1.0)
    reach *= stretch
    centre = (np.arange(after) + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    number = np.minimum((centre + reach + 0.5).astype(np.int64), before) - first
    taps = np.arange(count(before, after, filter) // after)
    weights = curve((taps + first[:, None] - centre[:, None] + 0.5) * (1.0 / stretch))
    weights[taps >= number[:, None]] = 0.0
    total = np.cumsum(weights, axis=1)[:, -1:]  # one after the other, as np.sum does not add
    parts = weights / np.where(total == 0, 1.0, total) * _ONE
    whole = np.trunc(parts + np.where(parts < 0, -0.5, 0.5))
    return whole.astype(np.int32), np.stack([first, number], axis=1).astype(np.int32)
