"""Load on a server from several processes at once, as `tensign bench` puts it there from one: Python clients cost cores."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from selectors import SelectSelector
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gpu import device
from tensign.bench.course import Course
from tensign.bench.latency import Latency
from tensign.bench.load import Load
from tensign.client import AsyncClient

_MOST = 8  # processes


class Generators:
    """Processes that are started once; as many as half of the cores, the others are the server's."""

    def __init__(self) -> None:
        self.count = max(1, min(_MOST, device.cores() // 2))
        self._pool = ProcessPoolExecutor(self.count, multiprocessing.get_context("spawn"), _begin)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._pool.shutdown()

    def measure(self, address: str, messages: Sequence[bytes], load: Load) -> dict[str, Any]:
        """Rates of all together, percentiles over all their requests. load: of all together; a stream of each where it has
        any. Raises RuntimeError where a request failed, or none was answered."""
        count = self.count if load.rate is not None else min(self.count, load.concurrency)
        parts = [
            replace(
                load,
                concurrency=max(1, load.concurrency // count),
                rate=None if load.rate is None else load.rate / count,
                streams=min(load.streams, 1),
                seed=number,
            )
            for number in range(count)
        ]
        seen = list(self._pool.map(_drive, [address] * count, [messages] * count, parts))
        if failed := [reason for _, _, reason in seen if reason]:
            raise RuntimeError(f"{len(failed)} of {count} generators: {failed[0]}")
        latency = Latency.of(np.concatenate([latencies for _, latencies, _ in seen]))
        if not latency.samples:
            raise RuntimeError(f"nothing was answered in {load.duration_s:g} s")
        return {
            "in_flight": load.concurrency if load.rate is None else None,
            "processes": count,
            "images_per_s": sum(rate for rate, _, _ in seen),
            "p50_ms": latency.p50,
            "p99_ms": latency.p99 or latency.max,
            "requests": latency.samples,
        }


def _begin() -> None:
    """One event loop for as long as the process lives: grpcio's asyncio keeps the first it sees."""
    global _loop
    _loop = asyncio.SelectorEventLoop(SelectSelector())  # whose sleeps end on time


_loop: asyncio.AbstractEventLoop


def _drive(address: str, messages: Sequence[bytes], load: Load) -> tuple[float, npt.NDArray[np.float64], str]:
    """(images/s, latencies in ms, what failed), of a server that need not tell anything of itself."""

    async def nothing() -> list[Any]:
        return []

    async def work() -> tuple[float, npt.NDArray[np.float64], str]:
        async with AsyncClient(address, retries=0) as client:
            course = Course(client, load, messages)
            await course.run(nothing, asyncio.Event(), lambda share: None)
        report = course.report(address, None)
        failed = next((f"{kind}: {failures.first}" for kind, failures in report.errors.items()), report.stopped)
        return report.rows_per_s, report.latencies_ms, failed

    return _loop.run_until_complete(work())
