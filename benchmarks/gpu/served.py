"""The step `served`: `tensign serve` behind gRPC beside a server that computes nothing, under the same load."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

import h2load
import transport
from gpu import device, networks, sharedmemory
from gpu.load import Generators
from gpu.step import OVER, Absent, Cell, Task
from tensign.bench.load import Load
from tensign.child import served
from tensign.errors import ModelNotReady
from tensign.proof.samples import photographs
from tensign.rpc.codec import encode_request

PRECISION = "fp16"
_SECONDS, _WARMUP_S = 1.2, 0.5
_AT_LOAD, _AT_LOAD_S = 0.7, 4.0
_FRONT_ENDS, _COUNTS = "--front-ends", (2, 4, 8)


@dataclass(frozen=True, slots=True)
class Kind:
    """One way of sending pictures; levels: requests in flight."""

    name: str
    streams: int = 0
    rows: int = 1
    encoded: bool = False
    by_h2load: bool = False
    levels: tuple[int, ...] = (1, 16, 64, 256)


KINDS = (
    Kind("raw, unary"),
    Kind("raw, stream", streams=1, levels=(16, 64, 256)),
    Kind("raw, stream of 16 rows", streams=1, rows=16, levels=(8, 32)),
    Kind("raw, unary, h2load", by_h2load=True, levels=(64,)),
    Kind("encoded, unary", encoded=True, levels=(1, 64)),
    Kind("encoded, stream", streams=1, encoded=True, levels=(64,)),
)
# With several front ends: enough to tell which number of them is the best.
FEW = (
    Kind("raw, unary", levels=(1, 64, 256)),
    Kind("raw, stream", streams=1, levels=(256,)),
    Kind("raw, stream of 16 rows", streams=1, rows=16, levels=(32,)),
    Kind("encoded, stream", streams=1, encoded=True, levels=(64,)),
)


@dataclass(slots=True)
class Target:
    """A server under load; network: what it serves, or is sent as if it did; called: what its figures are called after."""

    task: Task
    generators: Generators
    address: str
    network: str
    called: str
    best: dict[str, Any] = field(default_factory=dict)  # of raw pictures, so far

    def measured(self, kind: Kind, level: int) -> dict[str, Any]:
        sent = messages(f"{self.network}-{PRECISION}", kind)
        if kind.by_h2load:
            found = _by_h2load(self.address, sent[0], level)
        else:
            load = Load(concurrency=level, streams=kind.streams, rows=kind.rows, duration_s=_SECONDS, warmup_s=_WARMUP_S)
            found = self.generators.measure(self.address, sent, load)
        if not (kind.encoded or kind.by_h2load) and found["images_per_s"] > self.best.get("images_per_s", 0):
            self.best = found | {"kind": kind}
        return {"network": self.called, "kind": kind.name, "level": level, **found}

    def at_load(self) -> dict[str, Any]:
        """An open loop: requests arrive at random, whatever is answered."""
        if not self.best:
            raise Absent("no load was measured before it")
        kind: Kind = self.best["kind"]
        rate = _AT_LOAD * self.best["images_per_s"] / kind.rows
        seconds = _AT_LOAD_S if self.task.on_gpu else _SECONDS
        streams = self.generators.count * kind.streams
        load = Load(max(1, streams), rate, streams, kind.rows, duration_s=seconds, warmup_s=_WARMUP_S)
        found = self.generators.measure(self.address, messages(f"{self.network}-{PRECISION}", kind), load)
        return {"network": self.called, "kind": kind.name, "share": _AT_LOAD, "requests_per_s": rate, **found}

    def memory(self) -> dict[str, Any]:
        return {"network": self.called, "bytes": device.taken_bytes(self.task.device)}


def cells(task: Task) -> Iterator[Cell]:
    """Of front ends a few numbers are tried with the first network, the best of them with the others."""
    first, *others = reversed(networks.names(task)[1:])
    with Generators() as generators:
        for mode in ("aio", "threads"):
            with transport.noop(mode) as address:
                target = Target(task, generators, address, first, "no-op")
                for kind in KINDS:
                    level = _levels(task, kind)[-2:][0]
                    if not kind.encoded:
                        yield f"no-op server {mode}, {kind.name}, {level}", partial(target.measured, kind, level)
        offered = _FRONT_ENDS in _help()
        none = (_FRONT_ENDS, "0") if offered else ()
        rates = {0: (yield from _of(task, generators, first, 0, KINDS, *none))}
        if not offered:
            yield "front ends", partial(_absent, f"`tensign serve` has no option {_FRONT_ENDS} here")
        for count in (count for count in _COUNTS if offered and count <= max(2, device.cores() // 2)):
            rates[count] = yield from _of(task, generators, first, count, FEW, _FRONT_ENDS, str(count))
        yield from sharedmemory.cells(task, generators, first, PRECISION, *none)
        best = max(rates, key=lambda count: rates[count])
        for network in others:
            yield from _of(task, generators, network, 0, KINDS if not best else FEW, *none)
            if best:
                yield from _of(task, generators, network, best, FEW, _FRONT_ENDS, str(best))


def _of(
    task: Task, generators: Generators, network: str, fronts: int, kinds: Sequence[Kind], *options: str
) -> Generator[Cell, None, float]:
    """Everything about one network, behind one server; most images/s of raw pictures."""
    called = f"{network} by {fronts} front ends" if fronts else network
    with contextlib.ExitStack() as stack:
        try:
            if task.left_s < 0:
                raise Absent(OVER)
            path = networks.directory(task, network, PRECISION)
            address = stack.enter_context(served(path, "--device", task.device, *options))
        except (Absent, ModelNotReady) as reason:
            yield f"{called}, served", partial(_absent, str(reason))
            return 0.0
        target = Target(task, generators, address, network, called)
        yield f"{called}, memory after warm-up", target.memory
        for kind in kinds:
            for level in _levels(task, kind):
                yield f"{called}, {kind.name}, {level}", partial(target.measured, kind, level)
        yield f"{called}, {_AT_LOAD:.0%} of the best load", target.at_load
        yield f"{called}, memory after the load", target.memory
    return float(target.best.get("images_per_s", 0.0))


def _absent(reason: str) -> None:
    raise Absent(reason)


def _help() -> str:
    command = [sys.executable, "-P", "-m", "tensign", "serve", "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _levels(task: Task, kind: Kind) -> tuple[int, ...]:
    return kind.levels if task.on_gpu else (1,)


def messages(model: str, kind: Kind) -> list[bytes]:
    if kind.encoded:
        pictures = [np.array([file.read_bytes()] * kind.rows, object) for file in photographs()]
    else:
        pictures = [networks.pieces(networks.SPEC, kind.rows)]
    return [encode_request(model, {"input-0": rows}).SerializeToString() for rows in pictures]


def _by_h2load(address: str, message: bytes, level: int) -> dict[str, Any]:
    cpus = sorted(os.sched_getaffinity(0))
    try:
        request = h2load.grpc_request(message)
        load = h2load.timed(address, request, concurrency=level, seconds=_SECONDS, answer_bytes=1, cpus=cpus)
    except RuntimeError as error:
        if "not installed" in str(error):
            raise Absent(str(error)) from None
        raise
    if not load.requests:
        raise RuntimeError(f"nothing was answered in {_SECONDS:g} s")
    rate = {"images_per_s": load.requests_per_s, "p50_ms": load.p50_ms, "p99_ms": load.p99_ms, "requests": load.requests}
    return {"in_flight": level, "processes": 1, **rate}
