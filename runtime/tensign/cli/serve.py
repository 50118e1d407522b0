"""tensign serve: models on a port, until they are told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from tensign.cli.options import CACHE, CacheDir, Device, EngineName, MaxBatch, Python, Trust, Variant, load
from tensign.cli.remarks import remarks
from tensign.config import MIB, ModelConfig, ServerConfig
from tensign.errors import InvalidConfig
from tensign.frontends.number import fitting
from tensign.ledger import Ledger
from tensign.mlmodel import read_mlmodel
from tensign.model import Model
from tensign.tuning import tune
from tensign.version import __version__

_HTTP_PORT = 8000  # as of Triton, whose 8001 gRPC's is


def serve(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="MLmodel directories.")],
    name: Annotated[
        list[str] | None, typer.Option(help="What to call each model, in order; else by its artifact path.")
    ] = None,
    host: Annotated[
        str, typer.Option(envvar="TENSIGN_HOST", help="Address to listen on; 0.0.0.0 for every interface.")
    ] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(envvar="TENSIGN_GRPC_PORT", help="0 takes a free one.")] = 8001,
    http_port: Annotated[
        int | None,
        typer.Option(
            envvar="TENSIGN_HTTP_PORT",
            help="Port of /invocations, /score and /ping; 0 takes a free one, as it is where gRPC's is 0.",
            show_default="8000",
        ),
    ] = None,
    http: Annotated[bool, typer.Option("--http/--no-http", envvar="TENSIGN_HTTP", help="Whether to answer HTTP.")] = True,
    device: Device = "auto",
    trust: Trust = False,
    engine: EngineName = "auto",
    variant: Variant = "fp32",
    accelerator: Annotated[
        str,
        typer.Option(
            envvar="TENSIGN_ACCELERATOR",
            help="Experimental: cuda-graphs, or of engine onnx tensorrt, both on CUDA; of engine torch compile.",
            show_default="none",
        ),
    ] = "",
    gpu_decoding: Annotated[
        bool,
        typer.Option(
            "--gpu-decoding",
            envvar="TENSIGN_GPU_DECODING",
            help="Experimental: decode large JPEGs on the model's GPU, where measured to be faster; pixels differ a little.",
        ),
    ] = False,
    python: Python = "",
    max_batch_size: MaxBatch = 64,
    device_memory: Annotated[
        int | None,
        typer.Option(
            envvar="TENSIGN_DEVICE_MEMORY",
            min=1,
            metavar="MIB",
            help="MiB of each GPU that all models together may take, where other processes want some of it.",
            show_default="all but a reserve",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(envvar="TENSIGN_TIMEOUT", help="Deadline of requests that bring none, in seconds.")
    ] = 60.0,
    max_connection_age: Annotated[
        float,
        typer.Option(
            envvar="TENSIGN_MAX_CONNECTION_AGE",
            help="Seconds after which clients have to connect again, so that a balancer can spread them; 0 is never.",
        ),
    ] = 0.0,
    shared_memory: Annotated[
        str,
        typer.Option(
            envvar="TENSIGN_SHARED_MEMORY",
            metavar="NAMES",
            help="Keys of system shared memory that clients may register, between commas; a star behind one for all that begin"
            " so. Whoever reaches the port may read and write them.",
            show_default="none",
        ),
    ] = "",
    cuda_shared_memory: Annotated[
        bool,
        typer.Option(
            "--cuda-shared-memory",
            envvar="TENSIGN_CUDA_SHARED_MEMORY",
            help="Let clients register CUDA shared memory; experimental, and for trusted clients only: one that dies at the"
            " wrong moment can take the GPU with it, for every model there, until the server is started again.",
        ),
    ] = False,
    front_ends: Annotated[
        int | None,
        typer.Option(
            envvar="TENSIGN_FRONT_ENDS",
            help="Processes that share the gRPC port, parse and decode; HTTP stays in the one that runs the models."
            " 0 does all of it there, which is best where the CPU runs a model.",
            show_default="where GPUs run all of them half of the cores, at most 8, else 0",
        ),
    ] = None,
    cache_dir: CacheDir = CACHE,
) -> None:
    """Serve models until SIGTERM or Ctrl-C, then drain."""
    if name and len(name) != len(models):
        raise InvalidConfig(f"--name: {len(name)} for {len(models)} MODEL; give one for each, or none")
    config = ModelConfig(
        device=device,
        max_batch_size=max_batch_size,
        engine=engine,
        variant=variant,
        accelerator=accelerator,
        cache_dir=str(cache_dir),
        trust=trust,
        python=python,
        gpu_decoding=gpu_decoding,
    )
    if http and http_port is None:
        http_port = _HTTP_PORT if grpc_port else 0
    server = ServerConfig(
        host=host,
        grpc_port=grpc_port,
        http_port=http_port if http else None,
        timeout_s=timeout,
        max_connection_age_s=max_connection_age,
        shared_memory=tuple(filter(None, (key.strip() for key in shared_memory.split(",")))),
        cuda_shared_memory=cuda_shared_memory,
        device_memory_bytes=None if device_memory is None else device_memory * MIB,
        front_ends=front_ends or 0,
    )
    called = name or [read_mlmodel(path).name for path in models]
    if twice := {one for one in called if called.count(one) > 1}:
        raise InvalidConfig(f'two models are called "{min(twice)}"; give one another --name')
    if front_ends and gpu_decoding:
        raise InvalidConfig("--front-ends: pictures are then decoded in processes without a GPU; leave --gpu-decoding out")
    ledger = Ledger(server.device_memory_bytes)
    loaded = [load(path, one, config, cache=cache_dir, ledger=ledger) for path, one in zip(models, called, strict=True)]
    for remark in remarks(loaded, config, server):
        print(f"remark: {remark}", file=sys.stderr)
    if front_ends is None and not (gpu_decoding or server.shares_memory):
        server = replace(server, front_ends=fitting((model.device for model in loaded), len(os.sched_getaffinity(0))))
    tune()
    asyncio.run(_serve(loaded, server))


async def _serve(models: list[Model], config: ServerConfig) -> None:
    from tensign.repository import Repository
    from tensign.server import Server

    server = Server(Repository(models), config)
    stop = asyncio.Event()

    def drain() -> None:
        if stop.is_set():
            os._exit(130)  # asked twice: whoever asks does not want to wait
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, drain)
    await server.start()
    served = "; ".join(f"{model.name} {model.signature} on {model.device}{_way(model)}{_taken(model)}" for model in models)
    also = f"; over HTTP too: http://{server.http_address}" if server.http_address else ""
    fronts = f" by {config.front_ends} front ends" if config.front_ends else ""
    print(f"tensign {__version__} ready: grpc://{server.grpc_address}{fronts} serves {served}{also}", flush=True)
    await server.wait(stop)


def _way(model: Model) -> str:
    """ " with engine torch, variant bf16", what is not the default."""
    said = {"engine": model.plan.choice.engine, "variant": model.config.variant, "accelerator": model.config.accelerator}
    told = [f"{what} {which}" for what, which in said.items() if which not in ("onnx", "fp32", "")]
    return f" with {', '.join(told)}" if told else ""


def _taken(model: Model) -> str:
    """ " (3100 MiB)", of each of its GPUs."""
    return f" ({', '.join(str(size // MIB) for size in model.memory.values())} MiB)" if model.memory else ""
