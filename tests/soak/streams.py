"""A thousand streams at once over a few connections, against ten at the same rate: all answers right, in order, in time."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import grpc
import numpy as np

from tensign._pb import open_inference_pb2 as pb
from tensign.rpc.codec import decode_response, encode_request

from .client import SERVICE, Stream
from .flatness import Server, probed
from .identity import answer_to, rows_of
from .models import WORK

P99_FACTOR = 1.5  # of ten streams' p99, that a thousand may take
GROWTH = 0.05  # of the server's memory after the first third
FEW = 10
SAMPLED_EVERY_S = 0.5
OPENED_PER_SECOND = 500.0  # streams; nobody sends before all are open
ROWS, WIDTH = 2, 8
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """per_second: requests of all streams together, at even intervals however many streams they are on, whether or not the
    ones before are answered.
    """

    seed: int
    streams: int = 1000
    connections: int = 8
    seconds: float = 60.0
    per_second: float = 400.0


@dataclass(slots=True)
class Report:
    """latencies_s: from the moment a request was due; memory_kib: what the server held, from time to time."""

    sent: int = 0
    latencies_s: list[float] = field(default_factory=list)
    memory_kib: list[int] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)

    def percentile_ms(self, percent: float) -> float:
        return round(float(np.percentile(self.latencies_s, percent)) * 1e3, 1) if self.latencies_s else 0.0

    def growth(self) -> float:
        """Of the last third against the second one, the first being warm-up."""
        third = max(len(self.memory_kib) // 3, 1)
        return round(statistics.median(self.memory_kib[-third:]) / statistics.median(self.memory_kib[third:-third]) - 1, 4)

    def troubles(self) -> list[str]:
        found = [f"{count} {kind}" for kind, count in self.wrong.items()]
        if len(self.latencies_s) != self.sent or not self.sent:
            found.append(f"{self.sent} requests were sent, {len(self.latencies_s)} answered right and in order")
        return found


def run(plans: list[Plan], model: Path) -> list[Report]:
    """One plan after another against one server, from a child process: grpc.aio wants one with no other event loop."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_here, plans, model).result()


def judged(few: Report, many: Report) -> list[str]:
    """What is wrong with many streams beside few."""
    found = few.troubles() + many.troubles()
    if many.percentile_ms(99) > P99_FACTOR * few.percentile_ms(99):
        found.append(f"p99 {many.percentile_ms(99)} ms, more than {P99_FACTOR} times the {few.percentile_ms(99)} ms of {FEW}")
    if many.growth() > GROWTH:
        found.append(f"memory grew by {many.growth():.1%}: {many.memory_kib}")
    return found


def _here(plans: list[Plan], model: Path) -> list[Report]:
    async def one_by_one() -> list[Report]:
        async with probed(model) as server:
            return [await _run(plan, server) for plan in plans]

    return asyncio.run(one_by_one())


async def _run(plan: Plan, server: Server) -> Report:
    report, random = Report(), np.random.default_rng(plan.seed)
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(server.address, options=options) for _ in range(plan.connections)]
    calls = [
        channel.stream_stream(
            SERVICE + "ModelStreamInfer", pb.ModelInferRequest.SerializeToString, pb.ModelStreamInferResponse.FromString
        )
        for channel in channels
    ]
    watching = asyncio.create_task(_watch(server, report))
    interval = plan.streams / plan.per_second
    opened_s = plan.streams / OPENED_PER_SECOND
    begins = time.perf_counter() + opened_s + random.permutation(plan.streams) / plan.per_second
    async with asyncio.timeout(opened_s + plan.seconds + interval + _PATIENCE_S), asyncio.TaskGroup() as group:
        for number in range(plan.streams):
            talk = _Talk(number, report, float(begins[number]), interval, max(round(plan.seconds / interval), 1))
            group.create_task(talk.hold(calls[number % plan.connections]))
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    for channel in channels:
        await channel.close()
    return report


async def _watch(server: Server, report: Report) -> None:
    while True:
        report.memory_kib.append(server.resident_kib())
        await asyncio.sleep(SAMPLED_EVERY_S)


class _Talk:
    """One stream: requests at even intervals, and their answers, each checked against what was asked."""

    def __init__(self, number: int, report: Report, begins: float, interval: float, requests: int) -> None:
        self._number, self._report = number, report
        self._due = [begins + interval * at for at in range(requests)]

    async def hold(self, call: Stream) -> None:
        report, answered = self._report, 0
        try:
            async for answer in call(self._requests()):
                response = answer.infer_response
                right = not answer.error_message and response.id == f"{self._number}/{answered}"
                if right and np.array_equal(decode_response(response)["answer"], answer_to(self._rows(answered), WORK)):
                    report.latencies_s.append(time.perf_counter() - self._due[answered])
                else:
                    report.wrong[f"wrong answers, such as {response.id} {answer.error_message}"] += 1
                answered += 1
        except grpc.aio.AioRpcError as error:
            report.wrong[f"streams ended by {error.code().name}: {error.details()}"] += 1

    async def _requests(self) -> AsyncIterator[pb.ModelInferRequest]:
        for at, due in enumerate(self._due):
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            self._report.sent += 1
            yield encode_request("identity", {"row": self._rows(at)}, request_id=f"{self._number}/{at}")

    def _rows(self, at: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        return rows_of(self._number % 256, (self._number // 256 << 16) + at, ROWS, WIDTH)
