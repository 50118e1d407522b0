"""Dynamic batching: rows of many requests become one batch, and the answer is split again.

A batch leaves as soon as the engine is free; it fills only while the engine is busy. Everything is counted in rows.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from tensign.buckets import Buckets
from tensign.errors import DeadlineExceeded, EngineError, ModelNotReady, QueueFull, TensignError, TooLarge, WorkerDied
from tensign.metrics import Statistics
from tensign.request import Formed, Outputs, Part, Request, joined, kind_of
from tensign.signature import Arrays
from tensign.slots import Slots

log = logging.getLogger(__name__)

_SWEEP_NS = 10_000_000


class Batcher:
    """One queue and one thread in front of one engine.

    run takes {name: [bucket,...]}, the params of its requests and the latest of their deadlines, and gives
    {name: [bucket,...]}; a request larger than the largest bucket is split and answered whole.
    """

    def __init__(
        self,
        run: Callable[[Arrays, Mapping[str, Any], float | None], Outputs],
        buckets: Buckets,
        *,
        max_queue_rows: int,
        statistics: Statistics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._buckets = buckets
        self._max_queue_rows = max_queue_rows
        self._statistics = statistics
        self._clock = clock
        self._changed = threading.Condition()
        self._queue: deque[Request] = deque()
        self._unsettled: set[Request] = set()
        self._waiting_rows = 0  # reserved or enqueued, not yet taken
        self._closing = False
        self._slots = Slots()
        self._room: deque[tuple[int, Future[None]]] = deque()  # who waits for it, with how many rows
        self._swept_ns = 0
        self._thread = threading.Thread(target=self._serve, name="tensign-engine", daemon=True)
        self._thread.start()

    def reserve(self, rows: int, deadline: float | None = None) -> Request:
        """Admits a request before anything is spent on it. Raises QueueFull, TooLarge, ModelNotReady or DeadlineExceeded."""
        with self._changed:
            if self._closing:
                raise ModelNotReady("the model is draining and takes no new requests")
            if deadline is not None and deadline <= self._clock():
                raise DeadlineExceeded("the deadline had passed when the request arrived")
            if rows > self._max_queue_rows:
                raise TooLarge(
                    f"{rows} rows in one request are more than the queue's {self._max_queue_rows}; send fewer at once"
                )
            if self._waiting_rows + rows > self._max_queue_rows and time.perf_counter_ns() - self._swept_ns > _SWEEP_NS:
                self._sweep()
            if self._waiting_rows + rows > self._max_queue_rows:
                raise QueueFull(f"{self._waiting_rows} rows are waiting and {self._max_queue_rows} may; try again later")
            request = Request(rows, deadline, Future(), time.perf_counter_ns())
            self._waiting_rows += rows
            self._unsettled.add(request)
        return request

    def enqueue(self, request: Request, arrays: Arrays, params: Mapping[str, Any] | None = None) -> None:
        """Hands over the rows of a reserved request, checked and preprocessed: from here on it may share a batch."""
        request.arrays, request.params = arrays, params or {}
        request.kind = kind_of(arrays, params)
        request.enqueued_ns = time.perf_counter_ns()
        with self._changed:
            self._queue.append(request)
            self._changed.notify()

    def room(self, rows: int) -> Future[None]:
        """Done as soon as `rows` more may fit, oldest waiter first: what to wait for after QueueFull, before trying again."""
        room: Future[None] = Future()
        with self._changed:
            if self._waiting_rows + rows <= self._max_queue_rows:
                room.set_result(None)
            else:
                self._room.append((rows, room))
        return room

    def dropped(self, request: Request) -> bool:
        """True where nothing more should be spent on a request: it was cancelled, failed, or its deadline has passed."""
        if request.deadline is not None and request.deadline <= self._clock():
            waited_ms = (time.perf_counter_ns() - request.reserved_ns) / 1e6
            self.settle(request, DeadlineExceeded(f"the deadline passed after {waited_ms:.0f} ms in the queue"))
        elif request.future.cancelled():
            self.settle(request, DeadlineExceeded("cancelled"))
        return request not in self._unsettled

    def settle(self, request: Request, result: Outputs | Exception) -> None:
        """Answers a reserved request, unless it was answered or cancelled already, and gives its room back.

        Callbacks of its future run here, of an expired one under the batcher's lock: they must not wait for anything.
        """
        with self._changed:
            if request not in self._unsettled:
                return
            self._unsettled.remove(request)
            self._waiting_rows -= request.remaining
            request.taken = request.rows
            self._made_room()
            wanted = request.future.set_running_or_notify_cancel()  # from here on it cannot be cancelled
            took_ns = time.perf_counter_ns() - request.reserved_ns
            self._statistics.request(took_ns, succeeded=wanted and not isinstance(result, Exception))
            if self._closing:
                self._changed.notify()
        # Outside the lock: a callback wakes the event loop, whose next act is to ask for this lock.
        if not wanted:
            return
        if isinstance(result, Exception):
            request.future.set_exception(result)
        else:
            request.future.set_result(result)

    def close(self, timeout_s: float = 30.0) -> None:
        """Takes nothing new, finishes what was reserved, then stops; what is left after the timeout fails."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        for request in tuple(self._unsettled):
            self.settle(request, ModelNotReady("the server stopped before the engine took the request up"))

    # The engine's thread

    def _serve(self) -> None:
        while (parts := self._next_batch()) is not None:
            try:
                self._run_batch(parts)
            except Exception:  # a bug of ours: these requests fail, the thread and everybody else live on
                log.exception("the batcher failed on %d requests", len(parts))
                for part in parts:
                    self.settle(part.request, EngineError("the batcher failed"))

    def _next_batch(self) -> list[Part] | None:
        """Waits for rows and takes the best batch of one kind; None when closed and drained."""
        with self._changed:
            while True:
                if alike := self._alike():
                    return self._take(alike)
                if self._closing and not self._unsettled:
                    return None
                self._changed.wait()

    def _alike(self) -> list[Request]:
        """The oldest request and those of its kind behind it, one largest bucket of rows at most.

        Cancelled and expired requests met on the way are dropped: they never reach the engine.
        """
        alike: list[Request] = []
        rows = 0
        for request in tuple(self._queue):
            if rows >= self._buckets.largest or (alike and self._buckets.whole):
                break
            if self.dropped(request):
                self._queue.remove(request)
            elif not alike or request.kind == alike[0].kind:
                alike.append(request)
                rows += request.remaining
        return alike

    def _sweep(self) -> None:
        """Drops cancelled and expired requests wherever they wait, so that they keep no room from others.

        Not more often than every few milliseconds: it looks at the whole queue, and under overload everybody asks.
        """
        self._swept_ns = time.perf_counter_ns()
        for request in tuple(self._queue):
            if self.dropped(request):
                self._queue.remove(request)

    def _take(self, alike: list[Request]) -> list[Part]:
        wanted, _ = self._buckets.plan(sum(request.remaining for request in alike))
        parts: list[Part] = []
        for request in alike:
            if not wanted:
                break
            part = Part(request, request.taken, request.taken + min(wanted, request.remaining))
            parts.append(part)
            wanted -= part.rows
            request.taken = part.stop
            self._waiting_rows -= part.rows
            if part.stop == request.rows:
                self._queue.remove(request)
        self._made_room()
        return parts

    def _made_room(self) -> None:
        """Wakes those who wait for room, as many as fit; all where nothing is left that would wake them later."""
        free, idle = self._max_queue_rows - self._waiting_rows, not self._waiting_rows
        while self._room and (idle or self._room[0][0] <= free):
            rows, room = self._room.popleft()
            if room.set_running_or_notify_cancel():
                free -= rows
                room.set_result(None)

    def _run_batch(self, parts: list[Part]) -> None:
        began = time.perf_counter_ns()
        rows = sum(part.rows for part in parts)
        bucket = self._buckets.holding(rows)
        try:
            batch = self._slots.gather(parts, bucket)
            gathered = time.perf_counter_ns()
            outputs = self._run(batch, parts[0].request.params, _latest_deadline(parts))
            ran = time.perf_counter_ns()
            answers = _split(outputs, parts)
        except Exception as error:
            self._run_apart(parts, error)
            return
        begun = [part.request for part in parts if part.start == 0]
        self._statistics.batch(  # before anyone has an answer, so that whoever has one finds it counted
            rows,
            bucket,
            queue_ns=sum(began - request.enqueued_ns for request in begun),
            begun=len(begun),
            input_ns=gathered - began,
            infer_ns=ran - gathered,
            output_ns=time.perf_counter_ns() - ran,
        )
        for part, answer in zip(parts, answers, strict=True):
            self._answer(part, answer)

    def _run_apart(self, parts: list[Part], error: Exception) -> None:
        """A failed batch of several requests is run again one by one, so that one of them harms no neighbour.

        Where the worker died of it, once more even if it was alone, for that may have had another cause; nobody's twice, and
        no code of which nobody knows what a second run does.
        """
        died = isinstance(error, WorkerDied) and not self._buckets.whole
        if isinstance(error, DeadlineExceeded) or (isinstance(error, ModelNotReady) and not died):  # of all of them
            for part in parts:
                self.settle(part.request, error)
            return
        if len(parts) > 1 or (died and not parts[0].request.again):
            for part in parts:
                part.request.again = part.request.again or died
                if not self.dropped(part.request):
                    self._run_batch([part])
            return
        if not isinstance(error, TensignError):
            log.error("the engine failed on a batch of %d rows", parts[0].rows, exc_info=error)
            failure = EngineError(f"the engine failed: {type(error).__name__}")
            failure.__cause__ = error
            error = failure
        self.settle(parts[0].request, error)

    def _answer(self, part: Part, outcome: Outputs) -> None:
        request = part.request
        request.answered.append(outcome)
        if part.stop == request.rows:
            try:
                self.settle(request, joined(request.answered))
            except EngineError as error:
                self.settle(request, error)


def _latest_deadline(parts: list[Part]) -> float | None:
    deadlines = [part.request.deadline for part in parts]
    return None if None in deadlines else max(deadline for deadline in deadlines if deadline is not None)


def _split(outputs: Outputs, parts: list[Part]) -> list[Outputs]:
    split: list[Outputs] = []
    row, form = 0, outputs.form if isinstance(outputs, Formed) else None
    for part in parts:
        split.append(Formed({name: array[row : row + part.rows] for name, array in outputs.items()}, form))
        row += part.rows
    return split
