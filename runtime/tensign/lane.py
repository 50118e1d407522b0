"""A lane: one thread that takes batches, has an engine run them, and answers their requests."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tensign.buckets import Buckets
from tensign.engines import Engine
from tensign.errors import DeadlineExceeded, DeviceLost, EngineError, ModelNotReady, OutOfMemory, TensignError, WorkerDied
from tensign.metrics import Statistics
from tensign.request import Formed, Outputs, Part, Ran, Request
from tensign.signature import Arrays
from tensign.slots import Slots
from tensign.turns import Share, Turn

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where batches are run: an engine on a device.

    run takes {name: [bucket,...]}, the params of its requests and the latest of their deadlines, and gives {name:
    [bucket,...]}; it is called from as many threads at once as there are `lanes`, so that one batch is copied while another
    computes. empty makes the memory that rows are gathered in; ready tells whether the engine could run at once; local: it
    computes on the thread that calls it, for as long as was measured; share is its model's part of the device.
    """

    run: Callable[[Arrays, Mapping[str, Any], float | None], Outputs]
    lanes: int = 1
    empty: Callable[[tuple[int, ...], Any], npt.NDArray[Any]] = np.empty
    ready: Callable[[], bool] = lambda: True
    local: bool = False
    share: Share = field(default_factory=Share)

    @classmethod
    def of(cls, engine: Engine, run: Callable[[Arrays, Mapping[str, Any], float | None], Outputs], even: bool) -> Place:
        """Where an engine runs. even: whether all batches of so many rows take about as long."""
        return cls(run, engine.lanes, engine.empty, lambda: engine.ready, engine.local and even, Share(engine.lanes))


class Work(Protocol):
    """What a lane sees of the batcher."""

    buckets: Buckets
    statistics: Statistics

    @property
    def waiting(self) -> bool: ...
    def next_batch(self, place: Place, turn: Turn) -> list[Part] | None: ...
    def others(self, place: Place) -> bool: ...
    def give_back(self, parts: list[Part]) -> None: ...
    def lose(self, error: ModelNotReady) -> None: ...
    def shrink(self, bucket: int) -> bool: ...
    def ran(self, bucket: int, seconds: float) -> None: ...
    def dropped(self, request: Request) -> bool: ...
    def answer(self, part: Part, outcome: Outputs) -> None: ...
    def settle(self, request: Request, result: Outputs | Exception) -> None: ...


