"""Which requests count."""

from __future__ import annotations

from dataclasses import dataclass

_NEVER = float("inf")


@dataclass(slots=True)
class Window:
    """The measured part of a run, on the clock of its samples, in seconds: requests that are due in start..end count.

    remaining: how many may still be sent, of those that count. Before `start` there is warm-up, which has no such limit.
    """

    start: float = _NEVER
    end: float = _NEVER
    remaining: float = _NEVER

    def open(self, now: float, requests: int | None, duration_s: float) -> None:
        """From now on it counts: so many requests, or, where that is None, for so long."""
        self.start = now
        if requests is None:
            self.end = now + duration_s
        else:
            self.remaining = requests

    def admits(self, due: float) -> bool:
        """True where a request that is due then is to be sent; it is counted."""
        if due >= self.end:
            return False
        if due >= self.start:
            if self.remaining < 1:
                return False
            self.remaining -= 1
        return True
