"""In a front end: what stands there in place of a model's batcher, its statistics and its engines."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from tensign.buckets import Buckets
from tensign.engines import Engine
from tensign.errors import DeadlineExceeded, EngineError, TensignError
from tensign.frontends.failure import error_of, told
from tensign.frontends.link import Link
from tensign.metrics import Duration, Snapshot, Statistics
from tensign.request import Formed, Outputs, Ran, Request
from tensign.signature import Arrays, TensorSpec

log = logging.getLogger(__name__)

Answered = Callable[[dict[str, Any], Outputs], None]
_STATISTICS_S = 10.0


class Calls:
    """What was asked of the server and not yet answered, each by its number."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._numbers = itertools.count()
        self._waiting: dict[int, Answered] = {}
        self.send = link.send

    def expect(self, answered: Answered) -> int:
        """The number of a call whose answer is for `answered`, which must not wait for anything."""
        number = next(self._numbers)
        self._waiting[number] = answered
        return number

    def waits(self, number: int) -> bool:
        """Whether that answer is still to come."""
        return number in self._waiting

    def forget(self, number: int) -> bool:
        """Nobody waits for that answer any more; False where it was there already."""
        return self._waiting.pop(number, None) is not None

    def read(self, heard: Callable[[dict[str, Any]], None]) -> None:
        """Hands answers to those who wait, everything else to `heard`. Raises EOFError, BrokenFrame at its end."""
        while True:
            header, arrays, place = self._link.receive()
            if place is not None:
                arrays = {name: array if array.dtype == object else np.array(array) for name, array in arrays.items()}
                self._link.release(place)
            if "do" in header:
                heard(header)
            elif (answered := self._waiting.pop(header.get("id", -1), None)) is not None:
                answered(header, dict(arrays))


@dataclass(slots=True, eq=False)
class _Asked(Request):
    """A request by the number of its call; whoever has that forgotten settles it. told: whether the server knows of it."""

    number: int = -1
    told: bool = False


class RemoteBatcher:
    """The batcher of one model, which is in the server's process. Who is admitted is decided there: QueueFull comes by the
    future.

    Of a request that is decoded first the server learns when it is announced, so that its rows count as waiting from then on.
    """

    working = True

    def __init__(self, calls: Calls, model: int, buckets: Buckets) -> None:
        """model: its number among those of the server."""
        self.buckets = buckets
        self.statistics: Statistics = RemoteStatistics(calls, model)
        self._calls, self._model = calls, model

    def reserve(self, rows: int, deadline: float | None = None, client: str = "") -> Request:
        request = _Asked(rows, deadline, Future(), time.perf_counter_ns(), client=client)
        request.number = self._calls.expect(partial(self._answered, request))
        request.future.add_done_callback(partial(self._cancelled, request.number))  # no circle, which would keep answers
        return request

    def announce(self, request: Request) -> None:
        assert isinstance(request, _Asked)
        if self._calls.waits(request.number):
            request.told = True
            self._calls.send({"do": "reserve", **self._named(request)})

    def dropped(self, request: Request) -> bool:
        assert isinstance(request, _Asked)
        if request.deadline is not None and request.deadline <= time.monotonic():
            waited_ms = (time.perf_counter_ns() - request.reserved_ns) / 1e6
            self.settle(request, DeadlineExceeded(f"the deadline passed after {waited_ms:.0f} ms, before it was decoded"))
        return not self._calls.waits(request.number)

    def enqueue(self, request: Request, arrays: Arrays, params: Mapping[str, Any] | None = None) -> None:
        assert isinstance(request, _Asked)
        if not self._calls.waits(request.number):
            return
        request.enqueued_ns = time.perf_counter_ns()
        header = {"do": "enqueue", "reserved": request.told, "params": dict(params or {}), **self._named(request)}
        request.told = True
        try:
            self._calls.send(header, arrays)
        except TensignError as error:
            self.settle(request, error)
        except (TypeError, ValueError, RecursionError, OSError) as error:
            log.error("a request cannot cross to the server", exc_info=error)
            self.settle(request, EngineError(f"the request cannot cross to the model's process: {error}"))

    def settle(self, request: Request, result: Outputs | Exception) -> None:
        """Of a request that failed here; the server counts it."""
        assert isinstance(request, _Asked)
        if not self._calls.forget(request.number):
            return
        if request.told and isinstance(result, Exception):
            self._calls.send({"do": "settle", "id": request.number, **told(result)})
        _finish(request.future, result)

    def at_once(self, arrays: Arrays, params: Mapping[str, Any] | None = None, deadline: float | None = None) -> Outputs | None:
        """None: rows always go to where they can be run."""
        return None

    def room(self, rows: int, client: str = "") -> Future[None]:
        room: Future[None] = Future()
        number = self._calls.expect(lambda header, _: _finish(room, error_of(header)))
        room.add_done_callback(lambda room: self._give_up(number) if room.cancelled() else None)
        self._calls.send({"do": "room", "id": number, "model": self._model, "rows": rows, "client": client})
        return room

    def close(self, timeout_s: float = 0.0) -> None:
        """The server closes what it has."""

    def _named(self, request: _Asked) -> dict[str, Any]:
        left_s = None if request.deadline is None else request.deadline - time.monotonic()
        return {"id": request.number, "model": self._model, "rows": request.rows, "left_s": left_s, "client": request.client}

    def _answered(self, request: Request, header: dict[str, Any], outputs: Outputs) -> None:
        answer = Formed(outputs, None)
        answer.ran = tuple(Ran(*each) for each in header.get("ran", ()))  # by the clock that all processes of a machine share
        answer.reserved_ns, answer.enqueued_ns = request.reserved_ns, request.enqueued_ns
        _finish(request.future, error_of(header) or answer)

    def _cancelled(self, number: int, future: Future[Outputs]) -> None:
        if future.cancelled():
            self._give_up(number)

    def _give_up(self, number: int) -> None:
        if self._calls.forget(number):
            self._calls.send({"do": "cancel", "id": number})


