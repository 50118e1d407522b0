"""What a server holds, sampled at rest between rounds of an hour's requests: it must be as much after as before."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import statistics
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from . import hour

# What may grow after the warm-up, both from the first third to the last and along a fitted line:
TOLERANCE = {
    "anonymous_kib": 8192,  # memory of no file; the allocators' own noise is some MiB
    "blocks": 5000,  # of Python's allocator
    "objects": 1000,  # that the collector knows, after a collection
    "tasks": 0,  # of asyncio, not done
    "descriptors": 0,
    "threads": 4,  # of the system; grpc's own come and go
    "python_threads": 4,  # pools grow to their fixed size
    "requests": 0,  # that a batcher has neither answered nor given up, or that wait for room
    "rows": 0,  # that a queue counts
}
ROUNDS = 18
AT_REST_WITHIN_S = 10.0
IN_A_ROUND_EVERY_S = 1.0

Sample = dict[str, int]


@dataclass(frozen=True, slots=True)
class Plan:
    """rounds of `requests` requests each, from `visitors` at once; the first `warm_up` rounds are not judged."""

    seed: int
    rounds: int = ROUNDS
    warm_up: int = 6
    requests: int = hour.REQUESTS // ROUNDS
    visitors: int = 16
    within_s: float = 900.0


@dataclass(slots=True)
class Report:
    """rest: what the server held before the first round and after each; busy: in between, with everybody at it."""

    plan: Plan
    rest: list[Sample] = field(default_factory=list)
    busy: list[Sample] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def growth(self) -> dict[str, float]:
        return growth(self.rest[self.plan.warm_up :])

    def troubles(self) -> list[str]:
        found = [f"{count} {kind}" for kind, count in self.wrong.items() if count]
        return found + grown(self.rest[self.plan.warm_up :])


def growth(samples: list[Sample]) -> dict[str, float]:
    """How much more of everything: the greater of last third against first third, and of a fitted line's ends."""
    third = max(len(samples) // 3, 1)
    found = {}
    for kind in TOLERANCE:
        values = [sample[kind] for sample in samples]
        ends = statistics.median(values[-third:]) - statistics.median(values[:third])
        line = np.polyfit(range(len(values)), values, 1)[0] * (len(values) - 1)
        found[kind] = round(max(ends, float(line)), 1)
    return found


def grown(samples: list[Sample]) -> list[str]:
    """What is not flat."""
    return [
        f"{kind} grew by {more:g}, {TOLERANCE[kind]} may: {[sample[kind] for sample in samples]}"
        for kind, more in growth(samples).items()
        if more > TOLERANCE[kind]
    ]


class Server:
    """The child that probe.py is."""

    def __init__(self, process: Process, address: str) -> None:
        self.address = address
        self._process = process
        self._asking = asyncio.Lock()

    async def held(self, *, rest: bool) -> Sample:
        """What it holds; at rest, after a garbage collection."""
        assert self._process.stdin is not None and self._process.stdout is not None
        async with self._asking:
            self._process.stdin.write(b"rest\n" if rest else b"busy\n")
            sample: Sample = json.loads(await self._process.stdout.readline())
            return sample

    def resident_kib(self) -> int:
        """What it holds by the system's account, which costs it nothing to tell."""
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize() // 1024

    async def at_rest(self, idle: Sample) -> Sample:
        """What it holds once it has noticed that everybody is gone; after some seconds, what it holds still."""
        until = time.monotonic() + AT_REST_WITHIN_S
        sample = await self.held(rest=True)
        while True:
            await asyncio.sleep(0.05)
            before, sample = sample, await self.held(rest=True)
            noticed = all(sample[kind] <= idle[kind] for kind in ("tasks", "requests", "rows"))
            if (noticed and sample["descriptors"] == before["descriptors"]) or time.monotonic() > until:
                return sample


@asynccontextmanager
async def probed(*models: Path) -> AsyncIterator[Server]:
    """Serves models in a child process that tells what it holds."""
    program = Path(__file__).with_name("probe.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", str(program), *map(str, models), stdin=PIPE, stdout=PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield Server(process, (await process.stdout.readline()).decode().strip())
    finally:
        process.stdin.close()
        await process.wait()


def run(plan: Plan, *models: Path) -> Report:
    """The whole of it, from a child process: grpc.aio wants one with no other event loop. Raises TimeoutError."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_here, plan, models).result()


def _here(plan: Plan, models: tuple[Path, ...]) -> Report:
    return asyncio.run(asyncio.wait_for(_run(plan, models), plan.within_s))


async def _run(plan: Plan, models: tuple[Path, ...]) -> Report:
    report = Report(plan)
    started = time.perf_counter()
    async with probed(*models) as server:
        report.rest.append(await server.held(rest=True))
        visitors = [hour.Visitor(server.address, number, plan.seed) for number in range(plan.visitors)]
        for _ in range(plan.rounds):
            watching = asyncio.create_task(_watch(server, report.busy))
            await asyncio.gather(*(visitor.visit(-(-plan.requests // plan.visitors)) for visitor in visitors))
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            gc.collect()  # calls that were given up hold their connections open from here until then
            report.rest.append(await server.at_rest(report.rest[0]))
        for visitor in visitors:
            report.seen += visitor.seen
            report.wrong += visitor.wrong
    report.seconds = time.perf_counter() - started
    return report


async def _watch(server: Server, samples: list[Sample]) -> None:
    while True:
        await asyncio.sleep(IN_A_ROUND_EVERY_S)
        samples.append(await server.held(rest=False))
