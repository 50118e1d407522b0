"""One request from its body to its answer: admitted, in time, and given up when its client is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tensign.admission import Admission
from tensign.budget import Budget
from tensign.config import ServerConfig
from tensign.errors import DeadlineExceeded, ModelNotFound
from tensign.http.body import received
from tensign.http.documents import decoded_images
from tensign.http.rows import answered
from tensign.http.status import CLIENT_GONE, status_of
from tensign.model import Model
from tensign.repository import Repository
from tensign.request import Enforced, Outputs

T = TypeVar("T")

_FEW_BYTES = 4096  # of a body that is read, or an answer that is written, faster than a thread takes it over
_THREADS = 4  # that read bodies and write answers: enough, and gRPC's are others


@dataclass(frozen=True, slots=True)
class Reading:
    """How a body is read; quick where a small one may be read in the event loop."""

    read: Callable[[Model, bytes], Enforced]
    quick: bool


Write = Callable[[Model, Outputs], bytes]
Refuse = Callable[[int, str, str], Response]  # of status, MLflow's word and text


def enforced(model: Model, data: Any, params: Any = None) -> Enforced:
    """What a body said, checked.

    data: any form that the signature takes, and base64 of pictures where the model takes pictures. Raises InvalidInput.
    """
    if model.plan.image is not None:
        data = decoded_images(data, model.plan.image, model.signature)
    return model.enforced(data, params, mode="mlflow-compat")


@dataclass(frozen=True, slots=True)
class Exchange:
    """How requests of one server are answered."""

    repository: Repository
    admission: Admission
    config: ServerConfig
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_THREADS, "tensign-http"))

    @property
    def unhealthy(self) -> str:
        """Why this process should get no requests, "" where it should."""
        return "Device lost" if self.repository.lost else "" if self.admission.ready else "Draining"

    async def respond(self, request: Request, reader: Callable[[], Reading], write: Write, refuse: Refuse) -> Response:
        """The answer, or the refusal in the face's own form. `reader` chooses how to read before any of the body came."""
        try:
            model, reading = self.chosen(request), reader()
            return Answer(await self._answer(request, model, reading, write), self.admission.budget)
        except ClientDisconnect:
            return Response(status_code=CLIENT_GONE)
        except Exception as error:
            return self.refusal(error, refuse)

    def refusal(self, error: Exception, refuse: Refuse) -> Response:
        """An error in the face's own form."""
        response = refuse(*status_of(error))
        if not self.admission.ready:
            response.headers["connection"] = "close"  # a client that keeps its connection would never find another server
        return response

    def chosen(self, request: Request) -> Model:
        """The model that the path names, or the only one there is. Raises ModelNotFound."""
        if "name" in request.path_params:
            return self.repository.get(request.path_params["name"])
        names = sorted({model.name for model in self.repository})
        if len(names) > 1:
            path = request.url.path
            raise ModelNotFound(f"several models are served: ask for one at /models/NAME{path}; NAME is {' or '.join(names)}")
        return self.repository.get(names[0])

    async def _answer(self, request: Request, model: Model, reading: Reading, write: Write) -> bytes:
        timeout_s = self.config.timeout_s
        deadline = time.monotonic() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                with self.admission.admitted():
                    async with received(request, self.admission.budget, self.config.max_message_bytes) as body:
                        return await _unless_gone(
                            request, self._predicted(model, body, reading, write, deadline, _client(request))
                        )
        except TimeoutError:
            raise DeadlineExceeded(f"no answer within {timeout_s:.3g} s of the request's first byte") from None

    async def _predicted(
        self, model: Model, body: bytes, reading: Reading, write: Write, deadline: float, client: str
    ) -> bytes:
        began = time.perf_counter_ns()
        quick = reading.quick and len(body) < _FEW_BYTES
        inputs = reading.read(model, body) if quick else await self._in_thread(reading.read, model, body)
        read = time.perf_counter_ns()
        outputs = await answered(model, inputs, deadline, client)
        ran = time.perf_counter_ns()
        answer = write(model, outputs) if is_short(outputs) else await self._in_thread(write, model, outputs)
        model.statistics.exchanged(read - began, time.perf_counter_ns() - ran)
        return answer

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.threads, partial(work, *arguments))


class Answer(Response):
    """JSON, which the budget counts until it is sent."""

    def __init__(self, content: bytes, budget: Budget) -> None:
        super().__init__(content, media_type="application/json")
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._budget.keep(len(self.body))
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._budget.drop(len(self.body))


def is_short(outputs: Outputs) -> bool:
    """True where nothing of it can be long: an object may be a text of any length."""
    return all(array.dtype.kind != "O" for array in outputs.values()) and sum(a.nbytes for a in outputs.values()) < _FEW_BYTES


def _client(request: Request) -> str:
    return f"{request.client.host}:{request.client.port}" if request.client else ""


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Awaits `work`, or cancels it and raises ClientDisconnect when the connection goes."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