class RemoteStatistics(Statistics):
    """Counted in the server's process, where batches run. What is exchanged here is counted here, until `tell`."""

    def __init__(self, calls: Calls, model: int) -> None:
        super().__init__()
        self._calls, self._model = calls, model

    def preprocess(self, ns: int) -> None:
        self._calls.send({"do": "preprocess", "model": self._model, "ns": ns})

    def tell(self) -> None:
        """Has the server count what was exchanged here since."""
        with self._lock:
            receive, send = self._seen.receive, self._seen.send
            self._seen.receive, self._seen.send = Duration(), Duration()
        if send.count:
            self._calls.send({"do": "exchanged", "model": self._model, "receive": asdict(receive), "send": asdict(send)})

    def snapshot(self) -> Snapshot:
        """Waits for the server's answer. Raises EngineError where it takes too long."""
        self.tell()
        came = threading.Event()
        said: dict[str, Any] = {}

        def answered(header: dict[str, Any], _: Outputs) -> None:
            said.update(header)
            came.set()

        number = self._calls.expect(answered)
        self._calls.send({"do": "statistics", "id": number, "model": self._model})
        if not came.wait(_STATISTICS_S):
            self._calls.forget(number)
            raise EngineError("the server's process does not tell its statistics")
        return Snapshot.of(said["snapshot"])


class RemoteEngine(Engine):
    """Tells of the engines in the server's process what a model tells others; nothing runs here."""

    def __init__(self, inputs: tuple[TensorSpec, ...], labels: tuple[str, ...], threshold: float | None) -> None:
        self.inputs, self.labels, self.threshold = inputs, labels, threshold
        self.up = True

    @property
    def ready(self) -> bool:
        return self.up

    def load(self) -> None:
        """It was, there."""

    def warmup(self, batch: Arrays, params: Mapping[str, Any] | None = None) -> None:
        """The same."""

    def run(self, batch: Arrays, params: Mapping[str, Any] | None = None, deadline: float | None = None) -> Outputs:
        """The batcher never asks. Raises EngineError."""
        raise EngineError("a front end runs no model")

    def close(self) -> None:
        """The server closes what it has."""


def _finish(future: Future[Any], result: Any) -> None:
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
