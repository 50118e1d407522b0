"""What one command asks for: a run, a sweep, the search for a rate, a comparison; all of them are several runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tensign.bench import comparison
from tensign.bench.load import Load
from tensign.bench.report import Report
from tensign.bench.result import Result
from tensign.bench.search import Probe, highest_rate
from tensign.bench.session import Session

SAMPLES, LEAST_PROBE_S = 2000, 3.0  # of a probe, where nobody says: 20 misses decide, not one or two
LONGEST_PROBE_S = 60.0
_PATIENCE = 10  # times the limit; what is later is a miss all the same
_LEAST_PATIENCE_S = 1.0
_PROBES = 8, 16  # as many as a search mostly takes


@dataclass(frozen=True, slots=True)
class Watch:
    """Whoever looks on. progress: what is running, and the share of it that is done, 0 to 1. told: each report. expected: how
    long it will take, in a sentence, before it is measured.
    """

    progress: Callable[[str, float], object] = lambda what, share: None
    told: Callable[[Report], object] = lambda report: None
    expected: Callable[[str], object] = lambda sentence: None


async def sweep(session: Session, loads: Sequence[Load], *, images: Sequence[bytes] = (), watch: Watch = Watch()) -> Result:
    """One run after the other; it ends early where a run does."""
    result = Result("sweep" if len(loads) > 1 else "run", [session])
    for load in loads:
        report = await session.measure(load, images=images, progress=partial(watch.progress, str(load)))
        result.reports.append(report)
        watch.told(report)
        if report.stopped:
            break
    return result


async def search(
    session: Session, load: Load, limit_ms: float, *, images: Sequence[bytes] = (), watch: Watch = Watch()
) -> Result:
    """The highest rate of the open loop `load` at which no more than one in a hundred misses `limit_ms`.

    It begins at `load.rate`, and where there is none at half of what one in flight reaches. A probe lasts `load.duration_s`;
    where `load.requests` is set, until so many were due, if that takes longer, but at most LONGEST_PROBE_S.
    """
    result = Result("search", [session], limit_ms=limit_ms)
    samples = load.requests or 0
    load = replace(load, requests=None, timeout_s=min(load.timeout_s, max(_PATIENCE * limit_ms / 1000, _LEAST_PATIENCE_S)))

    async def run(load: Load) -> Report:
        what = f"probe {len(result.reports) + 1}: {load.level}"
        report = await session.measure(load, images=images, progress=partial(watch.progress, what))
        result.reports.append(report)
        watch.told(report)
        return report

    def lasts_s(rate: float) -> float:
        return min(max(samples / rate, load.duration_s), max(load.duration_s, LONGEST_PROBE_S))

    async def probe(rate: float, seed: int) -> Probe | None:
        report = await run(replace(load, rate=rate, seed=load.seed + seed, duration_s=lasts_s(rate)))
        return None if report.stopped else Probe(rate, report.requests, report.misses(limit_ms), bool(report.limit))

    first = load.rate
    if first is None:
        one = replace(load, concurrency=1, streams=min(load.streams, 1))
        alone = await session.measure(one, images=images, progress=partial(watch.progress, "one in flight, to begin with"))
        if alone.stopped or not alone.answered_per_s:
            result.reports.append(alone)
            return result
        first = alone.answered_per_s / 2
    probe_s = lasts_s(first) + load.warmup_s
    shortest, longest = (_length(count * probe_s) for count in _PROBES)
    watch.expected(f"mostly {_PROBES[0]} to {_PROBES[1]} probes of about {_length(probe_s)} each: {shortest} to {longest}")
    result.answer = await highest_rate(probe, first=first)
    return result


async def compare(
    first: Session, second: Session, load: Load, rounds: int, *, images: Sequence[bytes] = (), watch: Watch = Watch()
) -> Result:
    """The same load on two targets, in alternating rounds; the ratios are of first to second."""
    sessions = (first, second)
    result = Result("comparison", list(sessions))
    for number, order in enumerate(comparison.order(rounds), 1):
        for session in (sessions[index] for index in order):
            progress = partial(watch.progress, f"round {number} of {rounds}: {session.name}")
            report = await session.measure(load, images=images, progress=progress)
            result.reports.append(report)
            watch.told(report)
            if report.stopped:
                return result
    return result


def _length(seconds: float) -> str:
    """For people."""
    return f"{seconds:.2g} s" if seconds < 99 else f"{seconds / 60:.0f} minutes"
