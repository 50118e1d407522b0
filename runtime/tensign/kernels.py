"""Pillow's two passes of resampling uint8, compiled when this is imported: on import, not in the first request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types

_BITS = 22  # of the fraction of a coefficient, as in Pillow
_ROWS = 64  # side by side in a block, so that one coefficient goes over all of them: 32 and 128 take longer

# numba makes int64 of int32 arithmetic that is not wrapped, and checks signed indices for counting from the end.
_i, _u = np.int32, np.uint64
_HALF, _SHIFT, _LEAST, _MOST = _i(1 << (_BITS - 1)), _i(_BITS), _i(0), _i(255)


_PIXELS = types.Array(types.uint8, 2, "A", readonly=True)  # any strides
_WEIGHTS, _OUT = types.int32[:, ::1], types.uint8[:, ::1]


def _compiled(*arguments: Any) -> Callable[[Callable[..., None]], Any]:
    def compiled(function: Callable[..., None]) -> Any:
        signature = types.void(*arguments)
        # Its cache is machine code beside this file, or in the user's cache folder, as Python keeps bytecode: whoever can write
        # there can change tensign itself.
        try:
            return numba.njit(signature, nogil=True, boundscheck=False, cache=True)(function)
        except RuntimeError:  # there is no folder to keep it in
            return numba.njit(signature, nogil=True, boundscheck=False)(function)

    return compiled


@_compiled(_PIXELS, types.uint64, _WEIGHTS, _WEIGHTS, _OUT)
def horizontal(source, channels, weights, bounds, out):  # type: ignore[no-untyped-def]
    """source [H,W*channels] -> out [H,w*channels]; weights [w,taps], bounds [w,2]: first pixel and number of taps."""
    rows, across = _u(source.shape[0]), _u(source.shape[1])
    block = channels * _u(_ROWS)
    turned = np.empty(across * _u(_ROWS), np.uint8)
    sums = np.empty(block, np.int32)
    for top in range(_u(0), rows, _u(_ROWS)):
        high = min(_u(_ROWS), rows - top)
        for at in range(across):
            for row in range(high):
                turned[at * _u(_ROWS) + row] = source[top + row, at]
        for x in range(_u(weights.shape[0])):
            first, taps = _u(bounds[x, _u(0)]), _u(bounds[x, _u(1)])
            for at in range(block):
                sums[at] = _HALF
            for tap in range(taps):
                weight, begin = weights[x, tap], block * (first + tap)
                for at in range(block):
                    sums[at] = _i(sums[at] + _i(turned[begin + at]) * weight)
            for channel in range(channels):
                for row in range(high):
                    value = sums[channel * _u(_ROWS) + row] >> _SHIFT
                    out[top + row, channels * x + channel] = min(max(value, _LEAST), _MOST)


@_compiled(_PIXELS, _WEIGHTS, _WEIGHTS, _OUT)
def vertical(source, weights, bounds, out):  # type: ignore[no-untyped-def]
    """source [H,across] -> out [h,across]; weights [h,taps], bounds [h,2]: first row and number of taps."""
    across = _u(source.shape[1])
    sums = np.empty(across, np.int32)
    for y in range(_u(weights.shape[0])):
        first, taps = _u(bounds[y, _u(0)]), _u(bounds[y, _u(1)])
        for x in range(across):
            sums[x] = _HALF
        for tap in range(taps):
            weight = weights[y, tap]
            for x in range(across):
                sums[x] = _i(sums[x] + _i(source[first + tap, x]) * weight)
        for x in range(across):
            out[y, x] = min(max(sums[x] >> _SHIFT, _LEAST), _MOST)
