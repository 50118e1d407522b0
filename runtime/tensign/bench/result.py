"""Everything that one command measured, and what it measured it with: enough to draw it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from tensign.bench.comparison import Ratio
from tensign.bench.machine import machine, versions
from tensign.bench.report import Report
from tensign.bench.search import Answer
from tensign.bench.session import Session

FORMAT = 1

_FIGURES: dict[str, Callable[[Report], float | None]] = {
    "rows_per_s": lambda report: report.rows_per_s,
    "p50_ms": lambda report: report.latency.p50,
    "p99_ms": lambda report: report.latency.p99,
}


@dataclass(slots=True)
class Result:
    """kind: run, sweep, search or comparison. sessions: the one target, or both. limit_ms, answer: of a search."""

    kind: str
    sessions: list[Session]
    reports: list[Report] = field(default_factory=list)
    limit_ms: float | None = None
    answer: Answer | None = None

    @property
    def stopped(self) -> str:
        """Why it ended before its time, "" where it did not."""
        return next((report.stopped for report in self.reports if report.stopped), "")

    @property
    def ratios(self) -> dict[str, Ratio]:
        """{figure: first target to second}, over the rounds that both finished and that have the figure."""
        if self.kind != "comparison":
            return {}
        first, second = (
            [report for report in self.reports if report.target == session.name and not report.stopped]
            for session in self.sessions
        )
        found = {}
        for name, figure in _FIGURES.items():
            rounds = [(figure(one), figure(other)) for one, other in zip(first, second, strict=False)]
            good = [(one, other) for one, other in rounds if one and other]
            if good:
                found[name] = Ratio.of([one for one, _ in good], [other for _, other in good])
        return found

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "machine": machine(),
            "targets": [session.document() for session in self.sessions],
            "reports": [report.document() for report in self.reports],
            "limit_ms": self.limit_ms,
            "answer": self.answer.document() if self.answer else None,
            "ratios": {name: asdict(ratio) for name, ratio in self.ratios.items()},
        }
