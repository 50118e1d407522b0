"""How long a call takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

_WARMUPS, _LEAST, _MOST = 2, 3, 200


def median_s(call: Callable[[], object], seconds: float) -> float:
    """The median of 3 to 200 calls, in about so many seconds."""
    for _ in range(_WARMUPS):
        call()
    took: list[float] = []
    while len(took) < _LEAST or (len(took) < _MOST and sum(took) < seconds):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return statistics.median(took)