class Lane(threading.Thread):
    """One at a time; it ends with the queue, or with its device."""

    def __init__(self, work: Work, place: Place) -> None:
        super().__init__(name="tensign-engine", daemon=True)
        self._work, self._place = work, place
        self._slots = Slots(place.empty)
        self._turn = Turn(place.share)
        self._lost: DeviceLost | None = None

    def run(self) -> None:
        while self._lost is None and (parts := self._work.next_batch(self._place, self._turn)) is not None:
            self.take(parts)
            del parts  # a region of shared memory must not stay open until the next batch comes
        self._turn.leave()
        if self._lost is not None:
            log.error("a device is lost and not used any more: %s", self._lost)
            self._work.lose(self._lost)

    def run_here(
        self, arrays: Arrays, rows: int, params: Mapping[str, Any], deadline: float | None, reserved_ns: int
    ) -> Formed:
        """The answer to rows alone in their batch, on the thread that this lane was lent to. Raises TensignError."""
        began = time.perf_counter_ns()
        bucket = self._work.buckets.holding(rows)
        batch = arrays if rows == bucket else self._slots.gather([Part(Request.of(arrays), 0, rows)], bucket)
        gathered = time.perf_counter_ns()
        try:
            outputs = self._place.run(batch, params, deadline)
        except Exception as error:
            raise _told(error, rows) from error.__cause__
        ran = time.perf_counter_ns()
        if not isinstance(outputs, Formed) or rows != bucket:
            form = outputs.form if isinstance(outputs, Formed) else None
            outputs = Formed({name: array[:rows] for name, array in outputs.items()}, form)
        self._work.ran(bucket, (ran - gathered) / 1e9)
        self._work.statistics.batch(
            rows, bucket, queue_ns=0, begun=1, input_ns=gathered - began, infer_ns=ran - gathered, output_ns=0
        )
        outputs.ran = (Ran(rows, bucket, began, gathered, ran, ran),)
        outputs.reserved_ns, outputs.enqueued_ns = reserved_ns, began
        return outputs

    def take(self, parts: list[Part]) -> None:
        """Runs a batch and answers its requests."""
        try:
            self._run_batch(parts)
        except Exception:  # a bug of ours: these requests fail, the thread and everybody else live on
            log.exception("the batcher failed on %d requests", len(parts))
            for part in parts:
                self._work.settle(part.request, EngineError("the batcher failed"))

    def _run_batch(self, parts: list[Part]) -> None:
        began = time.perf_counter_ns()
        rows, buckets = sum(part.rows for part in parts), self._work.buckets
        if rows > buckets.largest:  # which was larger when they were taken
            for piece in _divided(parts, buckets.largest):
                if wanted := [part for part in piece if not self._work.dropped(part.request)]:
                    self._run_batch(wanted)
            return
        bucket = buckets.holding(rows)
        try:
            if self._lost is not None:
                raise self._lost
            self._turn.enter()
            try:
                batch = self._slots.gather(parts, bucket)
                gathered = time.perf_counter_ns()
                outputs = self._place.run(batch, parts[0].request.params, _latest_deadline(parts))
                ran = time.perf_counter_ns()
            finally:
                self._turn.leave(again=self._work.waiting)
            answers = _split(outputs, parts)
            split = time.perf_counter_ns()
        except OutOfMemory as error:
            if not self._work.shrink(bucket):
                self._run_apart(parts, error)
                return
            log.warning(
                "no memory for a batch of %d rows: %s; from now on at most %d", bucket, error, self._work.buckets.largest
            )
            self._run_batch(parts)
            return
        except Exception as error:
            self._run_apart(parts, error)
            return
        self._work.ran(bucket, (ran - gathered) / 1e9)
        begun = [part.request for part in parts if part.start == 0]
        self._work.statistics.batch(  # before anyone has an answer, so that whoever has one finds it counted
            rows,
            bucket,
            queue_ns=sum(began - request.enqueued_ns for request in begun),
            begun=len(begun),
            input_ns=gathered - began,
            infer_ns=ran - gathered,
            output_ns=split - ran,
        )
        batch_ran = (Ran(rows, bucket, began, gathered, ran, split),)
        for part, answer in zip(parts, answers, strict=True):
            answer.ran = batch_ran
            answer.reserved_ns, answer.enqueued_ns = part.request.reserved_ns, part.request.enqueued_ns
            self._work.answer(part, answer)

    def _run_apart(self, parts: list[Part], error: Exception) -> None:
        """A failed batch of several requests is run again one by one, so that one of them harms no neighbour.

        Where the worker died of it or the device was lost, once more even if it was alone, for that may have had another cause;
        nobody's twice, and no code of which nobody knows what a second run does.
        """
        if isinstance(error, DeviceLost):
            self._lost = error
        died = isinstance(error, WorkerDied | DeviceLost) and not self._work.buckets.whole
        if isinstance(error, DeadlineExceeded) or (isinstance(error, ModelNotReady) and not died):  # of all of them
            for part in parts:
                self._work.settle(part.request, error)
            return
        if died and self._work.others(self._place):
            self._hand_over(parts, error)
            return
        if self._lost is None and (len(parts) > 1 or (died and not parts[0].request.again)):
            for part in parts:
                part.request.again = part.request.again or died
                if not self._work.dropped(part.request):
                    self._run_batch([part])
            return
        error = _told(error, parts[0].rows)
        for part in parts:
            self._work.settle(part.request, error)

    def _hand_over(self, parts: list[Part], error: Exception) -> None:
        """To the other places, one by one: whichever request it was that did it does it once more, and to nobody else."""
        for part in parts:
            if part.request.again:
                self._work.settle(part.request, error)
            else:
                part.request.again = True
                self._work.give_back([part])


def _told(error: Exception, rows: int) -> TensignError:
    """What callers get to know of it; the rest goes to the log."""
    if isinstance(error, TensignError):
        return error
    log.error("the engine failed on a batch of %d rows", rows, exc_info=error)
    failure = EngineError(f"the engine failed: {type(error).__name__}")
    failure.__cause__ = error
    return failure


def _divided(parts: list[Part], most: int) -> Iterator[list[Part]]:
    """The same rows in batches of so many at most."""
    batch: list[Part] = []
    left = most
    for part in parts:
        start = part.start
        while start < part.stop:
            stop = min(part.stop, start + left)
            batch.append(Part(part.request, start, stop))
            left -= stop - start
            start = stop
            if not left:
                yield batch
                batch, left = [], most
    if batch:
        yield batch


def _latest_deadline(parts: list[Part]) -> float | None:
    deadlines = [part.request.deadline for part in parts]
    return None if None in deadlines else max(deadline for deadline in deadlines if deadline is not None)


def _split(outputs: Outputs, parts: list[Part]) -> list[Formed]:
    split: list[Formed] = []
    row, form = 0, outputs.form if isinstance(outputs, Formed) else None
    for part in parts:
        split.append(Formed({name: array[row : row + part.rows] for name, array in outputs.items()}, form))
        row += part.rows
    return split
