"""One request over one model, from message to answer: whole, or in parts as they finish."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass
from functools import partial

from tensign.errors import DeadlineExceeded, InvalidInput, QueueFull
from tensign.model import Model
from tensign.regions import Regions
from tensign.request import Enforced, Outputs
from tensign.rpc.answers import Answer, encode_response
from tensign.rpc.codec import FINAL, FIRST_ROW, MAX_ID, decode_params, decode_request
from tensign.rpc.heading import Heading
from tensign.rpc.regionfields import Target, raw_contents
from tensign.rpc.timings import timings
from tensign.rpc.wire import Received
from tensign.signature import MAX_RANK

_FEW_ELEMENTS = 1024
_FEW_BYTES, _FEW_INPUTS = 1 << 20, 64  # of shared memory, read as fast as a thread is asked to
_PARTS_AHEAD = 4  # of one request, so that it fills the batches behind the one that runs, and not the queue


@dataclass(slots=True, eq=False)  # frozen, it would take three times as long to make
class Inference:
    """A request that was checked against the signature; its arrays are views into its message where they can be.

    placed: outputs that go to shared memory; timeout_s: what is left of its deadline now; deadline: the same on
    time.monotonic(); client: who the queue is fair to; receive_ns: what reading and checking took.
    """

    heading: Heading
    id: str
    inputs: Enforced
    placed: dict[str, Target]
    timeout_s: float
    deadline: float
    client: str
    receive_ns: int

    @classmethod
    async def of(
        cls,
        message: Received,
        heading: Heading,
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
        if len(message.id) > MAX_ID:
            raise InvalidInput(f"id: expected at most {MAX_ID} letters, got {len(message.id)}")
        asked_s = heading.timeout_s or (default_s if limit_s is None else limit_s)
        timeout_s = asked_s if limit_s is None else min(asked_s, limit_s)
        deadline = time.monotonic() + timeout_s
        placed = {name: Target(span, regions) for name, span in heading.placed.items()}
        inputs = None if heading.taken else heading.arranged(message.raw)
        if inputs is None:
            read = partial(_enforced, message, heading, regions, limit)
            inputs = await asyncio.to_thread(read) if _is_slow(message, heading) else read()
        received = message.took_ns + time.perf_counter_ns() - began
        return cls(heading, message.id, inputs, placed, timeout_s, deadline, client, received)

    @property
    def model(self) -> Model:
        return self.heading.model

    async def whole(self) -> Answer:
        """The one answer to all rows. Raises QueueFull at once, for the caller can try another server."""
        outputs = self.model.at_once(self.inputs, self.deadline)
        if outputs is None:
            future = self.model.submit(self.inputs, deadline=self.deadline, client=self.client)
            outputs = future.result() if future.done() else await self._in_time(asyncio.wrap_future(future))
        return await self._encoded(outputs)

    async def parts(self) -> AsyncGenerator[Answer, None]:
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
                answer = await self._encoded(await self._in_time(task), first=first == 0)
                running.popleft()
                answer.say({FIRST_ROW: first, FINAL: not (starts or running)})
                yield answer
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
        if (outputs := self.model.at_once(inputs, self.deadline)) is not None:
            return outputs
        while True:
            try:
                future = self.model.submit(inputs, deadline=self.deadline, client=self.client)
                return future.result() if future.done() else await asyncio.wrap_future(future)
            except QueueFull:
                await asyncio.wrap_future(self.model.room(inputs.rows, self.client))

    async def _encoded(self, outputs: Outputs, *, first: bool = True) -> Answer:
        began = time.perf_counter_ns()
        heading, model = self.heading, self.model
        encode = partial(
            encode_response,
            heading.request,
            model.version,
            outputs,
            model.plan.labels,
            model.signature.outputs,
            self.placed,
            request_id=self.id,
            digest=model.digest,
        )
        slow = any(heading.wanted.values()) or any(array.dtype.kind in "OM" for array in outputs.values())  # one by one
        slow = slow or bool(self.placed and sum(array.nbytes for array in outputs.values()) > _FEW_BYTES)
        answer = await asyncio.to_thread(encode) if slow else encode()
        took = time.perf_counter_ns() - began
        model.statistics.exchanged(self.receive_ns if first else None, took)
        if heading.timed:
            answer.say(timings(outputs, self.receive_ns, took))
        return answer


def _enforced(message: Received, heading: Heading, regions: Regions, limit: int) -> Enforced:
    raw, model = raw_contents(message.raw, heading.taken, regions, limit), heading.model
    if (arranged := heading.arranged(raw)) is not None:
        return arranged
    inputs = decode_request(message.request, raw)
    return model.enforced(inputs, decode_params(message.request, model.signature.params))


def _is_slow(message: Received, heading: Heading) -> bool:
    """True where decoding goes element by element, which would hold up the event loop; raw tensors are views."""
    inputs, shared = message.request.inputs, heading.shared_bytes
    if heading.model.signature.columnar or shared > _FEW_BYTES or (shared and len(inputs) > _FEW_INPUTS):
        return True
    if heading.layouts is not None:
        return False
    if not (heading.taken or message.raw):
        return True
    return any(tensor.datatype == "BYTES" and math.prod(tensor.shape[:MAX_RANK]) > _FEW_ELEMENTS for tensor in inputs)
