"""One request from its body to its answer: admitted, in time, and given up when its client is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from tensign.admission import Admission
from tensign.config import ServerConfig
from tensign.errors import DeadlineExceeded
from tensign.http.body import received
from tensign.http.rows import answered
from tensign.model import Model
from tensign.request import Outputs

T = TypeVar("T")

_FEW_BYTES = 4096  # of a body that is read, or an answer that is written, faster than a thread takes it over


@dataclass(frozen=True, slots=True)
class Payload:
    """What a body said: `data` as the signature takes it, by name and checked; `params`, defaults filled in."""

    arrays: Outputs
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Exchange:
    """How requests of one server are answered."""

    admission: Admission
    config: ServerConfig

    async def answer(
        self, request: Request, model: Model, read: Callable[[bytes], Payload], write: Callable[[Outputs], bytes]
    ) -> bytes:
        """The answer's bytes. Raises every error that a request can end with, and ClientDisconnect."""
        timeout_s = self.config.timeout_s
        deadline = time.monotonic() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                with self.admission.admitted():
                    async with received(request, self.admission.budget, self.config.max_message_bytes) as body:
                        return await _unless_gone(request, _predicted(model, body, read, write, deadline))
        except TimeoutError:
            raise DeadlineExceeded(f"no answer within {timeout_s:.3g} s of the request's first byte") from None


async def _predicted(
    model: Model, body: bytes, read: Callable[[bytes], Payload], write: Callable[[Outputs], bytes], deadline: float
) -> bytes:
    payload = read(body) if len(body) < _FEW_BYTES else await asyncio.to_thread(read, body)
    outputs = await answered(model, payload.arrays, payload.params, deadline)
    few = sum(array.nbytes for array in outputs.values()) < _FEW_BYTES
    return write(outputs) if few else await asyncio.to_thread(write, outputs)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Awaits `work`, or cancels it and raises ClientDisconnect when the connection goes."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_disconnected(request.receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()


async def _disconnected(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
