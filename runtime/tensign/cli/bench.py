"""tensign bench: load on a server, and what came of it."""

from __future__ import annotations

import asyncio
import glob
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from tensign.bench import campaign, plot, table
from tensign.bench.campaign import Watch
from tensign.bench.load import Load
from tensign.bench.report import Report
from tensign.bench.result import Result
from tensign.bench.session import Session, run
from tensign.cli.options import Device, EngineName, Python, Trust, console
from tensign.errors import InvalidConfig, TensignError

_SEARCH_S, _SWEEP_S = 3.0, 5.0  # a run of these, where --duration says nothing

_LOAD, _ASK, _SHOW = "Load", "What is asked", "What is shown"


def bench(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="host:port, an MLmodel directory to serve for the time, or a kept .json.")
    ],
    model: Annotated[str, typer.Option(help="Which model, where the server offers several.")] = "",
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight (closed loop).", rich_help_panel=_LOAD)] = 4,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Requests/s, Poisson arrivals (open loop): sent when due, whatever is answered.", rich_help_panel=_LOAD
        ),
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Over one stream instead of unary.", rich_help_panel=_LOAD)] = False,
    streams: Annotated[int, typer.Option(min=0, help="Over so many streams.", rich_help_panel=_LOAD)] = 0,
    rows: Annotated[int, typer.Option(min=1, help="Rows of one request.", rich_help_panel=_LOAD)] = 1,
    encoded: Annotated[
        bool, typer.Option("--encoded", help="Send the bundled photographs instead of raw tensors.", rich_help_panel=_LOAD)
    ] = False,
    images: Annotated[
        str | None, typer.Option(metavar="FOLDER|GLOB", help="Send these pictures, as they are.", rich_help_panel=_LOAD)
    ] = None,
    duration: Annotated[
        float | None, typer.Option(help="Seconds of each run.", show_default="10; 5 in a sweep or round", rich_help_panel=_LOAD)
    ] = None,
    requests: Annotated[
        int | None, typer.Option(min=1, help="End after so many instead; in a search: of each probe.", rich_help_panel=_LOAD)
    ] = None,
    warmup: Annotated[float, typer.Option(min=0, help="Seconds before it counts.", rich_help_panel=_LOAD)] = 1.0,
    warmup_requests: Annotated[int, typer.Option(min=0, help="And until so many were answered.", rich_help_panel=_LOAD)] = 0,
    timeout: Annotated[float, typer.Option(help="Deadline of each request, in seconds.", rich_help_panel=_LOAD)] = 60.0,
    seed: Annotated[int, typer.Option(help="Of arrivals and tensors.", rich_help_panel=_LOAD)] = 0,
    sweep: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="One run for each concurrency.", rich_help_panel=_ASK)
    ] = None,
    sweep_rates: Annotated[
        str | None, typer.Option(metavar="R,R,...", help="One run for each rate.", rich_help_panel=_ASK)
    ] = None,
    p99_under: Annotated[
        float | None, typer.Option(metavar="MS", help="Search the highest rate with a p99 under this.", rich_help_panel=_ASK)
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="TARGET2", help="Compare with this, in alternating rounds.", rich_help_panel=_ASK)
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Of a comparison.", rich_help_panel=_ASK)] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.", rich_help_panel=_SHOW)] = False,
    keep: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json", help="Keep the JSON; `tensign bench FILE.json --plot` draws it again.", rich_help_panel=_SHOW
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE.svg|png", help="Draw it; needs tensign\\[plot].", rich_help_panel=_SHOW),
    ] = None,
    device: Device = "auto",
    trust: Trust = False,
    engine: EngineName = "auto",
    python: Python = "",
) -> None:
    """Load a server, or find out how much load it bears: throughput, latencies, batch sizes, stage times.

    A latency counts from the moment a request was due. Exit code 1 where a request failed or the server died; what was
    measured until then is shown all the same.
    """
    if picture is not None:
        plot.check(picture)
    if target.endswith(".json"):
        _again(Path(target), picture)
        return
    if sum(choice is not None for choice in (sweep, sweep_rates, p99_under, against)) > 1:
        raise InvalidConfig("--sweep, --sweep-rates, --p99-under and --against exclude each other")
    several = any(choice is not None for choice in (sweep, sweep_rates, against))
    load = Load(
        concurrency=max(concurrency, streams) if rate is not None or sweep_rates or p99_under else concurrency,
        rate=rate,
        streams=streams or int(stream),
        rows=rows,
        encoded=encoded or images is not None,
        requests=requests,
        duration_s=duration or (_SEARCH_S if p99_under is not None else _SWEEP_S if several else 10.0),
        warmup_s=warmup,
        warmup_requests=warmup_requests,
        timeout_s=timeout,
        seed=seed,
    )
    loads = [load]
    if sweep is not None:
        loads = [replace(load, rate=None, concurrency=int(level)) for level in _levels("--sweep", sweep)]
    elif sweep_rates is not None:
        loads = [replace(load, rate=level) for level in _levels("--sweep-rates", sweep_rates)]
    pictures = _pictures(images) if load.encoded else []
    targets = [target] if against is None else [target, against]
    options = ["--device", device, "--engine", engine, "--python", python, *["--trust"] * trust]
    with ExitStack() as stack:
        named = [(_name(one, number, targets), _address(one, options, stack)) for number, one in enumerate(targets)]
        shown = stack.enter_context(_Shown(limit_ms=p99_under, quiet=as_json))

        async def work() -> Result:
            stop = asyncio.Event()
            _on_interrupt(stop)
            async with AsyncExitStack() as sessions:
                first, *others = [
                    await sessions.enter_async_context(Session(address, model=model, name=name, stop=stop))
                    for name, address in named
                ]
                if p99_under is not None:
                    return await campaign.search(first, load, p99_under, images=pictures, watch=shown.watch)
                if others:
                    return await campaign.compare(first, others[0], load, rounds, images=pictures, watch=shown.watch)
                return await campaign.sweep(first, loads, images=pictures, watch=shown.watch)

        result = run(work())
    document = result.document()
    if as_json:
        print(json.dumps(document, indent=2))
    else:
        _print(result)
    if keep is not None:
        keep.write_text(json.dumps(document, indent=2) + "\n")
    if picture is not None:
        plot.draw(document, picture)
    failed = list(table.errors(result))
    for line in failed:  # a search goes where requests fail
        print(f"{'error' if p99_under is None else 'note'}: {line}", file=sys.stderr)
    if result.stopped:
        print(f"error: {result.stopped}", file=sys.stderr)
    if result.stopped or (failed and p99_under is None):
        raise typer.Exit(1)


