"""The demo: real photographs over a real gRPC stream into the bundled model, and what it saw in them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tensign.bench.campaign import sweep
from tensign.bench.load import Load
from tensign.bench.report import Report
from tensign.bench.session import Session, run
from tensign.child import served
from tensign.client import Client
from tensign.proof.samples import photographs

BUNDLE = Path(__file__).parent / "_demo"
MODEL = BUNDLE / "efficientnet-lite0"
PICTURES = BUNDLE / "pictures"


def run_demo(console: Console, *, model: Path = MODEL, repeats: int = 20) -> None:
    """Serves `model` in a child process, streams every picture once, then `repeats` times more for the table.

    Raises ModelNotReady when the server does not start, and what is wrong with a picture.
    """
    files = photographs()
    started = time.perf_counter()
    with served(model) as address, Client(address) as client:
        console.print(f"ready at {address} after {time.perf_counter() - started:.1f} s: {_signature(client)}\n", soft_wrap=True)
        seen = Table("picture", "bytes", "label", "probability", box=None)
        for file, answer in zip(files, client.stream(files), strict=True):
            answer.checked()
            seen.add_row(file.name, f"{file.stat().st_size:,}", answer.label, f"{answer.scores[0]:.3f}")
        console.print(seen, "")
        figures = Table("stream of pictures", "images/s", "p50 ms", "p95 ms", "p99 ms", "mean batch", box=None)
        for report in run(_loaded(address, [file.read_bytes() for file in files], repeats)):
            latency = (report.latency.p50, report.latency.p95, report.latency.p99)
            figures.add_row(
                f"{report.load.concurrency} in flight",
                f"{report.rows_per_s:.1f}",
                *("-" if ms is None else f"{ms:.1f}" for ms in latency),
                f"{report.served.mean_batch:.1f}" if report.served else "-",
            )
        console.print(figures)
        sizes = ", ".join(map(str, client.metadata().batch_sizes))
        console.print(f"\nbatch sizes that pay on this machine, as warm-up measured them: {sizes}")


def _signature(client: Client) -> str:
    metadata = client.metadata()
    sides = (" ".join(map(str, side)) for side in (metadata.inputs, metadata.outputs))
    return f"{metadata.name} {' -> '.join(sides)} on {metadata.device}"


async def _loaded(address: str, images: Sequence[bytes], repeats: int) -> list[Report]:
    """Every picture `repeats` times, one in flight and then eight."""
    load = Load(streams=1, encoded=True, requests=repeats * len(images), warmup_s=0.2)
    async with Session(address) as session:
        result = await sweep(session, [replace(load, concurrency=concurrency) for concurrency in (1, 8)], images=images)
    return result.reports
