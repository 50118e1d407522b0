"""Which batch sizes to run: measured at warm-up, so that nobody has to tune them."""

from __future__ import annotations

import logging
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace

from tensign.errors import UnsupportedModel

log = logging.getLogger(__name__)

WORTHWHILE_GAIN = 1.05  # a bucket stays when it answers at least this much more rows a second than the best before it
_ENOUGH_RUNS, _ENOUGH_SECONDS = 5, 0.1


@dataclass(frozen=True, slots=True)
class Buckets:
    """Warmed batch sizes, ascending, and the seconds that one run of each takes.

    whole: a request is a batch of its own, of its own rows, as long as the one bucket holds them; its seconds are those of one
    row. measured: False where the seconds are made up.
    """

    rows: tuple[int, ...]
    seconds: tuple[float, ...]
    whole: bool = False
    measured: bool = True

    @property
    def largest(self) -> int:
        return self.rows[-1]

    def holding(self, rows: int) -> int:
        """The smallest bucket that holds so many rows, at most `largest`."""
        return rows if self.whole else self.rows[bisect_left(self.rows, rows)]

    def time(self, rows: int) -> float:
        """Seconds that so many rows take, at most `largest`, as far as was measured."""
        return self.seconds[bisect_left(self.rows, rows)]

    def below(self, bucket: int) -> Buckets:
        """Those of fewer rows."""
        kept = bisect_left(self.rows, bucket)
        return replace(self, rows=self.rows[:kept], seconds=self.seconds[:kept])

    def plan(self, waiting: int) -> tuple[int, int]:
        """(rows to take, bucket to run them in) for `waiting` rows: round up and pad, or leave some for the next batch?

        Whichever answers more rows a second by the measured times.
        """
        if self.whole:
            return min(waiting, self.largest), min(waiting, self.largest)
        above, below = bisect_left(self.rows, waiting), bisect_right(self.rows, waiting) - 1
        if above == len(self.rows):
            return self.largest, self.largest
        if below < 0 or waiting / self.seconds[above] >= self.rows[below] / self.seconds[below]:
            return waiting, self.rows[above]
        return self.rows[below], self.rows[below]


def measure(warmup: Callable[[int], object], run: Callable[[int], object], candidates: tuple[int, ...]) -> Buckets:
    """Calls `warmup(rows)` once, then times `run(rows)`, for each candidate while larger ones pay.

    On a GPU throughput grows with the batch for long; on a CPU a ResNet gains nothing, and memory does grow.
    """
    rows: list[int] = []
    seconds: list[float] = []
    for candidate in candidates:
        try:
            warmup(candidate)
        except Exception as error:
            if not rows or isinstance(error, UnsupportedModel):  # which no smaller batch makes better
                raise
            log.warning("a batch of %d rows fails, perhaps for lack of memory; %d stays the largest", candidate, rows[-1])
            break
        took = _best_time(run, candidate)
        wanted = WORTHWHILE_GAIN * max((r / s for r, s in zip(rows, seconds, strict=True)), default=0)
        if candidate / took < wanted:  # once more: a neighbour's noise must not decide for as long as the server lives
            took = min(took, _best_time(run, candidate))
        if candidate / took < wanted:
            break
        rows.append(candidate)
        seconds.append(took)
    return Buckets(tuple(rows), tuple(seconds))


def powers_of_two(largest: int) -> tuple[int, ...]:
    """1, 2, 4, ... and `largest` itself."""
    return (*(1 << n for n in range(largest.bit_length()) if 1 << n < largest), largest)


def _best_time(run: Callable[[int], object], rows: int) -> float:
    """The shortest of a few runs: what disturbs a run only makes it longer."""
    best, spent, runs = float("inf"), 0.0, 0
    while runs < _ENOUGH_RUNS and spent < _ENOUGH_SECONDS:
        started = time.perf_counter()
        run(rows)
        took = time.perf_counter() - started
        best, spent, runs = min(best, took), spent + took, runs + 1
    return best
