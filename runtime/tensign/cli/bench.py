"""tensign bench: load on a server, and what came of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tensign.bench import Load, Report, run
from tensign.cli.options import Device, console
from tensign.client import Client
from tensign.errors import TensignError


def bench(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="host:port, or an MLmodel directory to serve for the time.")],
    model: Annotated[str, typer.Option(help="Which model, where the server offers several.")] = "",
    requests: Annotated[int, typer.Option(min=1)] = 500,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 4,
    rows: Annotated[int, typer.Option(min=1, help="Rows of one request.")] = 1,
    encoded: Annotated[bool, typer.Option("--encoded", help="Send encoded pictures instead of raw tensors.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="One bidirectional stream instead of unary calls.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    device: Device = "auto",
) -> None:
    """Load a server in a closed loop; report images/s, latencies, batch sizes, stage times."""
    from contextlib import ExitStack

    from tensign.child import served
    from tensign.demo import pictures

    with ExitStack() as stack:
        path = Path(target)
        if not path.is_dir() and ":" not in target:
            raise TensignError(f"{target}: no such directory, and no host:port either")
        address = stack.enter_context(served(path, "--device", device)) if path.is_dir() else target
        client = stack.enter_context(Client(address, model=model))
        load = Load(requests, concurrency, rows, encoded, stream)
        ticks = iter(track(range(requests), "sending", console=Console(stderr=True)))
        report = run(client, load, images=[file.read_bytes() for file in pictures()], progress=lambda _: next(ticks, None))
        next(ticks, None)
    if as_json:
        print(json.dumps(report.document(), indent=2))
    else:
        console.print(_report_table(report))
    if report.errors:
        print(f"error: {report.errors} of {requests} requests failed, the first: {report.first_error}", file=sys.stderr)
        raise typer.Exit(1)


def _report_table(report: Report) -> Table:
    table = Table(box=None, show_header=False)
    table.add_row("images/s", f"{report.images_per_s:.1f}")
    table.add_row("latency", f"p50 {report.p50_ms:.2f} ms, p95 {report.p95_ms:.2f} ms, p99 {report.p99_ms:.2f} ms")
    table.add_row("mean batch", f"{report.mean_batch:.2f} rows")
    table.add_row("on the server", ", ".join(f"{stage} {ms:.2f} ms" for stage, ms in report.stage_ms.items()))
    return table
