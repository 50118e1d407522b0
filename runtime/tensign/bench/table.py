"""Results for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from tensign.bench.report import Report
from tensign.bench.result import Result
from tensign.bench.search import ALLOWED, Probe
from tensign.errors import DeadlineExceeded

STAGES = {"queue": "queue", "compute_input": "input", "compute_infer": "infer", "compute_output": "output"}
_LETTERS = ("A", "B")
_LEAST_ROUNDS = 3
_FIGURES = {"rows_per_s": "images/s", "p50_ms": "p50 ms", "p99_ms": "p99 ms"}


def one(report: Report) -> Table:
    """A single run, a line for each thing that is known of it."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    latency, generator = report.latency, report.generator
    table.add_row("load", f"{report.load}, {report.seconds:.1f} s")
    table.add_row("answered", f"{report.rows_per_s:,.1f} images/s; {latency.samples:,} of {report.requests:,} requests")
    named = {"mean": latency.mean, "p50": latency.p50, "p90": latency.p90, "p95": latency.p95}
    tail = {"p99": latency.p99, "p99.9": latency.p999, "max": latency.max}
    for label, values in (("latency ms", named), ("", tail)):
        table.add_row(label, "  ".join(f"{name} {_ms(value)}" for name, value in values.items()))
    if report.served is not None:
        sizes = sorted(report.served.batches.items(), key=lambda item: -item[0] * item[1])[:5]
        shares = ", ".join(f"{size} ({runs:,} times)" for size, runs in sorted(sizes))
        table.add_row(
            "batches", f"{report.served.mean_batch:.2f} rows on average" + (f"; most rows in: {shares}" if shares else "")
        )
        table.add_row("stages ms", "  ".join(f"{STAGES[stage]} {ms:.2f}" for stage, ms in report.served.stage_ms.items()))
    late = "late sends" if report.load.rate is not None else "late wake-ups"
    held = f"; {generator.held:,} requests waited in it" if generator.held else ""
    table.add_row("generator", f"{generator.cores:.2f} cores; {late} p99 {generator.late_p99_ms:.2f} ms{held}")
    return table


def many(reports: Sequence[Report]) -> Table:
    """Runs side by side, a row for each: what the client saw."""
    named, letters = _named(reports), _letters([report.target for report in reports])
    table = _table(named, "images/s", "p50 ms", "p95 ms", "p99 ms", "max ms", "samples", "errors")
    for report in reports:
        latency = report.latency
        times = (_ms(ms) for ms in (latency.p50, latency.p95, latency.p99, latency.max))
        name = letters[report.target] if named == "target" else report.load.level
        table.add_row(name, f"{report.rows_per_s:,.1f}", *times, f"{latency.samples:,}", f"{report.failed:,}")
    return table


def stages(reports: Sequence[Report]) -> Table:
    """The same runs: what the server did. No row where it does not tell."""
    table = _table(_named(reports), "rows of a batch", *(f"{stage} ms" for stage in STAGES.values()))
    for report in reports:
        if report.served is not None:
            times = (_ms(report.served.stage_ms[stage]) for stage in STAGES)
            table.add_row(report.load.level, f"{report.served.mean_batch:.2f}", *times)
    return table


def ratios(result: Result) -> Table:
    """A comparison: medians of the rounds, the median ratio, from where to where the rounds spread, and what that says."""
    table = _table("median", *_LETTERS, f"{_LETTERS[0]}/{_LETTERS[1]}", "of the rounds")
    table.add_column("")
    few = len(result.reports) < 2 * _LEAST_ROUNDS
    for figure, ratio in result.ratios.items():
        found = f"{_LETTERS[0]} is {'higher' if ratio.median > 1 else 'lower'}" if ratio.decided else "no measurable difference"
        spread = f"{ratio.low:.3f} .. {ratio.high:.3f}"
        verdict = "too few rounds to tell" if few else found
        table.add_row(_FIGURES[figure], _ms(ratio.first), _ms(ratio.second), f"{ratio.median:.3f}", spread, verdict)
    return table


