"""What `tensign bench` shows: the run under way on stderr, its result on stdout."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from tensign.bench import table
from tensign.bench.campaign import Watch
from tensign.bench.report import Report
from tensign.bench.result import Result
from tensign.cli.options import console


class Shown:
    """A bar for the run under way, and a line for each that is done; both on stderr."""

    def __init__(self, *, limit_ms: float | None, quiet: bool) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
        shown = sys.stderr.isatty()
        self._bar = Progress(*columns, console=Console(stderr=True, soft_wrap=True), transient=True, disable=not shown)
        self._task = self._bar.add_task("", total=1.0)
        self._limit_ms, self._quiet = limit_ms, quiet
        self.watch = Watch(self._progress, self._told, self._expected)

    def __enter__(self) -> Shown:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _progress(self, what: str, share: float) -> None:
        self._bar.update(self._task, description=what, completed=share)

    def _expected(self, sentence: str) -> None:
        self._bar.console.print(f"{sentence}; Ctrl-C tells what was found until then", highlight=False)

    def _told(self, report: Report) -> None:
        if self._limit_ms is not None and not self._quiet:
            self._bar.console.print(table.verdict(report, self._limit_ms))


def tables(result: Result) -> None:
    """What came of it, on stdout."""
    if result.kind == "search":
        console.print(table.answer(result), soft_wrap=True)
    elif result.kind == "comparison":
        console.print(table.legend(result), "", table.many(result.reports), "", table.ratios(result))
    elif len(result.reports) == 1:
        console.print(table.one(result.reports[0]))
    else:
        console.print(table.many(result.reports), "", table.stages(result.reports))
    for remark in table.remarks(result):
        console.print(f"note: {remark}", soft_wrap=True, highlight=False)
