"""One hour's worth of mixed good and bad requests: what the clients of a day do to a server, in a bounded run."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from socket import socket
from typing import TypeVar

import grpc
import numpy as np
from google.protobuf.message import Message

from tensign._pb import open_inference_pb2 as pb
from tensign.rpc.codec import decode_response, encode_request

from .bad import bad_requests
from .client import SERVICE
from .halfopen import BEGINNINGS, half_open, reset
from .identity import Rows, answer_to, rows_of
from .models import WORK
from .pictures import bad_pictures, good_pictures
from .probe import MAX_MESSAGE_BYTES

T = TypeVar("T")

PER_SECOND = 20
REQUESTS = 3600 * PER_SECOND  # what an hour brings
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
_REFUSED = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)


class Visitor:
    """One client of many moods. `seen` counts requests by kind, `wrong` what came of them that should not have."""

    def __init__(self, address: str, number: int, seed: int) -> None:
        self.seen: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self._address, self._number, self._numbered = address, number, 0
        self._random = np.random.default_rng([seed, number])
        self._bad = bad_requests("identity")
        self._pictures, self._bad_pictures = good_pictures(), bad_pictures()
        self._open: list[socket] = []
        self._moods: dict[Callable[[], Awaitable[None]], int] = {
            self._good: 30,
            self._picture: 12,
            self._bad_tensor: 10,
            self._bad_picture: 10,
            self._cancelled: 6,
            self._expired: 6,
            self._stream: 6,
            self._dropped_stream: 6,
            self._garbage: 2,
            self._garbage_in_a_stream: 2,
            self._oversize: 1,
            self._half_open: 4,
            self._question: 4,
            self._reconnected: 1,
        }

    async def visit(self, requests: int) -> None:
        """Makes at least so many requests, then leaves; half-open connections are broken off."""
        moods, weights = list(self._moods), np.array(list(self._moods.values()), float)
        until = self.seen.total() + requests
        self._channel = grpc.aio.insecure_channel(self._address, options=OPTIONS)
        while self.seen.total() < until:
            await moods[int(self._random.choice(len(moods), p=weights / weights.sum()))]()
        await self._channel.close()
        for connection in self._open:
            reset(connection)
        self._open.clear()

    # Unary

    async def _good(self) -> None:
        rows, message = self._rows()
        await self._expect("good", self._infer(message), rows)

    async def _picture(self) -> None:
        await self._expect("picture", self._infer(self._encoded(self._any(self._pictures))))

    async def _bad_tensor(self) -> None:
        await self._refused("bad tensor", self._infer(self._any(list(self._bad.values()))))

    async def _bad_picture(self) -> None:
        files = [self._any(self._pictures), self._any(list(self._bad_pictures.values()))]
        await self._refused("bad picture", self._infer(self._encoded(*files)))

    async def _oversize(self) -> None:
        message = encode_request("identity", {"row": np.zeros((1, MAX_MESSAGE_BYTES // 8 + 1), np.int64)})
        await self._refused("oversize", self._infer(message), grpc.StatusCode.RESOURCE_EXHAUSTED)

    async def _garbage(self) -> None:
        call = self._channel.unary_unary(SERVICE + "ModelInfer", bytes, bytes)(self._random.bytes(200), timeout=60)
        await self._refused("garbage", call)

    async def _cancelled(self) -> None:
        call = self._infer(self._rows()[1] if self._random.random() < 0.5 else self._encoded(self._any(self._pictures)))
        asyncio.get_running_loop().call_later(float(self._random.uniform(0, 0.01)), call.cancel)
        self.seen["cancelled"] += 1
        with contextlib.suppress(asyncio.CancelledError):
            await call

    async def _expired(self) -> None:
        self.seen["expired"] += 1
        try:
            await self._infer(self._rows()[1], timeout=float(self._random.uniform(0.0005, 0.01)))
        except grpc.aio.AioRpcError as error:
            self._check("expired", error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)

    async def _question(self) -> None:
        kinds = (pb.ModelStatisticsRequest.SerializeToString, pb.ModelStatisticsResponse.FromString)
        self.seen["question"] += 1
        await self._channel.unary_unary(SERVICE + "ModelStatistics", *kinds)(pb.ModelStatisticsRequest(), timeout=60)

    # Streams

    async def _stream(self) -> None:
        """Good and bad requests in turn; each has its own answer."""
        sent = [self._rows() for _ in range(int(self._random.integers(1, 12)))]

        async def messages() -> AsyncIterator[bytes]:
            for _, message in sent:
                yield message.SerializeToString()
                yield self._any(list(self._bad.values())).SerializeToString()

        refused, got = 0, dict[str, list[Rows]]()
        async for response in self._streamed(messages()):
            answer = response.infer_response
            if answer.id == "bad":
                refused += bool(response.error_message)
            elif response.error_message:
                self.wrong["streamed: was refused"] += 1
            else:
                got.setdefault(answer.id, []).append(decode_response(answer)["answer"])
        self.seen["streamed"] += 2 * len(sent)
        self.wrong["streamed: a bad request was not refused"] += len(sent) - refused
        for rows, message in sent:
            parts = got.get(message.id, [rows[:0]])
            self._compare("streamed", np.concatenate(parts), rows)

    async def _dropped_stream(self) -> None:
        """Left at any moment: before the first message, or with answers unread."""
        messages = int(self._random.integers(0, 20))
        read = int(self._random.integers(0, messages + 1))

        async def sent() -> AsyncIterator[bytes]:
            for _ in range(messages):
                self.seen["dropped stream"] += 1
                yield self._rows()[1].SerializeToString()
            await asyncio.Event().wait()

        call = self._streamed(sent())
        self.seen["dropped stream"] += 1
        for _ in range(read):
            await call.read()
        call.cancel()

    async def _garbage_in_a_stream(self) -> None:
        async def sent() -> AsyncIterator[bytes]:
            yield self._rows()[1].SerializeToString()
            yield b"\xff" * 50

        self.seen["garbage in a stream"] += 2
        try:
            async for _ in self._streamed(sent()):
                pass
            self.wrong["garbage in a stream: was not refused"] += 1
        except grpc.aio.AioRpcError as error:
            self._check("garbage in a stream", error.code(), *_REFUSED)

    # Connections

    async def _half_open(self) -> None:
        """One in three is broken off at once, one closed, one left open until the visitor goes."""
        beginning = self._any(list(BEGINNINGS))
        connection = await asyncio.to_thread(half_open, self._address, beginning)
        self.seen["half open"] += 1
        match int(self._random.integers(3)):
            case 0:
                reset(connection)
            case 1:
                connection.close()
            case _:
                self._open.append(connection)

    async def _reconnected(self) -> None:
        """Goes without a word while calls are in flight, and comes again."""
        calls = [self._infer(self._rows()[1]) for _ in range(4)]
        self.seen["reconnected"] += len(calls)
        await asyncio.sleep(0)
        await self._channel.close()
        await asyncio.gather(*calls, return_exceptions=True)
        self._channel = grpc.aio.insecure_channel(self._address, options=OPTIONS)

    def _infer(
        self, message: pb.ModelInferRequest, timeout: float = 60
    ) -> grpc.aio.UnaryUnaryCall[Message, pb.ModelInferResponse]:
        kinds = (pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString)
        return self._channel.unary_unary(SERVICE + "ModelInfer", *kinds)(message, timeout=timeout)

    def _streamed(self, messages: AsyncIterator[bytes]) -> grpc.aio.StreamStreamCall[bytes, pb.ModelStreamInferResponse]:
        as_they_are: Callable[[bytes], bytes] = bytes
        kinds = (as_they_are, pb.ModelStreamInferResponse.FromString)
        return self._channel.stream_stream(SERVICE + "ModelStreamInfer", *kinds)(messages, timeout=60)

    async def _expect(self, kind: str, call: Awaitable[pb.ModelInferResponse], rows: Rows | None = None) -> None:
        self.seen[kind] += 1
        try:
            response = await call
        except grpc.aio.AioRpcError as error:
            self.wrong[f"{kind}: {error.code().name}"] += 1
            return
        if rows is not None:
            self._compare(kind, decode_response(response)["answer"], rows)

    async def _refused(self, kind: str, call: Awaitable[object], *codes: grpc.StatusCode) -> None:
        self.seen[kind] += 1
        try:
            await call
            self.wrong[f"{kind}: was answered"] += 1
        except grpc.aio.AioRpcError as error:
            self._check(kind, error.code(), *(codes or _REFUSED))

    def _check(self, kind: str, code: grpc.StatusCode, *expected: grpc.StatusCode) -> None:
        if code not in expected:
            self.wrong[f"{kind}: {code.name}"] += 1

    def _compare(self, kind: str, answer: Rows, rows: Rows) -> None:
        if not np.array_equal(answer, answer_to(rows, WORK)):
            self.wrong[f"{kind}: wrong answer"] += 1

    def _rows(self) -> tuple[Rows, pb.ModelInferRequest]:
        self._numbered += 1
        rows = rows_of(self._number, self._numbered, int(self._random.integers(1, 9)), 8)
        return rows, encode_request("identity", {"row": rows}, request_id=str(self._numbered))

    def _encoded(self, *files: bytes) -> pb.ModelInferRequest:
        pictures = np.empty(len(files), object)
        pictures[:] = files
        return encode_request("colours", {"image": pictures})

    def _any(self, choices: list[T]) -> T:
        return choices[int(self._random.integers(len(choices)))]
