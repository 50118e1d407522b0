"""tensign bench: load on a server, and what came of it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from tensign.bench import campaign, plot, table
from tensign.bench.course import INTERRUPTED
from tensign.bench.load import Load
from tensign.bench.result import Result
from tensign.bench.session import Session, run
from tensign.cli import checks
from tensign.cli.files import found
from tensign.cli.options import Device, EngineName, Python, Trust
from tensign.cli.shown import Shown, tables
from tensign.errors import InvalidConfig

_RUN_S, _SWEEP_S = 10.0, 5.0  # a run of these, where --duration says nothing
_INTERRUPTED = 130  # the exit code

# {one: what cannot apply beside it}
_EXCLUDED = {
    "rate": ["concurrency"],
    "sweep": ["concurrency", "rate"],
    "sweep_rates": ["concurrency", "rate"],
    "p99_under": ["concurrency"],
    "streams": ["stream"],
    "requests": ["duration"],
}

_LOAD, _ASK, _SHOW = "Load", "What is asked", "What is shown"


def bench(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="host:port, an MLmodel directory to serve for the time, or a result kept by --keep, to be drawn by --plot.",
        ),
    ],
    model: Annotated[str, typer.Option(help="Which model, where the server offers several.")] = "",
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight (closed loop).", rich_help_panel=_LOAD)] = 4,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Requests/s, Poisson arrivals (open loop): sent when due, whatever is answered. A search begins there.",
            rich_help_panel=_LOAD,
        ),
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Over one stream instead of unary.", rich_help_panel=_LOAD)] = False,
    streams: Annotated[int, typer.Option(min=1, show_default=False, help="Over so many streams.", rich_help_panel=_LOAD)] = 1,
    rows: Annotated[int, typer.Option(min=1, help="Rows of one request.", rich_help_panel=_LOAD)] = 1,
    encoded: Annotated[
        bool,
        typer.Option(
            "--encoded", help="Send encoded pictures instead of raw tensors: bundled ones, or --images.", rich_help_panel=_LOAD
        ),
    ] = False,
    images: Annotated[
        str | None,
        typer.Option(
            metavar="IMAGE|FOLDER|GLOB",
            help="Send these pictures, as they are; a folder with all below it.",
            rich_help_panel=_LOAD,
        ),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(
            help="Seconds of each run, round or probe.",
            show_default="10; 5 in a sweep or round; in a search, what 2,000 requests take",
            rich_help_panel=_LOAD,
        ),
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option(min=1, help="Requests of each run, round or probe, instead of its seconds.", rich_help_panel=_LOAD),
    ] = None,
    warmup: Annotated[float, typer.Option(help="Seconds before it counts.", rich_help_panel=_LOAD)] = 1.0,
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
            metavar="FILE.json",
            help="Keep the result as JSON in FILE.json; TARGET may later be that file, to draw it.",
            rich_help_panel=_SHOW,
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

    A latency counts from the moment a request was due. Exit code 1 where a request failed or the server died, 130 after
    Ctrl-C; what was measured until then is shown all the same.
    """
    given = checks.typed(context)
    kept = Path(target) if target.endswith(".json") and not Path(target).is_dir() else None
    _check(given, [target] if against is None else [target, against], kept)
    if picture is not None:
        plot.check(picture)
        checks.writable("--plot", picture)
    if kept is not None:
        _again(kept, picture)
        return
    if keep is not None:
        if keep.suffix != ".json":
            raise InvalidConfig(f"--keep: wanted a file that ends in .json, got {keep.name}")
        checks.writable("--keep", keep)
    for option, value in {"--rate": rate, "--duration": duration, "--timeout": timeout, "--p99-under": p99_under}.items():
        if value is not None:
            checks.number(option, value)
    searched, several = p99_under is not None, any(choice is not None for choice in (sweep, sweep_rates, against))
    by_streams = streams if "streams" in given else int(stream)
    load = Load(
        concurrency=concurrency if rate is None and not (searched or sweep_rates) else max(concurrency, by_streams),
        rate=rate,
        streams=by_streams,
        rows=rows,
        encoded=encoded or images is not None,
        requests=requests or (campaign.SAMPLES if searched and duration is None else None),
        duration_s=duration or (campaign.LEAST_PROBE_S if searched else _SWEEP_S if several else _RUN_S),
        warmup_s=checks.number("--warmup", warmup, zero=True),
        warmup_requests=warmup_requests,
        timeout_s=timeout,
        seed=seed,
    )
    loads = [load]
    if sweep is not None:
        loads = [replace(load, concurrency=int(level)) for level in checks.numbers("--sweep", sweep, whole=True)]
    elif sweep_rates is not None:
        loads = [replace(load, rate=level) for level in checks.numbers("--sweep-rates", sweep_rates)]
    pictures = _pictures(images) if load.encoded else []
    targets = [target] if against is None else [target, against]
    options = ["--device", device, "--engine", engine, "--python", python, *["--trust"] * trust]
    with ExitStack() as stack:
        named = [(_name(one, number, targets), _address(one, options, stack)) for number, one in enumerate(targets)]
        shown = stack.enter_context(Shown(limit_ms=p99_under, quiet=as_json))

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
        tables(result)
    if keep is not None:
        keep.write_text(json.dumps(document, indent=2) + "\n")
    if picture is not None:
        plot.draw(document, picture)
    failed = list(table.errors(result))
    for line in failed:  # a search goes where requests fail
        print(f"{'note' if searched else 'error'}: {line}", file=sys.stderr)
    if result.stopped == INTERRUPTED:
        print("interrupted: this is what was measured until then", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED)
    if result.stopped:
        print(f"error: {result.stopped}", file=sys.stderr)
    if result.stopped or (failed and not searched):
        raise typer.Exit(1)


