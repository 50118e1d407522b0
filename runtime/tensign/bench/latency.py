"""What a great many latencies come to, without pretending to know more than they show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

# Of the curve that a picture shows: dense in the tail.
_CURVE = (
    0,
    5,
    10,
    20,
    30,
    40,
    50,
    60,
    70,
    75,
    80,
    85,
    90,
    92.5,
    95,
    96,
    97,
    98,
    98.5,
    99,
    99.3,
    99.5,
    99.7,
    99.8,
    99.9,
    99.95,
    99.99,
)


@dataclass(frozen=True, slots=True)
class Latency:
    """Of `samples` answered requests, in milliseconds. Each percentile is one that was measured, not a mean of two.

    None where there are too few: a p99 wants 100, a p99.9 a thousand. curve: [percentile, ms] for drawing.
    """

    samples: int
    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    p999: float | None
    max: float | None
    curve: list[tuple[float, float]]

    @classmethod
    def of(cls, latencies_ms: npt.NDArray[np.float64]) -> Self:
        """latencies_ms: [n], in any order."""
        count = len(latencies_ms)
        ordered = np.sort(latencies_ms)

        def percentile(q: float) -> float | None:
            """The least that at least q percent of the samples do not exceed."""
            if not count or (count * (100 - q) < 100 - 1e-9 and q > 50):
                return None
            return float(ordered[max(math.ceil(round(count * q / 100, 6)) - 1, 0)])

        p50, p90, p95, p99, p999 = map(percentile, (50, 90, 95, 99, 99.9))
        mean, most = (float(ordered.mean()), float(ordered[-1])) if count else (None, None)
        curve = [(float(q), value) for q in _CURVE if (value := percentile(q)) is not None]
        return cls(count, mean, p50, p90, p95, p99, p999, most, curve)
