"""One stream of requests and their answers, in the order of the requests or as they are there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial

from tensign.budget import Budget
from tensign.errors import DeadlineExceeded, TensignError
from tensign.rpc.status import failed_answer
from tensign.rpc.wire import Received, received

# Requests of one stream that may be on their way at once, and bytes of them and of answers that nobody has read yet; of the
# latter also no more than its share of the server's budget. A reader that stops reading stops its own stream here.
WINDOW = 64
WINDOW_BYTES = 64 << 20

# Metadata of a call: "request", which is the default, or "completed", for answers as they are there, told apart by the ids of
# their requests; the parts of one answer stay in order.
ORDER = "tensign-order"

Expect = Callable[[Received], int]
Respond = Callable[[Received], AsyncGenerator[bytes, None]]


@dataclass(slots=True, eq=False)
class _Owed:
    """One request that was read. answers: its parts, then None."""

    answers: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    expected: int = 0  # bytes of answers still to be made
    task: asyncio.Task[None] | None = None


class Stream:
    """Reads ahead of the answers by at most a window, so that requests of one stream share batches.

    respond: gives the answers to one request, serialised, errors among them; it never raises. patience_s: how long a request
    that is answered in parts waits for somebody to read them, holding what it came with. expect: how many bytes the answers
    to a request will have, 0 where that is not known before: then as many as the largest so far. beside: how many bytes a
    request makes us hold beside its message. ordered: answers go by the order of the requests.
    """

    def __init__(
        self,
        respond: Respond,
        budget: Budget,
        *,
        patience_s: float,
        expect: Expect = lambda _: 0,
        beside: Expect = lambda _: 0,
        ordered: bool = True,
    ) -> None:
        self._respond, self._expect, self._beside = respond, expect, beside
        self._budget = budget
        self._patience_s = patience_s
        self._ordered = ordered
        self._owed: asyncio.Queue[_Owed | None] = asyncio.Queue()  # ordered: each once, else once for each of its answers
        self._running: set[_Owed] = set()  # and those that were not read to the end
        self._count = 0
        self._held = 0  # bytes of requests that run
        self._kept = 0  # bytes of answers, made or expected, that were not read
        self._freed = asyncio.Event()
        self._answer_bytes = 0  # of the largest answer so far
        self._ended = False
        self._reader: asyncio.Task[None] | None = None
        self._reason: TensignError | None = None

    def end(self, reason: TensignError) -> None:
        """Reads no further; what was read is answered, then the stream ends with `reason`."""
        self._reason = self._reason or reason
        if self._reader is not None:
            self._reader.cancel()

    async def answers(self, messages: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Raises what reading raised, InvalidInput for a message that is none, and the reason given to `end`."""
        self._reader = asyncio.create_task(self._read(messages))
        self._reader.add_done_callback(lambda _: self._owed.put_nowait(None))
        reading = True
        try:
            while reading or self._running:
                if (owed := await self._owed.get()) is None:
                    reading = False
                    continue
                while (answer := await owed.answers.get()) is not None:
                    yield answer
                    self._keep(-len(answer))
                    if not self._ordered:
                        break
                else:
                    self._running.remove(owed)
                    self._count -= 1
                    self._freed.set()
            if self._reason is not None:
                raise self._reason
            self._reader.result()  # raises what reading raised
        finally:
            self._reader.cancel()
            self._keep(-self._kept)
            self._ended = True
            for owed in self._running:
                if owed.task is not None:
                    owed.task.cancel()

    async def _read(self, messages: AsyncIterator[bytes]) -> None:
        while True:
            await self._until(lambda: self._count < WINDOW)
            try:
                message = await anext(messages)
            except StopAsyncIteration:
                return
            request = received(message)
            size = request.size + self._beside(request)
            del message
            if not (expected := self._expect(request)):
                await self._until(lambda: not self._count or self._answer_bytes > 0)  # the first one alone
                expected = self._answer_bytes
            owed = _Owed(expected=min(expected, WINDOW_BYTES))
            await self._until(partial(self._has_room, size, owed.expected))
            self._count += 1
            self._keep(owed.expected)
            await self._budget.take(size)
            self._held += size
            self._running.add(owed)
            if self._ordered:
                self._owed.put_nowait(owed)
            owed.task = asyncio.create_task(self._answer(request, owed))
            owed.task.add_done_callback(partial(self._answered, owed, size))

    def _has_room(self, size: int, expected: int) -> bool:
        """One request at a time may always run, however little room there is."""
        kept = self._kept + expected
        return not self._count or (self._held + size + kept < WINDOW_BYTES and kept <= self._budget.share)

    def _keep(self, size: int) -> None:
        """Counts answers that wait, below 0 what was read of them; nothing any more once the stream has ended."""
        if self._ended:
            return
        self._kept += size
        if size >= 0:
            self._budget.keep(size)
        else:
            self._budget.drop(-size)
            self._freed.set()

    async def _answer(self, request: Received, owed: _Owed) -> None:
        async with contextlib.aclosing(self._respond(request)) as answers:
            async for answer in answers:
                size = len(answer)
                if not await self._may_wait(owed, size):
                    late = DeadlineExceeded(f"the answers were not read within {self._patience_s:g} s")
                    answer = failed_answer(late).SerializeToString()
                    self._keep(len(answer))
                    self._put(owed, answer)
                    break
                self._answer_bytes = max(self._answer_bytes, size)
                self._keep(size - min(size, owed.expected))
                owed.expected -= min(size, owed.expected)
                self._put(owed, answer)
        self._put(owed, None)

    def _put(self, owed: _Owed, answer: bytes | None) -> None:
        owed.answers.put_nowait(answer)
        if not self._ordered:
            self._owed.put_nowait(owed)

    async def _may_wait(self, owed: _Owed, size: int) -> bool:
        """True where that was expected, or once the parts before this one were read or there is room again.

        The budget has no say here: who waits holds a request, which others may wait for.
        """
        if size <= owed.expected:
            return True
        try:
            async with asyncio.timeout(self._patience_s):
                await self._until(lambda: owed.answers.empty() or self._kept + size <= WINDOW_BYTES)
        except TimeoutError:
            return False
        return True

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._freed.clear()
            await self._freed.wait()

    def _answered(self, owed: _Owed, size: int, _: asyncio.Task[None]) -> None:
        """Runs also for a task that was cancelled before it began."""
        self._held -= size
        self._budget.give_back(size)
        self._keep(-owed.expected)  # what it had not
        self._freed.set()
