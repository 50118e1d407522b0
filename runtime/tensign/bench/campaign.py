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

SAMPLES = 2000  # of a probe: 20 misses decide, not one or two
LONGEST_PROBE_S = 60.0
_PATIENCE = 10  # times the limit; what is later is a miss all the same
_LEAST_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class Watch:
    """Whoever looks on. progress: what is running, and the share of it that is done, 0 to 1. told: each report."""

    progress: Callable[[str, float], object] = lambda what, share: None
    told: Callable[[Report], object] = lambda report: None


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

    It begins at `load.rate`, and where there is none at half of what one in flight reaches. A probe has `load.requests`
    requests or SAMPLES, and lasts at least `load.duration_s`, at most LONGEST_PROBE_S.
    """
    result = Result("search", [session], limit_ms=limit_ms)
    samples = load.requests or SAMPLES
    load = replace(load, requests=None, timeout_s=min(load.timeout_s, max(_PATIENCE * limit_ms / 1000, _LEAST_PATIENCE_S)))

    async def run(load: Load) -> Report:
        report = await session.measure(load, images=images, progress=partial(watch.progress, str(load)))
        result.reports.append(report)
        watch.told(report)
        return report

    async def probe(rate: float, seed: int) -> Probe | None:
        duration_s = min(max(samples / rate, load.duration_s), LONGEST_PROBE_S)
        report = await run(replace(load, rate=rate, seed=load.seed + seed, duration_s=duration_s))
        return None if report.stopped else Probe(rate, report.requests, report.misses(limit_ms), bool(report.limit))

    first = load.rate
    if first is None:
        alone = await session.measure(replace(load, concurrency=1, streams=min(load.streams, 1)), images=images)
        if alone.stopped or not alone.answered_per_s:
            result.reports.append(alone)
            return result
        first = alone.answered_per_s / 2
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
