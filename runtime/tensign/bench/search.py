"""The highest rate at which a server still keeps a promise: nearly all answers in time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

ALLOWED = 0.01  # of all requests may miss the limit: that is what a p99 says
PRECISION = 0.05
_DOUBLINGS, _HALVINGS = 20, 6
_CLEAR = 5.0  # so many times more misses than allowed, or fewer, need no second opinion


@dataclass(frozen=True, slots=True)
class Probe:
    """One run at `rate` requests/s. misses: errors, and answers that came too late. limited: the generator could not keep the
    schedule, so that misses may be its own.
    """

    rate: float
    requests: int
    misses: int
    limited: bool = False

    @property
    def kept(self) -> bool:
        """True where the promise held."""
        return self.requests > 0 and self.misses <= ALLOWED * self.requests

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "kept": self.kept}

    @property
    def clear(self) -> bool:
        """True where chance cannot have decided."""
        allowed = ALLOWED * self.requests
        return self.misses > _CLEAR * allowed or self.misses < allowed / _CLEAR


@dataclass(slots=True)
class Answer:
    """rate: the highest that held, None where none did. broke: the lowest that did not, None where none was found.

    limited: what broke may have been the generator rather than the server. finished: False where a probe could not be made.
    """

    rate: float | None = None
    broke: float | None = None
    limited: bool = False
    finished: bool = False
    probes: list[Probe] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "probes": [probe.document() for probe in self.probes]}


async def highest_rate(
    measure: Callable[[float, int], Awaitable[Probe | None]], *, first: float, precision: float = PRECISION
) -> Answer:
    """Doubles from `first` until the promise breaks (halves, where it breaks at once), then bisects to `precision`.

    measure(rate, seed) makes one probe, None where that is no longer possible. A verdict is the majority of up to three, each
    with arrivals of its own; one that chance cannot have decided stands alone while doubling.
    """
    answer = Answer()
    try:
        rate = first
        if await _holds(answer, measure, rate, sure=False):
            for _ in range(_DOUBLINGS):
                rate *= 2
                if not await _holds(answer, measure, rate, sure=False):
                    break
        else:
            for _ in range(_HALVINGS):
                rate /= 2
                if await _holds(answer, measure, rate, sure=False):
                    break
        while answer.rate is not None and answer.broke is not None and answer.broke > answer.rate * (1 + precision):
            await _holds(answer, measure, (answer.rate * answer.broke) ** 0.5, sure=True)
        answer.finished = True
    except _Ended:
        pass
    return answer


async def _holds(answer: Answer, measure: Callable[[float, int], Awaitable[Probe | None]], rate: float, *, sure: bool) -> bool:
    votes: list[Probe] = []
    while len(votes) < 3 and abs(_balance(votes)) < 2:
        if (probe := await measure(rate, len(answer.probes))) is None:
            raise _Ended
        answer.probes.append(probe)
        votes.append(probe)
        if probe.clear and not sure and len(votes) == 1:
            break
    if held := _balance(votes) > 0:
        answer.rate = rate
    else:
        answer.broke = rate
        answer.limited = any(vote.limited for vote in votes if not vote.kept)
    return held


def _balance(votes: list[Probe]) -> int:
    return sum(1 if vote.kept else -1 for vote in votes)


class _Ended(Exception):
    """No further probe can be made."""
