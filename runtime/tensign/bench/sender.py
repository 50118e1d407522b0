"""Sends the requests of a load to one server, each when it is due, and notes what came of them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from tensign._pb import open_inference_pb2 as pb
from tensign.bench.arrivals import poisson
from tensign.bench.load import Load
from tensign.bench.samples import Samples
from tensign.bench.window import Window
from tensign.client import AsyncClient
from tensign.errors import DeadlineExceeded, ModelNotReady, TensignError
from tensign.rpc.codec import FINAL
from tensign.rpc.status import error_of_answer

# Of an open loop. What is due beyond them waits in the generator, and its latency counts from when it was due all the same.
MAX_IN_FLIGHT, MAX_BYTES_IN_FLIGHT = 4096, 256 << 20

GONE_S = 1.0  # so long nothing but refusals to connect, and the server is gone
_PAUSE_S = 0.05  # after such a refusal, which comes at once
_PULSE_S = 0.01
_SLICE_S = 0.1  # a sleeper looks that often whether it is still wanted

clock = time.perf_counter


class Sender:
    """broken: since when the server has been of no use, and why; None while it is. held: how many requests of an open loop
    had to wait because as many as allowed were in flight, or because their stream took no more. reconnects: why a stream
    broke in the window, for each that was taken up again.
    """

    def __init__(self, client: AsyncClient, messages: Sequence[bytes], load: Load, samples: Samples, window: Window) -> None:
        self._client, self._load, self._samples, self._window = client, load, samples, window
        self._messages = itertools.cycle(messages)
        self._room = max(1, min(MAX_IN_FLIGHT, MAX_BYTES_IN_FLIGHT // max(map(len, messages))))
        self._backlog: deque[float] = deque()
        self._workers = 0
        self._refused_since: float | None = None
        self.broken: tuple[float, str] | None = None
        self.held = 0
        self.reconnects: list[str] = []

    async def run(self) -> None:
        """Until the window admits no further request and all are answered, or the server is of no use."""
        load = self._load
        pulse = asyncio.create_task(self._pulse())
        try:
            async with asyncio.TaskGroup() as group:
                if load.rate is not None:
                    ways: list[asyncio.Queue[float | None]] = [asyncio.Queue() for _ in range(load.streams)]
                    for way in ways:
                        group.create_task(self._stream(max(1, self._room // load.streams), way))
                    group.create_task(self._schedule(load.rate, ways, group))
                elif load.streams:
                    for number in range(load.streams):
                        more = number < load.concurrency % load.streams
                        group.create_task(self._stream(load.concurrency // load.streams + more, None))
                else:
                    for _ in range(load.concurrency):
                        group.create_task(self._worker())
        except* _Broken:
            pass
        finally:
            pulse.cancel()

    async def _worker(self) -> None:
        """A closed loop: the next one leaves when this one is answered."""
        while self._window.admits(due := clock()):
            await self._send(due)

    async def _schedule(self, rate: float, ways: list[asyncio.Queue[float | None]], group: asyncio.TaskGroup) -> None:
        """An open loop: each one leaves when it is due, whatever became of those before it."""
        start = clock()
        turns = itertools.cycle(ways)
        for offset in poisson(rate, self._load.seed):
            due = start + offset
            while due < self._window.end:  # which may be set while it sleeps
                if (early := due - clock()) <= 0:
                    break
                await asyncio.sleep(min(early, _SLICE_S))
            if not self._window.admits(due):
                break
            self._lag(clock() - due)
            if ways:
                way = next(turns)
                self.held += not way.empty()
                way.put_nowait(due)
            else:
                self._backlog.append(due)
                if self._workers < self._room:
                    self._workers += 1
                    group.create_task(self._drain())
                else:
                    self.held += 1
            await asyncio.sleep(0)  # or else a generator that is behind would never read an answer
        for way in ways:
            way.put_nowait(None)

    async def _drain(self) -> None:
        while self._backlog:
            await self._send(self._backlog.popleft())
        self._workers -= 1

    async def _send(self, due: float) -> None:
        left = due + self._load.timeout_s - clock()
        try:
            if left <= 0:
                raise DeadlineExceeded(f"waited {self._load.timeout_s:g} s in the generator")
            await self._client.send(next(self._messages), timeout_s=left)
        except TensignError as error:
            await self._failed([due], error)
        else:
            self._answered(due)

    async def _stream(self, window: int, way: asyncio.Queue[float | None] | None) -> None:
        """One stream, opened anew when it breaks: once to send again what is unanswered, so that a server may end its
        connections; where that brings no answer, what is unanswered has failed. way: what is due; None in a closed loop, where
        the next is due when there is room in the window.
        """
        unanswered: deque[tuple[float, bytes]] = deque()
        exhausted = False
        broke: ModelNotReady | None = None

        async def messages() -> AsyncGenerator[bytes, None]:
            nonlocal exhausted
            for _, message in tuple(unanswered):
                yield message
            while not exhausted:
                due = (now if self._window.admits(now := clock()) else None) if way is None else await way.get()
                if due is None:
                    exhausted = True
                    return
                unanswered.append((due, message := next(self._messages)))
                yield message

        while unanswered or not exhausted:
            useful = False
            try:
                async with aclosing(self._client.send_stream(messages(), window=window)) as answers:
                    async for answer in answers:
                        useful = True
                        if broke is not None:
                            self._reconnected(broke)
                            broke = None
                        if (error := error_of_answer(answer)) is not None:
                            self._samples.failure(unanswered.popleft()[0], error)
                        elif _is_last(answer):
                            self._answered(unanswered.popleft()[0])
            except TensignError as error:
                if isinstance(error, ModelNotReady) and broke is None:
                    broke = error
                    continue
                await self._failed([due for due, _ in unanswered], error)
                unanswered.clear()
                if not useful and not isinstance(error, ModelNotReady | DeadlineExceeded):
                    self.broken = (clock(), f"the server takes no stream: {error}")
                    raise _Broken from None

    def _answered(self, due: float) -> None:
        self._refused_since = None
        self._samples.answer(due, clock())

    def _reconnected(self, why: ModelNotReady) -> None:
        if self._window.start <= clock() < self._window.end:
            self.reconnects.append(str(why))

    async def _failed(self, dues: Sequence[float], error: TensignError) -> None:
        for due in dues:
            self._samples.failure(due, error)
        if not isinstance(error, ModelNotReady):
            return
        self._refused_since = self._refused_since or clock()
        if clock() - self._refused_since > GONE_S:
            self.broken = (self._refused_since, f"the server went away: {error}")
            raise _Broken
        await asyncio.sleep(_PAUSE_S)

    async def _pulse(self) -> None:
        """How late the loop wakes up is how late a closed loop notices its answers."""
        while self._load.rate is None:
            wanted = clock() + _PULSE_S
            await asyncio.sleep(_PULSE_S)
            self._lag(clock() - wanted)

    def _lag(self, seconds: float) -> None:
        if self._window.start <= clock() < self._window.end:
            self._samples.lag(seconds)


def _is_last(answer: pb.ModelStreamInferResponse) -> bool:
    parameters = answer.infer_response.parameters
    return FINAL not in parameters or parameters[FINAL].bool_param


class _Broken(Exception):
    """Going on is of no use."""
