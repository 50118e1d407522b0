"""One server under load: what it says of itself, and the measurements of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict
from selectors import SelectSelector
from types import TracebackType
from typing import Any, Self, TypeVar

from tensign._pb import open_inference_pb2 as pb
from tensign.bench.course import Course
from tensign.bench.load import Load
from tensign.bench.messages import messages
from tensign.bench.report import Report
from tensign.bench.server import Served
from tensign.client import AsyncClient, ModelMetadata, ServerMetadata
from tensign.errors import ModelNotFound, ModelNotReady, TensignError

T = TypeVar("T")

_ASKING_S = 10.0  # for what is no load


class Session:
    """model: "" where the server offers one. name: what reports call the target. stop: set, it ends every measurement at once.

    notes: what the server cannot tell, each a sentence.
    """

    server: ServerMetadata
    metadata: ModelMetadata

    def __init__(self, address: str, *, model: str = "", name: str = "", stop: asyncio.Event | None = None) -> None:
        self.name = name or address
        self.notes: list[str] = []
        self.client = AsyncClient(address, model=model, retries=0, timeout_s=_ASKING_S)
        self._stop = stop or asyncio.Event()

    async def __aenter__(self) -> Self:
        """Raises tensign.errors where the server cannot be asked for the model."""
        try:
            try:
                await self.client.model()
            except TensignError as error:
                if isinstance(error, ModelNotReady | ModelNotFound):
                    raise
                raise ModelNotFound(f"{self.client.address} does not tell what it serves ({error}): say --model") from None
            self.metadata = await self.client.metadata()
            self.server = await self.client.server()
        except BaseException:
            await self.client.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.close()

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
        async with AsyncClient(self.client.address, retries=0, timeout_s=load.timeout_s) as client:
            course = Course(client, load, messages(self.metadata, load, images))
            before, after = await course.run(self._statistics, self._stop, progress)
        return course.report(self.name, Served.between(before, after, self.metadata.name))

    async def _statistics(self) -> list[pb.ModelStatistics]:
        """None where the server counts nothing, which is noted, or is gone."""
        if self.notes:
            return []
        try:
            return await self.client.statistics()
        except TensignError as error:
            if not isinstance(error, ModelNotReady):
                self.notes.append(f"{self.name} gives no ModelStatistics ({error}): no batch sizes, no stage times")
            return []


def run(work: Coroutine[Any, Any, T]) -> T:
    """asyncio.run, on a loop whose sleeps end on time: epoll counts in milliseconds, select in microseconds."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(SelectSelector())) as runner:
        return runner.run(work)
