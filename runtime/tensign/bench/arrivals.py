"""When the requests of an open loop are due."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_CHUNK = 4096


def poisson(rate: float, seed: int) -> Iterator[float]:
    """Seconds from the start at which each request is due, without end; the same for the same seed."""
    random = np.random.default_rng(seed)
    at = 0.0
    while True:
        times = at + np.cumsum(random.exponential(1 / rate, _CHUNK))
        at = float(times[-1])
        yield from times.tolist()
