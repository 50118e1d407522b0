"""One server under load: what it says of itself, and the measurements of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict
from selectors import SelectSelector
from types import TracebackType
from typing import Any, Self, TypeVar

from tensign._pb import open_inference_pb2 as pb
from tensign.bench.latency import Latency
from tensign.bench.load import Load
from tensign.bench.messages import messages
from tensign.bench.report import Failures, Generator, Report
from tensign.bench.samples import Samples
from tensign.bench.sender import Sender, clock
from tensign.bench.server import Served
from tensign.bench.window import Window
from tensign.client import AsyncClient, ModelMetadata, ServerMetadata
from tensign.errors import ModelNotReady, TensignError

T = TypeVar("T")

_TICK_S = 0.1


class Session:
    """model: "" where the server offers one. name: what reports call the target. stop: set, it ends every measurement at once.

    notes: what the server cannot tell, each a sentence.
    """

    server: ServerMetadata
    metadata: ModelMetadata

    def __init__(self, address: str, *, model: str = "", name: str = "", stop: asyncio.Event | None = None) -> None:
        self.name = name or address
        self.notes: list[str] = []
        self._client = AsyncClient(address, model=model, retries=0)
        self._stop = stop or asyncio.Event()

    async def __aenter__(self) -> Self:
        """Raises tensign.errors where the server cannot be asked for the model."""
        try:
            self.metadata = await self._client.metadata()
            self.server = await self._client.server()
        except BaseException:
            await self._client.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    def document(self) -> dict[str, Any]:
        """For JSON: the server, the model and its contract."""
        tensors = {
            side: [{"name": spec.name, "dtype": str(spec.dtype), "shape": list(spec.shape)} for spec in specs]
            for side, specs in (("inputs", self.metadata.inputs), ("outputs", self.metadata.outputs))
        }
        told = ("versions", "platform", "device", "batch_sizes", "preprocess_sha256")
        model = {"name": self.metadata.name, **{name: getattr(self.metadata, name) for name in told}, **tensors}
        return {"name": self.name, "server": asdict(self.server), "model": model, "notes": self.notes}

    async def measure(
        self, load: Load, *, images: Sequence[bytes] = (), progress: Callable[[float], object] = lambda share: None
    ) -> Report:
        """One run. images: what `load.encoded` sends in turn. progress: called with the share that is done, 0 to 1.

        Raises InvalidInput where the model does not take what the load sends. A server that dies in the middle, a request
        that fails, a `stop`: all that is in the report.
        """
        samples, window = Samples(load.timeout_s), Window()
        async with AsyncClient(self._client.address, retries=0, timeout_s=load.timeout_s) as client:
            sender = Sender(client, messages(self.metadata, load, images), load, samples, window)
            running = asyncio.create_task(sender.run())
            stopping = asyncio.create_task(self._stop.wait())

            async def until(over: Callable[[], bool]) -> None:
                while not (over() or running.done() or stopping.done()):
                    progress(_share(load, window))
                    await asyncio.wait({running, stopping}, timeout=_tick(window), return_when=asyncio.FIRST_COMPLETED)

            try:
                begun = clock()
                await until(lambda: clock() - begun >= load.warmup_s and len(samples) >= _warm_after(load))
                before = await self._statistics(sender)
                cpu_s = time.process_time()
                window.start = clock()
                if load.requests is None:
                    window.end = window.start + load.duration_s
                else:
                    window.remaining = load.requests
                await until(lambda: clock() >= window.end)
                cpu_s, ended = time.process_time() - cpu_s, clock()
                after = await self._statistics(sender)
                await until(lambda: False)
                if running.done():
                    await running
            finally:
                for task in (running, stopping):
                    task.cancel()
                await asyncio.gather(running, stopping, return_exceptions=True)
            complete = sender.gone is None and not self._stop.is_set()
            end = ended if sender.gone is None else max(sender.gone[0], window.start)
            window.end = min(window.end, end) if load.requests is None or not complete else float("inf")
            latencies_ms = samples.latencies_ms(window.start, window.end)
            if load.requests is not None and complete:
                end, answered = samples.last(window.start), len(latencies_ms)
            else:
                end, answered = window.end, samples.answered(window.start, window.end)
            seconds = end - window.start
            errors = {kind: Failures(*found) for kind, found in samples.errors(window.start, window.end).items()}
            progress(1.0)
            return Report(
                load=load,
                target=self.name,
                seconds=seconds,
                requests=len(latencies_ms) + sum(failures.count for failures in errors.values()),
                answered_per_s=answered / seconds if seconds else 0.0,
                latency=Latency.of(latencies_ms),
                errors=errors,
                served=Served.between(before, after, self.metadata.name),
                generator=Generator(cpu_s / max(ended - window.start, 1e-9), samples.lag_p99_ms(), sender.held),
                stopped=_why(sender, window, complete),
                latencies_ms=latencies_ms,
            )

    async def _statistics(self, sender: Sender) -> list[pb.ModelStatistics]:
        """None of them where the server counts nothing, which is noted, or is gone."""
        if self.notes or sender.gone is not None:
            return []
        try:
            return await self._client.statistics()
        except TensignError as error:
            if not isinstance(error, ModelNotReady):
                self.notes.append(f"{self.name} gives no ModelStatistics ({error}): no batch sizes, no stage times")
            return []


def run(work: Coroutine[Any, Any, T]) -> T:
    """asyncio.run, on a loop whose sleeps end on time: epoll counts in milliseconds, select in microseconds."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(SelectSelector())) as runner:
        return runner.run(work)


def _warm_after(load: Load) -> int:
    return load.warmup_requests or int(load.warmup_s > 0)


def _tick(window: Window) -> float:
    return min(_TICK_S, max(window.end - clock(), 0)) if clock() < window.end else _TICK_S


def _share(load: Load, window: Window) -> float:
    if clock() < window.start:
        return 0.0
    if load.requests is not None:
        return 1 - window.remaining / load.requests  # of those sent
    return min((clock() - window.start) / load.duration_s, 1.0)


def _why(sender: Sender, window: Window, complete: bool) -> str:
    if complete:
        return ""
    if sender.gone is None:
        return "interrupted"
    since, text = sender.gone
    return f"the server went away after {max(since - window.start, 0):.1f} s: {text}"
