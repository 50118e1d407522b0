"""One request over one model, from message to answer: whole, or in parts as they finish."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass
from functools import partial

from tensign._pb import open_inference_pb2 as pb
from tensign.errors import DeadlineExceeded, InvalidInput, QueueFull
from tensign.model import Model
from tensign.regions import Regions
from tensign.repository import Repository
from tensign.request import Enforced, Outputs
from tensign.rpc.codec import (
    FINAL,
    FIRST_ROW,
    SHA256,
    SHA256_LETTERS,
    decode_params,
    decode_request,
    encode_response,
    requested_outputs,
)
from tensign.rpc.regionfields import Target, raw_contents, shared_bytes, targets
from tensign.rpc.timings import put_timings, wants_timings
from tensign.rpc.wire import Received
from tensign.signature import MAX_RANK

_FEW_ELEMENTS = 1024
_FEW_BYTES, _FEW_INPUTS = 1 << 20, 64  # of shared memory, read as fast as a thread is asked to
_PARTS_AHEAD = 4  # of one request, so that it fills the batches behind the one that runs, and not the queue


@dataclass(frozen=True, slots=True)
class Inference:
    """A request that was checked against the signature; its arrays are views into its message where they can be.

    placed: outputs that go to shared memory; timeout_s: what is left of its deadline now; deadline: the same on
    time.monotonic(); client: who the queue is fair to; timed: whether the answers tell their times; receive_ns: what reading
    and checking took.
    """

    request: pb.ModelInferRequest
    model: Model
    inputs: Enforced
    classifies: bool
    placed: dict[str, Target]
    timeout_s: float
    deadline: float
    client: str
    timed: bool
    receive_ns: int

    @classmethod
    async def of(
        cls,
        message: Received,
        repository: Repository,
        regions: Regions,
        *,
        limit: int,
        default_s: float,
        limit_s: float | None,
        client: str = "",
    ) -> Inference:
        """limit: bytes of regions that one request may take; default_s: the deadline where it brings none; limit_s: what is
        left of the call's; client: who the queue is fair to. Raises InvalidInput.
        """
        began = time.perf_counter_ns()
        request = message.request
        model = repository.get(request.model_name, request.model_version)
        wanted = requested_outputs(request, (spec.name for spec in model.signature.outputs))
        asked_s = _timeout_s(request) or (default_s if limit_s is None else limit_s)
        timeout_s = asked_s if limit_s is None else min(asked_s, limit_s)
        deadline = time.monotonic() + timeout_s
        timed = wants_timings(request)
        placed = targets(request, regions)
        read = partial(_enforced, message, model, regions, limit)
        inputs = await asyncio.to_thread(read) if model.signature.columnar or _is_slow(message) else read()
        received = message.took_ns + time.perf_counter_ns() - began
        return cls(request, model, inputs, any(wanted.values()), placed, timeout_s, deadline, client, timed, received)

    async def whole(self) -> pb.ModelInferResponse:
        """The one answer to all rows. Raises QueueFull at once, for the caller can try another server."""
        future = self.model.submit(self.inputs, deadline=self.deadline, client=self.client)
        return await self._encoded(future.result() if future.done() else await self._in_time(asyncio.wrap_future(future)))

    async def parts(self) -> AsyncGenerator[pb.ModelInferResponse, None]:
        """Answers to as many rows as a batch holds, each as it finishes, in order; waits for room in a full queue.

        Where there are several, each says its first row and whether it is the final one.
        """
        inputs, rows, step = self.inputs, self.inputs.rows, self.model.largest_batch
        if rows <= step:
            yield await self._encoded(await self._in_time(self._patiently(inputs)))
            return
        starts = deque(range(0, rows, step))
        running: deque[tuple[int, asyncio.Task[Outputs]]] = deque()
        try:
            while starts or running:
                while starts and len(running) < _PARTS_AHEAD:
                    first = starts.popleft()
                    piece = inputs.part(first, first + step)
                    running.append((first, asyncio.create_task(self._patiently(piece))))
                first, task = running[0]
                response = await self._encoded(await self._in_time(task), first=first == 0)
                running.popleft()
                response.parameters[FIRST_ROW].int64_param = first
                response.parameters[FINAL].bool_param = not (starts or running)
                yield response
        finally:
            for _, task in running:
                task.cancel()

    async def _in_time(self, work: Awaitable[Outputs]) -> Outputs:
        try:
            async with asyncio.timeout(self.deadline - time.monotonic()):
                return await work
        except TimeoutError:
            raise DeadlineExceeded(f"no answer within {self.timeout_s:.3g} s") from None

    async def _patiently(self, inputs: Enforced) -> Outputs:
        while True:
            try:
                future = self.model.submit(inputs, deadline=self.deadline, client=self.client)
                return future.result() if future.done() else await asyncio.wrap_future(future)
            except QueueFull:
                await asyncio.wrap_future(self.model.room(inputs.rows, self.client))

    async def _encoded(self, outputs: Outputs, *, first: bool = True) -> pb.ModelInferResponse:
        began = time.perf_counter_ns()
        labels, specs = self.model.plan.labels, self.model.signature.outputs
        encode = partial(encode_response, self.request, self.model.version, outputs, labels, specs, self.placed)
        slow = self.classifies or any(array.dtype.kind in "OM" for array in outputs.values())  # written one by one
        slow = slow or bool(self.placed and sum(array.nbytes for array in outputs.values()) > _FEW_BYTES)
        response = await asyncio.to_thread(encode) if slow else encode()
        if self.model.digest:
            response.parameters[SHA256].string_param = self.model.digest[:SHA256_LETTERS]
        took = time.perf_counter_ns() - began
        self.model.statistics.exchanged(self.receive_ns if first else None, took)
        if self.timed:
            put_timings(response, outputs, self.receive_ns, took)
        return response


def _enforced(message: Received, model: Model, regions: Regions, limit: int) -> Enforced:
    inputs = decode_request(message.request, raw_contents(message, regions, limit))
    return model.enforced(inputs, decode_params(message.request, model.signature.params))


def _timeout_s(request: pb.ModelInferRequest) -> float:
    """The request's own deadline, 0 where it has none. Raises InvalidInput."""
    if "timeout" not in request.parameters:
        return 0.0
    asked = request.parameters["timeout"]
    if asked.WhichOneof("parameter_choice") != "int64_param" or asked.int64_param < 0:
        raise InvalidInput('parameter "timeout": wanted an int64 of microseconds, 0 or more')
    return asked.int64_param / 1e6


def _is_slow(message: Received) -> bool:
    """True where decoding goes element by element, which would hold up the event loop; raw tensors are views."""
    shared = shared_bytes(message.request, 2 * _FEW_BYTES)
    inputs = message.request.inputs
    if shared > _FEW_BYTES or (shared and len(inputs) > _FEW_INPUTS) or not (shared or message.raw):
        return True
    return any(tensor.datatype == "BYTES" and math.prod(tensor.shape[:MAX_RANK]) > _FEW_ELEMENTS for tensor in inputs)
