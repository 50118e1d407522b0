"""One stream of requests: bounded, in order, deadlines on each, taken up again where a broken connection left it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

import grpc

from tensign._pb import open_inference_pb2 as pb
from tensign.client.connection import SERVICE, Connection
from tensign.errors import DeadlineExceeded, ModelNotReady, TensignError
from tensign.rpc.codec import FINAL
from tensign.rpc.status import error_of_answer

_LAST_WORD_S = 5.0  # how much longer than a request's own deadline its answer may take to arrive


@dataclass(slots=True, eq=False)
class Item:
    """Something to send, and what came of it.

    source: the path it was read from, if any. message: None where there is nothing to send, since `outcome` is known: the
    reason why. id: of the request in it, "" where that is the caller's. outcome: all parts of the answer, or the error that
    stands for it; None until then.
    """

    source: str
    message: bytes | None
    id: str = ""
    rows: bool = False
    outcome: list[pb.ModelInferResponse] | TensignError | None = None
    parts: list[pb.ModelInferResponse] = field(default_factory=list)
    due: float | None = None  # its deadline by the loop's clock, from the first time that it was sent


class Unreadable(Exception):
    """What the caller's iterable raised; SystemExit as it is would end the event loop."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class Source(Protocol):
    """Where the items of a stream come from."""

    async def take(self, limit: int) -> list[Item]:
        """1 to `limit` items; none when there are no more. Raises Unreadable."""


class Exchange:
    """Sends what `source` gives, at most `window` ahead of the answers that were taken.

    A connection that breaks is made anew and what it left unanswered is sent again, so that nothing is lost and nothing
    answered twice. A server that never answered is given up after `connection.retries` attempts; one that did is tried
    until the oldest request that it owes an answer has outlived its deadline, unless there are to be no retries at all.
    """

    def __init__(self, channel: grpc.aio.Channel, connection: Connection, *, window: int, timeout_s: float) -> None:
        self._open = channel.stream_stream(
            f"{SERVICE}ModelStreamInfer", lambda message: message, pb.ModelStreamInferResponse.FromString
        )
        self._connection = connection
        self._timeout_s, self._patience_s = timeout_s, timeout_s + _LAST_WORD_S
        self._room = window
        self._items: deque[Item] = deque()  # taken from the source, not yet yielded
        self._pending: deque[Item] = deque()  # those of them that the server has yet to answer
        self._in_flight = 0  # how many of these were sent over the connection there is
        self._exhausted = False
        self._failures = 0  # in a row
        self._has_answered = False
        self._unreadable: BaseException | None = None  # what reading the source raised: due after the answers to what was read
        self._broken: Exception | None = None  # why there will be no more answers
        self._fed, self._freed, self._answered = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def answers(self, source: Source) -> AsyncGenerator[Item, None]:
        """The items in their order, each with its outcome. Raises what reading `source` raises, and TensignError."""
        tasks = [asyncio.create_task(self._feed(source)), asyncio.create_task(self._converse())]
        try:
            while (item := await self._next()) is not None:
                yield item
                self._room += 1
                self._freed.set()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _next(self) -> Item | None:
        loop, patience = asyncio.get_running_loop(), None
        while True:
            if self._items and self._items[0].outcome is not None:
                return self._items.popleft()
            if self._broken is not None:
                raise self._broken
            if self._exhausted and not self._items:
                if self._unreadable is not None:
                    raise self._unreadable
                return None
            self._answered.clear()
            if self._items and patience is None:
                patience = loop.time() + self._patience_s
            try:
                async with asyncio.timeout_at(patience):
                    await self._answered.wait()
            except TimeoutError:
                raise DeadlineExceeded(f"{self._connection.address}: no answer within {self._patience_s:g} s") from None

    async def _feed(self, source: Source) -> None:
        try:
            while items := await source.take(await self._some_room()):
                self._room -= len(items)
                self._items.extend(items)
                self._pending.extend(item for item in items if item.outcome is None)
                self._fed.set()
                self._answered.set()
        except Unreadable as error:
            self._unreadable = error.error
        self._exhausted = True
        self._fed.set()
        self._answered.set()

    async def _some_room(self) -> int:
        while not self._room:
            self._freed.clear()
            await self._freed.wait()
        return self._room

    async def _converse(self) -> None:
        """One connection after the other, until everything is answered."""
        try:
            while await self._something_to_send():
                try:
                    await self._over_one_connection()
                except grpc.RpcError as error:
                    await self._recover(self._connection.failure(error))
                except ModelNotReady as error:
                    await self._recover(error)
                except asyncio.CancelledError:
                    if (task := asyncio.current_task()) is None or task.cancelling():
                        raise
                    await self._recover(ModelNotReady(f"{self._connection.address}: the connection broke"))  # by grpc itself
        except Exception as error:
            self._broken = error
            self._answered.set()

    async def _recover(self, failure: TensignError) -> None:
        self._failures += 1
        retries, now = self._connection.retries, asyncio.get_running_loop().time()
        pause_s = self._connection.backoff_s(self._failures)
        if not isinstance(failure, ModelNotReady) or not retries:
            raise failure
        if not self._has_answered:
            if self._failures > retries:
                raise failure
        elif self._pending and (due := self._pending[0].due) is not None:
            if now >= due:
                raise failure
            pause_s = min(pause_s, due - now)  # one last attempt at the very end
        await asyncio.sleep(pause_s)

    async def _over_one_connection(self) -> None:
        call = self._open(metadata=await self._connection.metadata())
        sender = asyncio.create_task(self._send(call))
        try:
            async for response in call:
                self._receive(response)
            if self._pending:
                raise ModelNotReady(f"{self._connection.address}: the server ended the stream")
        finally:
            sender.cancel()
            call.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            self._in_flight = 0
            if self._pending:
                self._pending[0].parts.clear()  # what came of it over this connection comes again

    async def _send(self, call: grpc.aio.StreamStreamCall[bytes, pb.ModelStreamInferResponse]) -> None:
        while await self._something_to_send():
            item = self._pending[self._in_flight]
            self._in_flight += 1
            assert item.message is not None
            item.due = item.due or asyncio.get_running_loop().time() + self._timeout_s
            await call.write(item.message)
        await call.done_writing()

    async def _something_to_send(self) -> bool:
        """False once everything was sent."""
        while self._in_flight == len(self._pending):
            if self._exhausted:
                return False
            self._fed.clear()
            await self._fed.wait()
        return True

    def _receive(self, response: pb.ModelStreamInferResponse) -> None:
        if not self._in_flight:
            raise TensignError(f"{self._connection.address}: an answer came to nothing that was sent")
        item, answer = self._pending[0], response.infer_response
        if item.id and answer.id and item.id != answer.id:  # never a wrong answer, whatever happened on the way
            raise ModelNotReady(f"{self._connection.address}: the answer to {answer.id} came in place of {item.id}'s")
        item.parts.append(answer)
        if FINAL in answer.parameters and not answer.parameters[FINAL].bool_param:
            return
        self._pending.popleft()
        self._in_flight -= 1
        self._failures, self._has_answered = 0, True
        item.outcome = error_of_answer(response) or item.parts
        item.message = None  # a large picture need not wait for the one before it
        self._answered.set()
