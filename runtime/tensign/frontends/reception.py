"""In the server's process: what one front end sends becomes requests of the models' batchers, their answers messages."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, astuple, dataclass
from functools import partial
from typing import Any

from tensign.engines.arena import BrokenFrame
from tensign.errors import EngineError, TensignError
from tensign.frontends.failure import error_of, told
from tensign.frontends.link import Link, Place
from tensign.metrics import Duration
from tensign.model import Model
from tensign.request import Formed, Outputs, Request
from tensign.signature import Arrays

log = logging.getLogger(__name__)

_MALFORMED = (BrokenFrame, KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)
_MAX_CLIENT = 256  # letters


@dataclass(slots=True)
class _Held:
    """A request of a front end. place: of its arrays in shared memory, which nobody reads once it is answered."""

    model: Model
    request: Request
    place: Place | None = None
    enqueued: bool = False

    def cancel(self) -> None:
        """Its rows wait no longer, those included that are still to come."""
        self.request.future.cancel()
        self.model.batcher.dropped(self.request)


class Reception:
    """Reads on one thread. What is no message of ours ends the front end, which is started again, and nobody else."""

    def __init__(self, link: Link, models: Sequence[Model], heard: Callable[[dict[str, Any]], None]) -> None:
        """heard: gets what a front end says of itself."""
        self._link = link
        self._models = tuple(models)
        self._heard = heard
        self._held: dict[int, _Held] = {}
        self._answering = threading.Lock()
        self._rooms: dict[int, Future[None]] = {}
        self._words: dict[str, Callable[[dict[str, Any], Arrays, Place | None], None]] = {
            "reserve": self._reserve,
            "enqueue": self._enqueue,
            "settle": self._settle,
            "cancel": self._cancel,
            "room": self._room,
            "preprocess": lambda said, _, __: self._model(said).statistics.preprocess(_whole(said["ns"])),
            "exchanged": self._exchanged,
            "statistics": self._statistics,
            "tell": lambda said, _, __: self._heard(said),
        }

    def serve(self) -> None:
        """Until the front end is gone, or says what none says; then its requests are cancelled."""
        try:
            while True:
                said, arrays, place = self._link.receive()
                if said:
                    self._words[said["do"]](said, arrays, place)
        except EOFError:
            pass
        except _MALFORMED as error:
            log.error("a front end sent what is no message: %s: %s", type(error).__name__, str(error)[:200])
        finally:
            self._link.end()
            for held in tuple(self._held.values()):
                held.cancel()
            for room in tuple(self._rooms.values()):
                room.cancel()

    def _reserve(self, said: dict[str, Any], _: Arrays, __: Place | None) -> None:
        number, model, left_s = _whole(said["id"]), self._model(said), said["left_s"]
        if number in self._held:
            raise BrokenFrame("two requests of one number")
        if not (left_s is None or math.isfinite(left_s)):
            raise BrokenFrame("no time")
        deadline = None if left_s is None else time.monotonic() + left_s
        try:
            request = model.batcher.reserve(_whole(said["rows"]), deadline, _client(said))
        except TensignError as error:
            self._link.send({"id": number, **told(error)})
            return
        self._held[number] = _Held(model, request)
        request.future.add_done_callback(partial(self._answer, number))

    def _enqueue(self, said: dict[str, Any], arrays: Arrays, place: Place | None) -> None:
        params = dict(said["params"])
        if not said["reserved"]:
            self._reserve(said, {}, None)
        with self._answering:
            held = self._held.get(_whole(said["id"]))
            if held is not None:
                if held.enqueued or not arrays or any(len(array) != held.request.rows for array in arrays.values()):
                    raise BrokenFrame("other rows than were announced")
                held.enqueued, held.place = True, place
        if held is None:  # answered already
            self._link.release(place)
            return
        try:
            held.model.batcher.enqueue(held.request, arrays, params)
        except Exception as error:  # kinds of rows that cannot be compared, say
            log.error("a request of a front end failed", exc_info=error)
            held.model.batcher.settle(held.request, EngineError("the batcher failed"))

    def _answer(self, number: int, future: Future[Outputs]) -> None:
        """On whichever thread answers, perhaps under the batcher's lock."""
        with self._answering:
            place = self._held.pop(number).place
        if future.cancelled():
            self._link.release(place)
            return
        error = future.exception()
        try:
            if error is not None:
                self._link.send({"id": number, **told(error)}, done=place)
            else:
                outputs = future.result()
                ran = [astuple(each) for each in outputs.ran] if isinstance(outputs, Formed) else []
                self._link.send({"id": number, "ran": ran}, outputs, done=place)
        except (TensignError, TypeError, ValueError, RecursionError, OSError) as failed:
            log.error("an answer cannot cross to its front end: %s", failed)
            self._link.send({"id": number, **told(EngineError(f"the answer cannot cross to its front end: {failed}"))})

    def _settle(self, said: dict[str, Any], _: Arrays, __: Place | None) -> None:
        held = self._held.get(_whole(said["id"]))
        if held is not None:
            held.model.batcher.settle(held.request, error_of(said) or EngineError("a front end failed"))

    def _cancel(self, said: dict[str, Any], _: Arrays, __: Place | None) -> None:
        number = _whole(said["id"])
        if held := self._held.get(number):
            held.cancel()
        elif room := self._rooms.get(number):
            room.cancel()

    def _room(self, said: dict[str, Any], _: Arrays, __: Place | None) -> None:
        number, room = _whole(said["id"]), self._model(said).batcher.room(_whole(said["rows"]), _client(said))
        self._rooms[number] = room

        def made(_: Future[None]) -> None:
            self._rooms.pop(number, None)
            self._link.send({"id": number})

        room.add_done_callback(made)

    def _exchanged(self, said: dict[str, Any], _: Arrays, __: Place | None) -> None:
        receive, send = ({part: _whole(said[stage][part]) for part in ("count", "ns")} for stage in ("receive", "send"))
        self._model(said).statistics.exchanged_elsewhere(Duration(**receive), Duration(**send))

    def _statistics(self, said: dict[str, Any], _: Arrays, __: Place | None) -> None:
        self._link.send({"id": _whole(said["id"]), "snapshot": asdict(self._model(said).statistics.snapshot())})

    def _model(self, said: dict[str, Any]) -> Model:
        return self._models[_whole(said["model"])]


def _whole(value: Any) -> int:
    """Raises ValueError for what is no whole number, 0 or more."""
    if type(value) is not int or value < 0:
        raise ValueError(f"wanted a whole number, got a {type(value).__name__}")
    return value


def _client(said: dict[str, Any]) -> str:
    """Raises ValueError for what names none."""
    client = said.get("client", "")
    if not isinstance(client, str) or len(client) > _MAX_CLIENT:
        raise ValueError(f"wanted a client's name, got a {type(client).__name__}")
    return client
