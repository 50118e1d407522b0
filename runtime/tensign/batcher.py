"""Dynamic batching: rows of many requests become one batch, and the answer is split again.

A batch leaves as soon as a lane is free; it fills only while all are busy. What takes less time than handing it to another
thread is run by whoever brings it. Everything is counted in rows.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from tensign.buckets import Buckets
from tensign.errors import DeadlineExceeded, EngineError, ModelNotReady, OutOfMemory, QueueFull, TooLarge
from tensign.lane import Lane, Place
from tensign.metrics import Statistics
from tensign.pace import Pace
from tensign.queue import Queue
from tensign.request import Formed, Outputs, Part, Request, joined, kind_of
from tensign.room import Room
from tensign.signature import Arrays
from tensign.turns import Turn

_SWEEP_NS = 10_000_000
_HANDING_OVER_S = 0.0002  # about what it costs to wake a lane, and whoever waits for its answer
_UNREADY_S = 0.05  # between looks at a place whose engine is being started again, while others work


class Batcher:
    """One queue in front of the places where a model runs, a thread for each of their lanes.

    A request larger than the largest bucket is split and answered whole. What a lost device held goes to the others; where
    memory runs out, the batches become smaller. statistics: of what ran, kept by whoever asks.
    """

    def __init__(
        self,
        places: Sequence[Place],
        buckets: Buckets,
        *,
        max_queue_rows: int,
        statistics: Statistics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.buckets = buckets
        self.statistics = statistics
        self._places = tuple(places)
        self._clock = clock
        self._pace = Pace(buckets, clock())
        lock = threading.RLock()
        self._changed = threading.Condition(lock)  # what lanes that could run wait for
        self._resting = threading.Condition(lock)  # the others, so that no call goes to who cannot answer it
        self._queue = Queue(max_queue_rows)
        self._room = Room(self._queue)
        self._returned: deque[list[Part]] = deque()  # batches that a lost device left
        self._unsettled: set[Request] = set()
        self._closing = False
        self._swept_ns = 0
        self._lanes = [Lane(self, place) for place in self._places for _ in range(place.lanes)]
        self._working = len(self._lanes)
        self._lends = len(self._lanes) == 1 and self._places[0].local
        self._idle = False  # whether the one lane waits for rows, and may be lent
        self._calling = 0  # callbacks that run under the lock, one within another: from there nothing may be run or swept
        for lane in self._lanes:
            lane.start()

    @property
    def working(self) -> bool:
        """False where every device is lost."""
        return self._working > 0

    def reserve(self, rows: int, deadline: float | None = None, client: str = "") -> Request:
        """Admits a request before anything is spent on it; client: one of those that the queue is fair to.

        Raises QueueFull, TooLarge, ModelNotReady, and DeadlineExceeded where it can have no answer in time.
        """
        with self._changed:
            if self._closing:
                raise ModelNotReady("the model is draining and takes no new requests")
            if not self._working:
                raise ModelNotReady("the model has no device left to run on")
            if deadline is not None:
                self._pace.check(rows, deadline, self._clock(), self._working)
            queue = self._queue
            if rows > queue.max_rows:
                raise TooLarge(f"{rows} rows in one request are more than the queue's {queue.max_rows}; send fewer at once")
            if not queue.admits(rows, client):
                self._sweep()
                if not queue.admits(rows, client):
                    raise QueueFull(queue.refusal(rows, client))
            request = Request(rows, deadline, Future(), time.perf_counter_ns(), client=client)
            queue.reserve(rows, client)
            self._unsettled.add(request)
        return request

    def announce(self, request: Request) -> None:
        """Tells where batches run of a reserved request whose rows will take a while; here that is known already."""

    def enqueue(self, request: Request, arrays: Arrays, params: Mapping[str, Any] | None = None) -> None:
        """Hands over the rows of a reserved request, checked and preprocessed: from here on it may share a batch.

        Where that takes less time than handing them over, they are run here, and answered when this returns.
        """
        request.enqueued_ns = time.perf_counter_ns()
        if self.dropped(request):
            return
        result: Outputs | Exception | None
        try:
            result = self._run_here(arrays, params or {}, request.deadline, request.reserved_ns)
        except Exception as error:
            result = error
        except BaseException:  # a Ctrl-C
            self.settle(request, EngineError("the thread that ran it was interrupted"))
            raise
        if result is not None:
            self.settle(request, result)
            return
        request.arrays, request.params = arrays, params or {}
        request.kind = kind_of(arrays, params)
        with self._changed:
            if not self._drop(request):
                self._queue.add(request)
                self._changed.notify()

    def at_once(self, arrays: Arrays, params: Mapping[str, Any] | None = None, deadline: float | None = None) -> Outputs | None:
        """The answer to rows that take less time to run, on this thread, than to hand over, while nobody waits for anything.

        None where that is not so: then they are to be reserved and enqueued like any others. Raises what the future of those
        would.
        """
        began = time.perf_counter_ns()
        if deadline is not None and deadline <= self._clock():
            return None
        try:
            outputs = self._run_here(arrays, params or {}, deadline, began)
        except Exception:
            self.statistics.request(time.perf_counter_ns() - began, succeeded=False)
            raise
        if outputs is not None:
            self.statistics.request(time.perf_counter_ns() - began, succeeded=True)
        return outputs

    def _run_here(self, arrays: Arrays, params: Mapping[str, Any], deadline: float | None, reserved_ns: int) -> Formed | None:
        """By the lane, lent to this thread; None where it is not to be had, or memory runs out, so that batches get smaller."""
        rows = len(next(iter(arrays.values())))
        with self._changed:
            if not self._is_better_here(rows):
                return None
            self._idle = False
        try:
            return self._lanes[0].run_here(arrays, rows, params, deadline, reserved_ns)
        except OutOfMemory:
            return None
        finally:  # a Ctrl-C ends this call, not the lane
            with self._changed:
                self._idle = True
                if self._queue or self._closing:
                    self._changed.notify_all()

    def room(self, rows: int, client: str = "") -> Future[None]:
        """Done as soon as that client may have `rows` more: what to wait for after QueueFull, before trying again."""
        with self._changed:
            return self._room.wait(rows, client)

    def dropped(self, request: Request) -> bool:
        """True where nothing more should be spent on a request: it was cancelled, failed, or its deadline has passed."""
        if request.expired(self._clock()):
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
            self._queue.remove(request)
            if request.remaining:
                self._queue.give_back(request.remaining, request.client)
                request.taken = request.rows
                self._made_room()
            wanted = request.future.set_running_or_notify_cancel()  # from here on it cannot be cancelled
            took_ns = time.perf_counter_ns() - request.reserved_ns
            self.statistics.request(took_ns, succeeded=wanted and not isinstance(result, Exception))
            if self._closing:
                self._changed.notify_all()
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
            self._changed.notify_all()
        until = time.monotonic() + timeout_s
        for lane in self._lanes:
            lane.join(max(until - time.monotonic(), 0))
        for request in tuple(self._unsettled):
            self.settle(request, ModelNotReady("the server stopped before the engine took the request up"))

    # What the lanes ask for

    @property
    def waiting(self) -> bool:
        """Whether there is anything to take."""
        return bool(self._queue or self._returned)

    def next_batch(self, place: Place, turn: Turn) -> list[Part] | None:
        """Waits for rows, then for the turn, and takes the best batch of one kind; None when closed and drained, or no place is
        left. While the turn is awaited the batch fills, and expired requests are dropped when it has come.
        """
        with self._changed:
            while self._working:
                if self._closing and not self._unsettled:
                    return None
                if not place.ready() and self.others(place):
                    turn.leave()
                    self._changed.notify()  # who was called in vain passes it on
                    self._resting.wait(_UNREADY_S)
                    continue
                if turn.needed and self.waiting:
                    self._changed.release()
                    try:
                        turn.enter()
                    finally:
                        self._changed.acquire()
                    continue
                if self._returned:
                    if parts := [part for part in self._returned.popleft() if not self._drop(part.request)]:
                        return parts
                    continue
                if parts := self._take():
                    if self._queue:
                        self._changed.notify()  # another lane may take what is left
                    return parts
                turn.leave()
                if self._unsettled or not self._closing:  # looking at the queue may have settled the last of it
                    self._rest()
        return None

    def others(self, place: Place) -> bool:
        """Whether anybody else could run what this place cannot."""
        return any(other is not place and other.ready() for other in self._places)

    def give_back(self, parts: list[Part]) -> None:
        """Has another lane run what this one took."""
        with self._changed:
            self._returned.append(parts)
            self._changed.notify()

    def lose(self, error: ModelNotReady) -> None:
        """One lane less, its device is gone; with the last one everybody who waits is told."""
        with self._changed:
            self._working -= 1
            self._changed.notify_all()
        if not self._working:
            for request in tuple(self._unsettled):
                self.settle(request, error)

    def shrink(self, bucket: int) -> bool:
        """No batch of so many rows any more; False where there is no smaller one."""
        with self._changed:
            if self.buckets.whole or bucket <= self.buckets.rows[0]:
                return False
            self.buckets = self.buckets.below(bucket)
        return True

    def ran(self, bucket: int, seconds: float) -> None:
        self._pace.ran(bucket, seconds, self._clock())

    def answer(self, part: Part, outcome: Outputs) -> None:
        """Some rows of a request, which is settled with the last of them."""
        request = part.request
        if part.rows == request.rows:
            self.settle(request, outcome)
            return
        with self._changed:
            request.answered[part.start] = outcome
            request.ran += part.rows
            if request.ran < request.rows:
                return
        try:
            self.settle(request, joined([request.answered[start] for start in sorted(request.answered)]))
        except EngineError as error:
            self.settle(request, error)

    # Under the lock

    def _rest(self) -> None:
        """Waits for rows, and while somebody else runs some with this lane."""
        self._idle = self._lends
        self._changed.wait()
        while self._lends and not self._idle:
            self._changed.wait()
        self._idle = False

    def _is_better_here(self, rows: int) -> bool:
        idle = self._idle and not (self._queue or self._room or self._calling or self._closing)
        alone = idle and rows <= min(self.buckets.largest, self._queue.max_rows) and self._places[0].share.alone
        return alone and self.buckets.time(rows) <= _HANDING_OVER_S

    def _drop(self, request: Request) -> bool:
        with self._calling_back():
            return self.dropped(request)

    @contextlib.contextmanager
    def _calling_back(self) -> Iterator[None]:
        """While callbacks run under the lock, none of which may have rows run here or the queue swept."""
        self._calling += 1
        try:
            yield
        finally:
            self._calling -= 1

    def _made_room(self) -> None:
        if len(self._room):
            with self._calling_back():
                self._room.made()

    def _take(self) -> list[Part]:
        """The best batch of one kind, led by who is next, if anybody; who is cancelled, or late, or would be, is dropped."""
        while True:
            alike, over = self._queue.alike(self.buckets.largest, self._is_over, single=self.buckets.whole)
            rows, bucket = self.buckets.plan(sum(request.remaining for request in alike)) if alike else (0, 0)
            late = self._pace.late(alike, bucket, self._clock())
            with self._calling_back():
                for request in over:
                    self.dropped(request)
                for request, error in late.items():
                    self.settle(request, error)
            if not late:
                parts = self._queue.take(alike, rows)
                self._made_room()
                return parts

    def _is_over(self, request: Request) -> bool:
        return request.future.cancelled() or request.expired(self._clock())

    def _sweep(self) -> None:
        """Drops who is over wherever he waits, not more often than every few milliseconds: under overload everybody asks."""
        if self._calling or time.perf_counter_ns() - self._swept_ns < _SWEEP_NS:
            return
        self._swept_ns = time.perf_counter_ns()
        for request in self._queue.sweep(self._is_over):
            self._drop(request)
