"""The course of one run: warm-up, the measured window, the last answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tensign.bench.latency import Latency
from tensign.bench.load import Load
from tensign.bench.report import Failures, Generator, Report
from tensign.bench.samples import Samples
from tensign.bench.sender import Sender, clock
from tensign.bench.server import Served
from tensign.bench.window import Window
from tensign.client import AsyncClient

INTERRUPTED = "interrupted"  # why it ended, where `stop` was set

_TICK_S = 0.1


class Course:
    """One run of `load`. Load is on from the first request of the warm-up to the last that counts, without a gap."""

    def __init__(self, client: AsyncClient, load: Load, messages: Sequence[bytes]) -> None:
        self._load = load
        self._samples, self._window = Samples(load.timeout_s), Window()
        self._sender = Sender(client, messages, load, self._samples, self._window)
        self._stopped = False
        self._ended, self._cpu_s = 0.0, 0.0

    async def run(
        self, statistics: Callable[[], Awaitable[Any]], stop: asyncio.Event, progress: Callable[[float], object]
    ) -> tuple[Any, Any]:
        """Until all that counts is answered, the server is of no use, or `stop` is set; what `statistics` gave at the two
        ends of the window.
        """
        load, window = self._load, self._window
        stopping = asyncio.create_task(stop.wait())
        sending: asyncio.Task[None] | None = None

        async def until(over: Callable[[], bool]) -> None:
            assert sending is not None
            while not (over() or sending.done() or stopping.done()):
                progress(self._share())
                await asyncio.wait({sending, stopping}, timeout=self._tick(), return_when=asyncio.FIRST_COMPLETED)

        try:
            if load.warmup_s or load.warmup_requests:
                begun, wanted = clock(), max(load.warmup_requests, 1)
                sending = asyncio.create_task(self._sender.run())
                await until(lambda: clock() - begun >= load.warmup_s and len(self._samples) >= wanted)
            before = await statistics()
            window.open(clock(), load.requests, load.duration_s)
            cpu_s = time.process_time()
            sending = sending or asyncio.create_task(self._sender.run())
            await until(lambda: clock() >= window.end)
            self._cpu_s, self._ended = time.process_time() - cpu_s, clock()
            after = await statistics()
            await until(lambda: False)
            self._stopped = not sending.done()
            if sending.done():
                sending.result()
        finally:
            tasks = [task for task in (stopping, sending) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        progress(self._share())
        return before, after

    def report(self, target: str, served: Served | None) -> Report:
        """What came of it, once it has run."""
        load, samples, start, end = self._load, self._samples, self._window.start, self._window.end
        if self._sender.broken is not None:
            end = max(min(end, self._sender.broken[0]), start)
        elif self._stopped:
            end = min(end, self._ended)
        latencies_ms = samples.latencies_ms(start, end)
        if end == float("inf"):  # so many requests, not so many seconds: it lasted as long as they took
            seconds = samples.last(start) - start
            answered = len(latencies_ms)
        else:
            seconds = end - start
            answered = samples.answered(start, end)
        reconnects = self._sender.reconnects
        errors = {kind: Failures(*found) for kind, found in samples.errors(start, end).items()}
        return Report(
            load=load,
            target=target,
            seconds=seconds,
            requests=len(latencies_ms) + sum(failures.count for failures in errors.values()),
            answered_per_s=answered / seconds if seconds else 0.0,
            latency=Latency.of(latencies_ms),
            errors=errors,
            served=served,
            generator=Generator(self._cpu_s / max(self._ended - start, 1e-9), samples.lag_p99_ms(), self._sender.held),
            stopped=self._why(),
            latencies_ms=latencies_ms,
            reconnects=Failures(len(reconnects), next(iter(reconnects), "")),
        )

    def _why(self) -> str:
        if self._sender.broken is None:
            return INTERRUPTED if self._stopped else ""
        since, why = self._sender.broken
        return f"{why} (after {max(since - self._window.start, 0):.1f} s)"

    def _share(self) -> float:
        if clock() < self._window.start:
            return 0.0
        if self._load.requests is not None:
            return 1 - self._window.remaining / self._load.requests  # of those sent
        return min((clock() - self._window.start) / self._load.duration_s, 1.0)

    def _tick(self) -> float:
        left = self._window.end - clock()
        return min(_TICK_S, left) if left > 0 else _TICK_S
