"""The `tensign` command. Options win over TENSIGN_* variables, those over defaults; resolved here and nowhere else."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import platformdirs
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Column, Table

from tensign import conversion
from tensign.bench import Load, Report, run
from tensign.classification import predictions
from tensign.client import Client
from tensign.config import ModelConfig, ServerConfig
from tensign.errors import InvalidConfig, TensignError, UnsupportedModel
from tensign.mlmodel import read_mlmodel
from tensign.model import Model
from tensign.plan import ModelPlan
from tensign.version import __version__

app = typer.Typer(
    name="tensign",
    help="Serves MLflow MLmodel directories of vision models over gRPC, driven by their tensor signature.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="An MLmodel directory.")]
Device = Annotated[
    str, typer.Option(envvar="TENSIGN_DEVICE", help="auto, cpu, cuda or cuda:N; auto is the GPU where there is one.")
]
Trust = Annotated[bool, typer.Option("--trust", help="Allow the model's own code to run: loading a pickle executes it.")]
MaxBatch = Annotated[int, typer.Option(envvar="TENSIGN_MAX_BATCH_SIZE", help="Largest batch that warm-up tries, in rows.")]
CacheDir = Annotated[
    Path,
    typer.Option(envvar="TENSIGN_CACHE_DIR", help="Where converted models are kept.", show_default="the user's cache folder"),
]
_CACHE = platformdirs.user_cache_path("tensign") / "models"


@app.command()
def serve(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="MLmodel directories.")],
    name: Annotated[
        list[str] | None, typer.Option(help="What to call each model, in order; else by its artifact path.")
    ] = None,
    host: Annotated[
        str, typer.Option(envvar="TENSIGN_HOST", help="Address to listen on; 0.0.0.0 for every interface.")
    ] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(envvar="TENSIGN_GRPC_PORT", help="0 takes a free one.")] = 8001,
    device: Device = "auto",
    trust: Trust = False,
    max_batch_size: MaxBatch = 64,
    timeout: Annotated[
        float, typer.Option(envvar="TENSIGN_TIMEOUT", help="Deadline of requests that bring none, in seconds.")
    ] = 60.0,
    cache_dir: CacheDir = _CACHE,
) -> None:
    """Serve models until SIGTERM or Ctrl-C, then drain."""
    if name and len(name) != len(models):
        raise InvalidConfig(f"--name: {len(name)} for {len(models)} MODEL; give one for each, or none")
    config = ModelConfig(device=device, max_batch_size=max_batch_size)
    server = ServerConfig(host=host, grpc_port=grpc_port, timeout_s=timeout)
    called = name or [read_mlmodel(path).name for path in models]
    if twice := {one for one in called if called.count(one) > 1}:
        raise InvalidConfig(f'two models are called "{min(twice)}"; give one another --name')
    loaded = [_load(path, one, config, trust=trust, cache=cache_dir) for path, one in zip(models, called, strict=True)]
    asyncio.run(_serve(loaded, server))


def _load(path: Path, name: str, config: ModelConfig, *, trust: bool, cache: Path) -> Model:
    try:
        return Model.load(conversion.servable(path, trust=trust, cache=cache), config, name=name)
    except TensignError as error:
        raise error if str(path) in str(error) else type(error)(f"{path}: {error}") from None


async def _serve(models: list[Model], config: ServerConfig) -> None:
    from tensign.repository import Repository
    from tensign.rpc.server import Server

    server = Server(Repository(models), config)
    stop = asyncio.Event()

    def drain() -> None:
        if stop.is_set():
            os._exit(130)  # asked twice: whoever asks does not want to wait
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, drain)
    await server.start()
    served = "; ".join(f"{model.name} {model.signature} on {model.device}" for model in models)
    print(f"tensign {__version__} ready: grpc://{config.bracketed_host}:{server.port} serves {served}", flush=True)
    await server.wait(stop)


@app.command()
def inspect(model: ModelPath, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show what an MLmodel directory holds, and what tensign makes of it."""
    from tensign.inspection import inspected

    facts = inspected(model)
    if as_json:
        print(json.dumps(facts, indent=2, default=str))
        return
    table = Table("", Column(overflow="fold"), box=None, show_header=False)
    for key, value in facts.items():
        table.add_row(f"[bold]{key}", escape(value if isinstance(value, str) else json.dumps(value, default=str)))
    console.print(table)


@app.command()
def predict(
    model: ModelPath,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures: JPEG, PNG, WebP, BMP.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    top: Annotated[int, typer.Option(min=1, help="Classes of each picture; a multi-label model: all above its threshold.")] = 3,
    device: Device = "auto",
    trust: Trust = False,
    cache_dir: CacheDir = _CACHE,
) -> None:
    """Classify pictures in this process, without a server."""
    directory = conversion.servable(model, trust=trust, cache=cache_dir)
    plan = ModelPlan.of(directory)
    if plan.image is None:
        raise UnsupportedModel(f"{model}: declares no preprocessing, so pictures cannot become its input {plan.signature}")
    loaded = _load(directory, "", ModelConfig(device=device, max_batch_size=1), trust=False, cache=cache_dir)
    failed = 0
    for image in images:
        try:
            pixels = np.array([image.read_bytes()], object)
            scores = loaded.infer({plan.image: pixels})[plan.signature.outputs[0].name]
            found = predictions(scores, scores.shape[-1] if plan.threshold is not None else top, plan.labels)[0]
        except (TensignError, OSError) as error:
            failed += 1
            text = error.strerror if isinstance(error, OSError) else str(error)
            print(json.dumps({"image": str(image), "error": text}) if as_json else f"{image}: error: {text}")
            continue
        if plan.threshold is not None:  # several labels may hold, or none
            found = [prediction for prediction in found if prediction.score > plan.threshold]
        if as_json:
            print(json.dumps({"image": str(image), "predictions": [asdict(prediction) for prediction in found]}))
        else:
            labels = ", ".join(f"{prediction.label} {prediction.score:.4f}" for prediction in found)
            print(f"{image}: {labels or f'no label above {plan.threshold}'}")
    loaded.close()
    if failed:
        raise typer.Exit(1)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="An MLmodel directory with a fastai flavor.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The directory to write; must not exist.")],
    trust: Trust = False,
    weights: Annotated[str, typer.Option(help="fp32, or fp16 for half the size: stored as fp16, computed as fp32.")] = "fp32",
) -> None:
    """Turn a model into an MLmodel directory with graph, preprocessing and proof, which MLflow opens too."""
    print(conversion.convert(source, target, trust=trust, weights=weights))


@app.command()
def demo() -> None:
    """Serve the bundled model and stream real photographs to it."""
    from tensign.demo import run_demo

    run_demo(console)


@app.command()
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


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not at once: a converter is ended too
    if show:
        print(f"tensign {__version__}")
        raise typer.Exit


def main() -> None:
    """Errors of ours, and the system's, are one line on stderr and exit code 2; anything else is a bug and shows its trace."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        app()
    except (TensignError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
