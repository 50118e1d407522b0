"""Two targets under the same load, in alternating rounds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Ratio:
    """One figure of two targets: their medians over the rounds, and the ratio first/second of each round."""

    first: float
    second: float
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, first: Sequence[float], second: Sequence[float]) -> Self:
        """first, second: the figure of each round, both in the order of the rounds."""
        ratios = [one / other for one, other in zip(first, second, strict=True)]
        return cls(statistics.median(first), statistics.median(second), statistics.median(ratios), min(ratios), max(ratios))

    @property
    def decided(self) -> bool:
        """True where every round says the same: the spread does not reach 1."""
        return self.low > 1 or self.high < 1


def order(rounds: int) -> list[tuple[int, int]]:
    """Which target runs first, and which second, in each round: 0 1, 1 0, 0 1, ..., so that a drift harms both alike."""
    return [(0, 1) if number % 2 == 0 else (1, 0) for number in range(rounds)]
