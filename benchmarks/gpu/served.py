"""The step `served`: `tensign serve` behind gRPC beside a server that computes nothing, under the same load."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import h2load
import transport
from gpu import device, networks
from gpu.load import Generators
from gpu.step import OVER, Absent, Cell, Task
from tensign.bench.load import Load
from tensign.child import served
from tensign.errors import ModelNotReady
from tensign.proof.samples import photographs
from tensign.rpc.codec import encode_request

PRECISION = "fp16"
_SECONDS, _SECONDS_ON_CPU, _WARMUP_S = 1.5, 1.0, 0.7
_AT_LOAD, _AT_LOAD_S = 0.7, 5.0
_PROCESSES = re.compile(r"--(?:grpc-|server-)?(?:processes|workers|frontends)\b")


@dataclass(frozen=True, slots=True)
class Kind:
    """One way of sending pictures; levels: requests in flight; floor: whether the server that computes nothing gets it too."""

    name: str
    streams: int = 0
    rows: int = 1
    encoded: bool = False
    by_h2load: bool = False
    levels: tuple[int, ...] = (1, 16, 64, 256)
    floor: bool = True


KINDS = (
    Kind("raw, unary"),
    Kind("raw, stream", streams=1),
    Kind("raw, stream of 16 rows", streams=1, rows=16, levels=(1, 8, 16, 32)),
    Kind("raw, unary, h2load", by_h2load=True, levels=(16, 64)),
    Kind("encoded, unary", encoded=True, levels=(1, 64), floor=False),
    Kind("encoded, stream", streams=1, encoded=True, levels=(16, 64), floor=False),
)


def cells(task: Task) -> Iterator[Cell]:
    with Generators() as generators:
        floor = [kind for kind in KINDS if kind.floor]
        for mode in ("aio", "threads"):
            with transport.noop(mode) as address:
                for kind in floor:
                    level = _levels(task, kind)[-2:][0]
                    name = f"no-op server {mode}, {kind.name}, {level}"
                    yield name, partial(_measured, task, generators, address, "no-op", kind, level)
        for network in reversed(networks.names(task)[1:]):
            yield from _of(task, generators, network)
        yield "several server processes", partial(_several, task, generators)


def _of(task: Task, generators: Generators, network: str, *options: str, called: str = "") -> Iterator[Cell]:
    """Everything about one network, behind one server."""
    called = called or network
    if task.left_s < 0:
        yield f"{called}, served", partial(_not_served, task, network, OVER)
        return
    path = task.models / f"{network}-{PRECISION}"
    with contextlib.ExitStack() as stack:
        try:
            address = stack.enter_context(served(path, "--device", task.device, *options))
        except ModelNotReady as error:
            yield f"{called}, served", partial(_not_served, task, network, str(error))
            return
        best: dict[str, Any] = {}
        yield f"{called}, memory after warm-up", lambda: {"network": called, "bytes": device.taken_bytes(task.device)}
        for kind in KINDS:
            for level in _levels(task, kind):
                yield (
                    f"{called}, {kind.name}, {level}",
                    partial(_measured, task, generators, address, called, kind, level, best, network),
                )
        yield f"{called}, {_AT_LOAD:.0%} of the best load", partial(_at_load, task, generators, address, network, best)
        yield f"{called}, memory after the load", lambda: {"network": called, "bytes": device.taken_bytes(task.device)}


def _not_served(task: Task, network: str, reason: str) -> None:
    networks.directory(task, network, PRECISION)  # where it is not there, it says why
    raise Absent(reason)


def _levels(task: Task, kind: Kind) -> tuple[int, ...]:
    return kind.levels if task.on_gpu else kind.levels[:1]


def _measured(
    task: Task,
    generators: Generators,
    address: str,
    called: str,
    kind: Kind,
    level: int,
    best: dict[str, Any] | None = None,
    network: str = "resnet18",
) -> dict[str, Any]:
    sent = messages(f"{network}-{PRECISION}", kind)
    seconds = _SECONDS if task.on_gpu else _SECONDS_ON_CPU
    if kind.by_h2load:
        found = _by_h2load(address, sent[0], level, seconds)
    else:
        load = Load(concurrency=level, streams=kind.streams, rows=kind.rows, duration_s=seconds, warmup_s=_WARMUP_S)
        found = generators.measure(address, sent, load)
    if best is not None and not (kind.encoded or kind.by_h2load) and found["images_per_s"] > best.get("images_per_s", 0):
        best |= found | {"kind": kind}
    return {"network": called, "kind": kind.name, "level": level, **found}


def _by_h2load(address: str, message: bytes, level: int, seconds: float) -> dict[str, Any]:
    cpus = sorted(os.sched_getaffinity(0))
    try:
        request = h2load.grpc_request(message)
        load = h2load.timed(address, request, concurrency=level, seconds=seconds, answer_bytes=1, cpus=cpus)
    except RuntimeError as error:
        if "not installed" in str(error):
            raise Absent(str(error)) from None
        raise
    if not load.requests:
        raise RuntimeError(f"nothing was answered in {seconds:g} s")
    rate = {"images_per_s": load.requests_per_s, "p50_ms": load.p50_ms, "p99_ms": load.p99_ms, "requests": load.requests}
    return {"in_flight": level, "processes": 1, **rate}


def _at_load(task: Task, generators: Generators, address: str, network: str, best: dict[str, Any]) -> dict[str, Any]:
    """An open loop: requests arrive at random, whatever is answered."""
    if not best:
        raise Absent("no load was measured before it")
    kind: Kind = best["kind"]
    rate = _AT_LOAD * best["images_per_s"] / kind.rows
    seconds = _AT_LOAD_S if task.on_gpu else _SECONDS_ON_CPU
    streams = generators.count * kind.streams
    load = Load(concurrency=max(1, streams), rate=rate, streams=streams, rows=kind.rows, duration_s=seconds, warmup_s=_WARMUP_S)
    found = generators.measure(address, messages(f"{network}-{PRECISION}", kind), load)
    return {"network": network, "kind": kind.name, "share": _AT_LOAD, "requests_per_s": rate, **found}


def messages(model: str, kind: Kind) -> list[bytes]:
    if kind.encoded:
        pictures = [np.array([file.read_bytes()] * kind.rows, object) for file in photographs()]
    else:
        pictures = [networks.pieces(networks.SPEC, kind.rows)]
    return [encode_request(model, {"input-0": rows}).SerializeToString() for rows in pictures]


def _several(task: Task, generators: Generators) -> list[dict[str, Any]]:
    """Images/s of as many processes as are worth a try, where the server has such an option."""
    said = subprocess.run([sys.executable, "-m", "tensign", "serve", "--help"], capture_output=True, text=True, check=False)
    option = _PROCESSES.search(said.stdout)
    if option is None:
        raise Absent("`tensign serve` has no option for several processes")
    network = networks.names(task)[-1]
    networks.directory(task, network, PRECISION)
    found = []
    for count in [count for count in (2, 4, 8) if count <= device.cores()]:
        cells = _of(task, generators, network, option.group(), str(count), called=f"{network} by {count} processes")
        found += [measure() for name, measure in cells if "raw" in name and "h2load" not in name]
    return found
