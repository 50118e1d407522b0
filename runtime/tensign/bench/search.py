"""The highest rate at which a server still keeps a promise: nearly all answers in time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

ALLOWED = 0.01  # of all requests may miss the limit: that is what a p99 says
SAMPLES = 2000  # of a probe: 20 misses decide, not one or two
PRECISION = 0.05
MAX_DOUBLINGS, MAX_HALVINGS = 20, 6
_HOPELESS = 5.0  # so many times the misses that are allowed need no second opinion


@dataclass(frozen=True, slots=True)
class Probe:
    """One run at `rate` requests/s. misses: errors, and answers that came too late. limited: the generator could not keep the
    schedule, so a miss may be its own.
    """

    rate: float
    requests: int
    misses: int
    limited: bool = False

    @property
    def kept(self) -> bool:
        """True where the promise held."""
        return self.requests > 0 and self.misses <= ALLOWED * self.requests

    @property
    def clear(self) -> bool:
        """True where chance cannot have decided: far too many misses, or far fewer than allowed."""
        allowed = ALLOWED * self.requests
        return self.misses > _HOPELESS * allowed or self.misses < allowed / _HOPELESS


@dataclass(slots=True)
class Answer:
    """rate: the highest that held, None where none did. broke: the lowest that did not, None where the search never found it.

    limited: it was the generator, not the server, that could not go further.
    """

    rate: float | None = None
    broke: float | None = None
    limited: bool = False
    probes: list[Probe] = field(default_factory=list)


async def highest_rate(
    measure: Callable[[float, int], Awaitable[Probe]],
    *,
    first: float,
    precision: float = PRECISION,
    told: Callable[[Probe], object] = lambda probe: None,
) -> Answer:
    """Doubles from `first` until the promise breaks (halves, where it breaks at once), then bisects to `precision`.

    measure(rate, seed) makes one probe. A verdict is the majority of up to three, each with arrivals of its own; a clear one,
    away from the answer, needs no second.
    """
    answer = Answer()

    async def probe(rate: float) -> Probe:
        found = await measure(rate, len(answer.probes))
        answer.probes.append(found)
        told(found)
        return found

    async def holds(rate: float, *, sure: bool) -> bool:
        votes = [await probe(rate)]
        while not (votes[0].clear and not sure) and abs(_balance(votes)) < 2 and len(votes) < 3:
            votes.append(await probe(rate))
        held = _balance(votes) > 0
        if held:
            answer.rate = rate if answer.rate is None else max(answer.rate, rate)
        else:
            answer.broke = rate if answer.broke is None else min(answer.broke, rate)
            answer.limited = any(vote.limited for vote in votes if not vote.kept)
        return held

    rate = first
    if await holds(rate, sure=False):
        for _ in range(MAX_DOUBLINGS):
            rate *= 2
            if not await holds(rate, sure=False):
                break
    else:
        for _ in range(MAX_HALVINGS):
            rate /= 2
            if await holds(rate, sure=False):
                break
    while answer.rate is not None and answer.broke is not None and answer.broke > answer.rate * (1 + precision):
        await holds((answer.rate * answer.broke) ** 0.5, sure=True)
    return answer


def _balance(votes: list[Probe]) -> int:
    return sum(1 if vote.kept else -1 for vote in votes)
