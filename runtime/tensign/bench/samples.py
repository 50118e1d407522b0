"""Every request of a run: when it was due, when it was answered, what came of it."""

from __future__ import annotations

from array import array
from collections import Counter

import numpy as np
import numpy.typing as npt

from tensign.errors import DeadlineExceeded, TensignError


class Samples:
    """Nothing is thrown away or averaged: 16 bytes for each answer. Times are seconds of one clock.

    A request that was answered later than `timeout_s` after it was due is an error.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._due, self._done = array("d"), array("d")
        self._failed: list[tuple[float, str]] = []
        self._texts: dict[str, str] = {}
        self._lags = array("d")

    def __len__(self) -> int:
        return len(self._due) + len(self._failed)

    def answer(self, due: float, done: float) -> None:
        """One request was answered."""
        if done - due > self._timeout_s:
            self.failure(due, DeadlineExceeded(f"answered after {done - due:.3g} s, {self._timeout_s:g} s were allowed"))
            return
        self._due.append(due)
        self._done.append(done)

    def failure(self, due: float, error: TensignError) -> None:
        """One request failed; the first text of each kind of error is kept."""
        kind = type(error).__name__
        self._failed.append((due, kind))
        self._texts.setdefault(kind, str(error))

    def lag(self, seconds: float) -> None:
        """How much later than it wanted to the generator woke up."""
        self._lags.append(seconds)

    def latencies_ms(self, start: float, end: float) -> npt.NDArray[np.float64]:
        """[n], from the moment each was due, of the answered requests that were due in start..end."""
        due, done = np.array(self._due), np.array(self._done)
        chosen = (due >= start) & (due < end)
        latencies: npt.NDArray[np.float64] = (done[chosen] - due[chosen]) * 1000
        return latencies

    def answered(self, start: float, end: float) -> int:
        """How many answers came in start..end, whenever they were due."""
        done = np.array(self._done)
        return int(((done >= start) & (done <= end)).sum())

    def errors(self, start: float, end: float) -> dict[str, tuple[int, str]]:
        """{kind: (how many, the first one's text)} of the failed requests that were due in start..end."""
        counts = Counter(kind for due, kind in self._failed if start <= due < end)
        return {kind: (count, self._texts[kind]) for kind, count in counts.most_common()}

    def last(self, start: float) -> float:
        """When the last answer came to a request that was due after `start`; `start` where there was none."""
        due, done = np.array(self._due), np.array(self._done)
        return float(done[due >= start].max(initial=start))

    def lag_p99_ms(self) -> float:
        """Of all wake-ups."""
        return float(np.percentile(np.array(self._lags), 99)) * 1000 if self._lags else 0.0
