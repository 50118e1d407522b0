"""How fast batches have been: what cannot be answered in time is known before anything is spent on it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from tensign.buckets import Buckets
from tensign.errors import DeadlineExceeded
from tensign.request import Request

_DOUBTED_AFTER_S = 10.0


class Pace:
    """The shortest run of each bucket so far, at warm-up or since: a run that is slower for once refuses nobody later.

    A time is believed for some seconds after a run of its bucket; then it lets a run happen, which confirms or corrects it. So
    a warm-up that something disturbed refuses nobody for good. Times that are made up are never believed.
    """

    def __init__(self, buckets: Buckets, now: float) -> None:
        self._rows = buckets.rows
        self._seconds = list(buckets.seconds) if buckets.measured else []
        self._ran = [now] * len(buckets.rows)

    def check(self, rows: int, deadline: float, now: float, lanes: int = 1) -> None:
        """Raises DeadlineExceeded where so many rows come too late in whatever batches they run."""
        left_s = deadline - now
        if left_s <= 0:
            raise DeadlineExceeded("the deadline had passed when the request arrived")
        at = max(bisect_right(self._rows, rows) - 1, 0)
        needed_s = self._believed(at, now) * max(rows // (self._rows[-1] * lanes), 1)
        if left_s < needed_s:
            raise _too_slow(f"a request of {rows} rows", needed_s, left_s)

    def late(self, requests: list[Request], bucket: int, now: float) -> dict[Request, DeadlineExceeded]:
        """Those that have less time left than a batch of that bucket takes."""
        if not (needed_s := self._believed(self._at(bucket), now)):
            return {}
        what = f"a batch of {bucket} rows"
        left_s = {request: request.deadline - now for request in requests if request.deadline is not None}
        return {request: _too_slow(what, needed_s, left) for request, left in left_s.items() if left < needed_s}

    def ran(self, bucket: int, seconds: float, now: float) -> None:
        """One run of a bucket."""
        at = self._at(bucket)
        self._ran[at] = now
        if self._seconds and seconds < self._seconds[at]:
            self._seconds[at] = seconds

    def _at(self, bucket: int) -> int:
        return min(bisect_left(self._rows, bucket), len(self._rows) - 1)

    def _believed(self, at: int, now: float) -> float:
        return self._seconds[at] if self._seconds and now - self._ran[at] <= _DOUBTED_AFTER_S else 0.0


def _too_slow(what: str, needed_s: float, left_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"{what} needs about {needed_s * 1e3:.1f} ms and the request has {left_s * 1e3:.1f} left; allow it more time"
    )
