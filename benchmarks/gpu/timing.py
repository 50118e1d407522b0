"""How long a call takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

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


def rate_per_s(call: Callable[[], object], threads: int, seconds: float) -> float:
    """Calls a second from so many threads at once."""
    until = time.perf_counter() + seconds

    def calls(_: int) -> int:
        done = 0
        while time.perf_counter() < until:
            call()
            done += 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        return sum(pool.map(calls, range(threads))) / (time.perf_counter() - began)
