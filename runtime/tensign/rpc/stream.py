"""One stream of requests and their answers, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial

from tensign._pb import open_inference_pb2 as pb
from tensign.errors import TensignError
from tensign.rpc.budget import Budget
from tensign.rpc.codec import parse

# Requests of one stream that may be on their way at once, and bytes of them and of answers that nobody has read yet. A
# reader that stops reading stops its own stream here.
WINDOW = 64
WINDOW_BYTES = 64 << 20

Respond = Callable[[pb.ModelInferRequest], AsyncGenerator[pb.ModelStreamInferResponse, None]]


@dataclass(slots=True, eq=False)
class _Owed:
    """One request that was read. answers: its parts, then None."""

    bytes: int
    answers: asyncio.Queue[pb.ModelStreamInferResponse | None] = field(default_factory=asyncio.Queue)
    task: asyncio.Task[None] | None = None


class Stream:
    """Reads ahead of the answers by at most a window, so that requests of one stream share batches.

    respond: gives the answers to one request, errors among them; it never raises.
    """

    def __init__(self, respond: Respond, budget: Budget) -> None:
        self._respond = respond
        self._budget = budget
        self._owed: asyncio.Queue[_Owed | None] = asyncio.Queue()
        self._count, self._held = 0, 0
        self._freed = asyncio.Event()
        self._answer_bytes = 0  # of the largest answer so far, which the next ones are expected to have too
        self._reader: asyncio.Task[None] | None = None
        self._reason: TensignError | None = None

    def end(self, reason: TensignError) -> None:
        """Reads no further; what was read is answered, then the stream ends with `reason`."""
        self._reason = self._reason or reason
        if self._reader is not None:
            self._reader.cancel()

    async def answers(self, messages: AsyncIterator[bytes]) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        """Raises what reading raised, InvalidInput for a message that is none, and the reason given to `end`."""
        self._reader = asyncio.create_task(self._read(messages))
        self._reader.add_done_callback(lambda _: self._owed.put_nowait(None))
        owed: _Owed | None = None
        try:
            while (owed := await self._owed.get()) is not None:
                while (answer := await owed.answers.get()) is not None:
                    yield answer
                self._count -= 1
                self._held -= owed.bytes
                self._freed.set()
            if self._reason is not None:
                raise self._reason
            self._reader.result()  # raises what reading raised
        finally:
            self._reader.cancel()
            while owed is not None:
                if owed.task is not None:
                    owed.task.cancel()
                owed = None if self._owed.empty() else self._owed.get_nowait()

    async def _read(self, messages: AsyncIterator[bytes]) -> None:
        while True:
            while self._count and (self._count >= WINDOW or self._held >= WINDOW_BYTES):
                self._freed.clear()
                await self._freed.wait()
            try:
                message = await anext(messages)
            except StopAsyncIteration:
                return
            request, size = parse(pb.ModelInferRequest, message), len(message)
            await self._budget.take(size)
            owed = _Owed(size + self._answer_bytes)
            self._count += 1
            self._held += owed.bytes
            self._owed.put_nowait(owed)
            owed.task = asyncio.create_task(self._answer(request, owed))
            owed.task.add_done_callback(partial(self._give_back, size))

    def _give_back(self, size: int, _: asyncio.Task[None]) -> None:
        self._budget.give_back(size)  # of a task that was cancelled before it began, too

    async def _answer(self, request: pb.ModelInferRequest, owed: _Owed) -> None:
        async for answer in self._respond(request):
            self._answer_bytes = max(self._answer_bytes, answer.ByteSize())
            owed.answers.put_nowait(answer)
        owed.answers.put_nowait(None)