def legend(result: Result) -> Text:
    """A comparison: which target is which, since a name may be longer than a column."""
    return Text("\n".join(f"{letter}  {session.name}" for letter, session in zip(_LETTERS, result.sessions, strict=False)))


def verdict(report: Report, limit_ms: float) -> Text:
    """One probe of a search, as a line."""
    probe = Probe(report.load.rate or 0.0, report.requests, report.misses(limit_ms), bool(report.limit))
    share = probe.misses / probe.requests if probe.requests else 1.0
    missed = f"{probe.misses:,} of {probe.requests:,} missed ({share:.2%})"
    said = Text(f"{probe.rate:10,.1f}/s  p99 {_ms(report.latency.p99):>8} ms  {missed}  ")
    if report.stopped:
        return said.append("broken off", style="yellow")
    said.append("kept" if probe.kept else "broken", style="green" if probe.kept else "red")
    return said.append("" if probe.kept or not report.limit else f", but {report.limit}", style="yellow")


def answer(result: Result) -> str:
    """What a search found, in a sentence."""
    found, goal = result.answer, f"p99 under {result.limit_ms:g} ms"
    if found is None or not found.finished:
        return f"the search for {goal} did not finish" + (f"; it held at {found.rate:,.1f}/s" if found and found.rate else "")
    samples = min(probe.requests for probe in found.probes)
    basis = f"at least {samples:,} requests a probe, of which {ALLOWED:.0%} may miss"
    whose = ", where the generator was at its own limit: the server may do more" if found.limited else ""
    if found.rate is None:
        return f"no rate held {goal}, not even {found.broke:,.2f} requests/s{whose} ({basis})"
    if found.broke is None:
        return f"{goal} held as far as {found.rate:,.1f} requests/s, and no rate was found that breaks it ({basis})"
    return f"{found.rate:,.1f} requests/s keep {goal}; {found.broke:,.1f}/s do not{whose} ({basis})"


def remarks(result: Result) -> Iterator[str]:
    """What has to be said beside the figures."""
    for session in result.sessions:
        yield from session.notes
    if taken_up := [report.reconnects for report in result.reports if report.reconnects.count]:
        count = sum(reconnects.count for reconnects in taken_up)
        why = taken_up[0].first
        yield f"{count:,} times a stream ended and was taken up again with what it left unanswered, the first: {why}"
    if result.answer and any(probe.requests * ALLOWED < 1 for probe in result.answer.probes):
        yield f"of a probe of fewer than {1 / ALLOWED:.0f} requests none may miss: --duration or --requests makes them longer"
    late = [report for report in result.reports if report.limit]
    if late and result.kind != "search":  # which says it of each probe
        worst = max(late, key=lambda report: report.generator.late_p99_ms)
        runs = f"in {len(late)} of {len(result.reports)} runs " if len(result.reports) > 1 else ""
        yield f"{runs}{worst.limit}: this may be the generator's limit, not the server's"


def errors(result: Result) -> Iterator[str]:
    """Each kind of error, how often, and the first one's text; not the deadlines of a search, which are its own."""
    kinds: dict[str, tuple[int, str]] = {}
    for report in result.reports:
        for kind, failures in report.errors.items():
            count, first = kinds.get(kind, (0, failures.first))
            kinds[kind] = (count + failures.count, first)
    if result.kind == "search":
        kinds.pop(DeadlineExceeded.__name__, None)
    total = sum(report.requests for report in result.reports)
    for kind, (count, first) in kinds.items():
        yield f"{count:,} of {total:,} requests failed with {kind}, the first: {first}"


def _letters(targets: Sequence[str]) -> dict[str, str]:
    return dict(zip(dict.fromkeys(targets), _LETTERS, strict=False))


def _named(reports: Sequence[Report]) -> str:
    """What tells the runs apart."""
    if len({report.target for report in reports}) > 1:
        return "target"
    return "in flight" if reports[0].load.rate is None else "offered"


def _table(first: str, *figures: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(first)
    for name in figures:
        table.add_column(name, justify="right")
    return table


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
