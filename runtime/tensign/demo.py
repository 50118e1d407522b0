"""The demo: real photographs over a real gRPC stream into the bundled model, and what it saw in them."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tensign.bench import Load, run
from tensign.child import served
from tensign.client import Client

BUNDLE = Path(__file__).parent / "_demo"
MODEL = BUNDLE / "efficientnet-lite0"
PICTURES = BUNDLE / "pictures"


def pictures() -> list[Path]:
    """The bundled photographs, of several sizes and formats."""
    return sorted(file for file in PICTURES.iterdir() if file.suffix in (".jpg", ".png", ".webp", ".bmp"))


def run_demo(console: Console, *, model: Path = MODEL, repeats: int = 20) -> None:
    """Serves `model` in a child process, streams every picture once, then `repeats` times more for the table.

    Raises ModelNotReady when the server does not start, and what is wrong with a picture.
    """
    files = pictures()
    started = time.perf_counter()
    with served(model) as address, Client(address) as client:
        console.print(f"ready at {address} after {time.perf_counter() - started:.1f} s: {_signature(client)}\n", soft_wrap=True)
        seen = Table("picture", "bytes", "label", "probability", box=None)
        for file, answer in zip(files, client.stream(files), strict=True):
            answer.checked()
            seen.add_row(file.name, f"{file.stat().st_size:,}", answer.label, f"{answer.scores[0]:.3f}")
        console.print(seen, "")
        figures = Table("stream of pictures", "images/s", "p50 ms", "p95 ms", "p99 ms", "mean batch", box=None)
        for concurrency in (1, 8):
            load = Load(requests=repeats * len(files), concurrency=concurrency, encoded=True, stream=True)
            report = run(client, load, images=[file.read_bytes() for file in files])
            figures.add_row(
                f"{concurrency} in flight",
                *(f"{figure:.1f}" for figure in (report.images_per_s, report.p50_ms, report.p95_ms, report.p99_ms)),
                f"{report.mean_batch:.1f}",
            )
        console.print(figures)
        sizes = ", ".join(map(str, client.metadata().batch_sizes))
        console.print(f"\nbatch sizes that pay on this machine, as warm-up measured them: {sizes}")


def _signature(client: Client) -> str:
    metadata = client.metadata()
    sides = (" ".join(map(str, side)) for side in (metadata.inputs, metadata.outputs))
    return f"{metadata.name} {' -> '.join(sides)} on {metadata.device}"