def _check(given: dict[str, str], targets: Sequence[str], kept: Path | None) -> None:
    """Refuses the options that cannot apply beside the others, by their names."""
    asked = [name for name in ("sweep", "sweep_rates", "p99_under", "against") if name in given]
    if len(asked) > 1:
        raise InvalidConfig(f"{' and '.join(given[name] for name in asked)} exclude each other")
    if kept is not None:
        refuse = [name for name in given if name not in ("target", "picture")]
        checks.refuse(given, refuse, f"to {kept}, a kept result, which is only drawn again")
    for one, others in _EXCLUDED.items():
        if one in given:
            checks.refuse(given, others, f"with {given[one]}")
    if "against" not in given:
        checks.refuse(given, ["rounds"], "without --against")
    if not any(Path(target).is_dir() for target in targets):
        checks.refuse(given, ["device", "engine", "trust", "python"], "to a server that runs already")


def _again(kept: Path, picture: Path | None) -> None:
    if picture is None:
        raise InvalidConfig(f"{kept}: a kept result can be drawn again; say --plot FILE")
    try:
        document: dict[str, Any] = json.loads(kept.read_text())
        plot.draw(document, picture)
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidConfig(f"{kept}: no result of tensign bench ({type(error).__name__}: {error})") from None


def _pictures(chosen: str | None) -> list[bytes]:
    """The bundled photographs, or those that were chosen, as `tensign predict` finds them."""
    from tensign.proof.samples import photographs

    if chosen is None:
        return [file.read_bytes() for file in photographs()]
    try:
        return [Path(name).read_bytes() for name in found([chosen])]
    except OSError as error:
        raise InvalidConfig(f"--images: {error.filename}: {error.strerror}") from None


def _name(target: str, number: int, targets: Sequence[str]) -> str:
    name = Path(target).name if Path(target).is_dir() else target
    return f"{name} ({number + 1})" if len({Path(other).name for other in targets}) < len(targets) else name


def _address(target: str, options: Sequence[str], stack: ExitStack) -> str:
    from tensign.child import served

    if Path(target).is_dir():
        return stack.enter_context(served(Path(target), *options))
    if ":" not in target:
        raise InvalidConfig(f"{target}: no such directory, and no host:port either")
    return target


def _on_interrupt(stop: asyncio.Event) -> None:
    """Ctrl-C ends the measuring, not the reporting; the second one ends both."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGINT, end)
