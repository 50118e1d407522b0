"""What one client's flood, and one that reads none of its answers, cost a client of five requests a second.

    python benchmarks/neighbours.py [--rounds 5] [--seconds 8]    # three minutes; benchmarks/results/neighbours.json

flood: ResNet-18; h2load keeps 64 requests in flight on one connection. Wanted: the other's p99 is at most twice its p99 alone
plus the time of one batch. reader: an echo of 2.2 MB answers; a stream asks for 400 of them and reads none. Wanted: the
other's p99 stays, and the server holds only a window of them. Rounds alone and beside alternate; p99 is of all rounds together.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np

import h2load
import models
from tensign._pb import open_inference_pb2 as pb
from tensign.bench.machine import machine, versions
from tensign.child import served
from tensign.rpc.codec import encode_request

RESULTS = Path(__file__).parent / "results" / "neighbours.json"
SERVICE = "/inference.GRPCInferenceService/"
EVERY_S, IN_FLIGHT, UNREAD, UNREAD_ROWS = 0.2, 64, 400, 8


def message(model: str, rows: int = 1) -> bytes:
    """Of uint8 [rows,300,300,3]."""
    pictures = np.random.default_rng(0).integers(0, 256, (rows, 300, 300, 3), dtype=np.uint8)
    return encode_request(model, {"input-0": pictures}).SerializeToString()


class Client:
    """A connection of its own."""

    def __init__(self, address: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.aio.insecure_channel(address, options=options)

    async def trickle(self, body: bytes, seconds: float) -> list[float]:
        """Milliseconds of requests at even intervals, each from when it was due."""
        call: Any = self._channel.unary_unary(SERVICE + "ModelInfer")
        began = time.perf_counter()

        async def one(due: float) -> float:
            await asyncio.sleep(due - time.perf_counter())
            await call(body)
            return (time.perf_counter() - due) * 1e3

        return list(await asyncio.gather(*(one(began + at * EVERY_S) for at in range(int(seconds / EVERY_S)))))

    async def read_nothing(self, body: bytes) -> None:
        """Opens a stream, and reads one answer of all that it asks for."""

        async def requests() -> AsyncIterator[bytes]:
            for _ in range(UNREAD):
                yield body

        open_stream: Any = self._channel.stream_stream(SERVICE + "ModelStreamInfer")
        call = open_stream(requests())
        await call.read()
        await asyncio.Event().wait()

    async def batch_ms(self) -> float:
        """Mean time of a batch so far, by the server's statistics."""
        ask: Any = self._channel.unary_unary(SERVICE + "ModelStatistics")
        answer = await ask(b"")
        (model,) = pb.ModelStatisticsResponse.FromString(answer).model_stats
        return float(model.inference_stats.compute_infer.ns / max(model.execution_count, 1) / 1e6)


def resident_mb() -> float:
    """Of the one server that this process has started."""
    task = f"/proc/{os.getpid()}/task"
    (child,) = (pid for each in Path(task).iterdir() for pid in (each / "children").read_text().split())
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{child}/status").read_text())[0]) / 1e3


async def flooded(address: str, rounds: int, seconds: float) -> dict[str, Any]:
    body, alone, beside, rates = message("resnet18"), list[float](), list[float](), list[float]()
    other, cpus = Client(address), tuple(sorted(os.sched_getaffinity(0)))
    await other.trickle(body, 2)
    for _ in range(rounds):
        alone += await other.trickle(body, seconds)
        flood = asyncio.create_task(
            asyncio.to_thread(
                h2load.timed,
                address,
                h2load.grpc_request(body),
                concurrency=1,
                in_flight=IN_FLIGHT,
                seconds=seconds + 4,
                answer_bytes=1,
                cpus=cpus,
            )
        )
        await asyncio.sleep(2)  # until its requests fill the queue
        beside += await other.trickle(body, seconds)
        rates.append((await flood).requests_per_s)
    batch_ms = await other.batch_ms()
    found = {
        "alone_p99_ms": p99(alone),
        "beside_p99_ms": p99(beside),
        "batch_ms": batch_ms,
        "flood_per_s": float(np.median(rates)),
    }
    return {**found, "limit_ms": 2 * found["alone_p99_ms"] + batch_ms}


async def unread(address: str, rounds: int, seconds: float) -> dict[str, Any]:
    small, large = message("echo"), message("echo", UNREAD_ROWS)
    alone, beside, held = list[float](), list[float](), list[float]()
    other = Client(address)
    await other.trickle(small, 2)
    for _ in range(rounds):
        alone += await other.trickle(small, seconds)
        before = resident_mb()
        reader = asyncio.create_task(Client(address).read_nothing(large))
        await asyncio.sleep(2)
        beside += await other.trickle(small, seconds)
        held.append(resident_mb() - before)
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader
        await asyncio.sleep(0.5)
    return {"alone_p99_ms": p99(alone), "beside_p99_ms": p99(beside), "most_held_mb": max(held), "asked_for_mb": UNREAD * 2.16}


def p99(latencies: list[float]) -> float:
    return float(np.percentile(latencies, 99))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    asked = parser.parse_args()
    with served(models.make("resnet18"), "--device", "cpu") as address:
        flood = asyncio.run(flooded(address, asked.rounds, asked.seconds))
    print(
        f"p99 of 5/s to ResNet-18: alone {flood['alone_p99_ms']:.1f} ms, beside a flood of {flood['flood_per_s']:.0f}/s"
        f" {flood['beside_p99_ms']:.1f} ms; twice alone and a batch of {flood['batch_ms']:.1f} ms are {flood['limit_ms']:.1f}"
    )
    with served(models.make("echo"), "--device", "cpu") as address:
        reader = asyncio.run(unread(address, asked.rounds, asked.seconds))
    print(
        f"p99 of 5 requests/s to an echo: alone {reader['alone_p99_ms']:.1f} ms, beside a stream that reads nothing"
        f" {reader['beside_p99_ms']:.1f} ms; of {reader['asked_for_mb']:.0f} MB asked for the server held"
        f" {reader['most_held_mb']:.0f}"
    )
    document = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": versions(),
        "flood": flood,
        "reader": reader,
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