class _Shown:
    """A bar for the run under way, and a line for each that is done; both on stderr."""

    def __init__(self, *, limit_ms: float | None, quiet: bool) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("", total=1.0)
        self._limit_ms, self._quiet = limit_ms, quiet
        self.watch = Watch(self._progress, self._told)

    def __enter__(self) -> _Shown:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _progress(self, what: str, share: float) -> None:
        self._bar.update(self._task, description=what, completed=share)

    def _told(self, report: Report) -> None:
        if self._limit_ms is not None and not self._quiet:
            self._bar.console.print(table.verdict(report, self._limit_ms))


def _print(result: Result) -> None:
    if result.kind == "search":
        console.print(table.answer(result), soft_wrap=True)
    elif result.kind == "comparison":
        console.print(table.many(result.reports), "", table.ratios(result))
    elif len(result.reports) == 1:
        console.print(table.one(result.reports[0]))
    else:
        console.print(table.many(result.reports), "", table.stages(result.reports))
    for remark in table.remarks(result):
        console.print(f"note: {remark}", soft_wrap=True, highlight=False)


def _again(kept: Path, picture: Path | None) -> None:
    if picture is None:
        raise InvalidConfig(f"{kept}: a kept result can be drawn again; say --plot FILE")
    try:
        document: dict[str, Any] = json.loads(kept.read_text())
        plot.draw(document, picture)
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidConfig(f"{kept}: no result of tensign bench ({type(error).__name__}: {error})") from None


def _levels(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidConfig(f"{option}: wanted numbers with commas between them, got {text}") from None


def _pictures(chosen: str | None) -> list[bytes]:
    """The bundled photographs, those of a folder, or what a glob finds."""
    from tensign.demo import pictures

    if chosen is None:
        return [file.read_bytes() for file in pictures()]
    found = sorted(Path(chosen).iterdir()) if Path(chosen).is_dir() else [Path(name) for name in sorted(glob.glob(chosen))]
    files = [file for file in found if file.is_file()]
    if not files:
        raise InvalidConfig(f"--images: {chosen}: no file there")
    return [file.read_bytes() for file in files]


def _name(target: str, number: int, targets: Sequence[str]) -> str:
    name = Path(target).name if Path(target).is_dir() else target
    return f"{name} ({number + 1})" if len({Path(other).name for other in targets}) < len(targets) else name


def _address(target: str, options: Sequence[str], stack: ExitStack) -> str:
    from tensign.child import served

    if Path(target).is_dir():
        return stack.enter_context(served(Path(target), *options))
    if ":" not in target:
        raise TensignError(f"{target}: no such directory, and no host:port either")
    return target


def _on_interrupt(stop: asyncio.Event) -> None:
    """Ctrl-C ends the measuring, not the reporting; the second one ends both."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGINT, end)
