"""A client that sends rows with identities, unary and streamed, good and bad, cancelled and expired, and books every one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import numpy as np
from google.protobuf.message import Message

from tensign._pb import open_inference_pb2 as pb
from tensign.rpc.codec import decode_response, encode_request

from .bad import bad_requests
from .identity import WIDTHS
from .ledger import CANCELLED, EXPIRED, FAILED, LOST, REFUSED, Entry, Ledger

Infer = grpc.aio.UnaryUnaryMultiCallable[Message, pb.ModelInferResponse]
Stream = grpc.aio.StreamStreamMultiCallable[Message, pb.ModelStreamInferResponse]

SERVICE = "/inference.GRPCInferenceService/"
PATIENCE_S = 60.0  # who has no answer by then has lost it
IN_A_ROW = 8  # unary calls that one client makes at once
ON_A_STREAM = 40
CALL_GIVEN_UP_S = (0.0005, 0.03)  # cancelled, or out of time, within
STREAM_GIVEN_UP_S = (0.005, 0.3)
WRITTEN_TOO_LATE = "Internal error from Core"  # what grpc.aio makes of a write to a stream that is over, grpc/grpc#36066


class Client:
    """Bursts of unary calls and streams in turn, on a connection of its own, all drawn from its seed."""

    def __init__(self, number: int, *, seed: int, largest: int, work: int) -> None:
        self.ledger = Ledger(work)
        self._number, self._largest = number, largest
        self._random = np.random.default_rng([seed, number])
        self._requests = 0
        self._bad = list(bad_requests("identity").items())

    async def run(self, address: str, rows: int) -> None:
        """Until so many rows have been answered right, or something is wrong."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            sent, received = pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString
            infer = channel.unary_unary(SERVICE + "ModelInfer", sent, received)
            stream = channel.stream_stream(SERVICE + "ModelStreamInfer", sent, pb.ModelStreamInferResponse.FromString)
            while self.ledger.rows["right"] < rows and not self.ledger.faulty:
                if self._chance(0.5):
                    await asyncio.gather(*(self._unary(infer) for _ in range(self._upto(IN_A_ROW))))
                else:
                    await self._streamed(stream)

    async def _unary(self, infer: Infer) -> None:
        """One call, again where it is refused for lack of room; one in twenty is bad."""
        if self._chance(0.05):
            wrong, message = self._bad_request()
            try:
                await infer(message, timeout=PATIENCE_S)
                self.ledger.bad(f"{wrong}: client {self._number}, unary", refused=False)
            except grpc.aio.AioRpcError as error:
                expected = error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
                self.ledger.bad(f"{wrong}: client {self._number} got {_told(error)}", refused=expected)
            return
        fate, rows, width = self._fate(), self._size(), self._width()
        while True:
            if await self._tried(infer, fate, rows, width):
                return
            await asyncio.sleep(self._between(0.001, 0.02))

    async def _tried(
        self,
        infer: Infer,
        fate: str,
        rows: int,
        width: int,
    ) -> bool:
        """Once; False where it is refused for lack of room."""
        entry, message = self._request(rows, width)
        given_up = self._between(*CALL_GIVEN_UP_S)
        call = infer(message, timeout=given_up if fate == EXPIRED else PATIENCE_S)
        if fate == CANCELLED:
            asyncio.get_running_loop().call_later(given_up, call.cancel)
        try:
            self._book(entry, await call)
        except asyncio.CancelledError:
            if _being_cancelled():
                raise
            self.ledger.settle(entry, fate or FAILED, "cancelled by nobody here")
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                self.ledger.settle(entry, REFUSED)
                return False
            self._failed(entry, fate, error)
        return True

    async def _streamed(self, stream: Stream) -> None:
        """One stream; some are given up, some expire, some are read slowly."""
        fate, slow = self._fate(), self._chance(0.2)
        given_up = self._between(*STREAM_GIVEN_UP_S)
        owed: dict[str, Entry | str] = {}  # by id, the oldest first; a bad request as what is wrong with it
        settled: dict[str, Entry] = {}
        open_ = True

        async def messages() -> AsyncIterator[pb.ModelInferRequest]:
            for _ in range(self._upto(ON_A_STREAM)):
                if not open_:
                    return
                if self._chance(0.1):
                    wrong, message = self._bad_request()
                    owed[message.id] = wrong
                else:
                    entry, message = self._request(self._size(), self._width())
                    owed[entry.id] = entry
                yield message

        call = stream(messages(), timeout=given_up if fate == EXPIRED else PATIENCE_S)
        if fate == CANCELLED:
            asyncio.get_running_loop().call_later(given_up, call.cancel)
        try:
            async for response in call:
                self._take(response, owed, settled, fate)
                if slow:
                    await asyncio.sleep(self._between(0, 0.004))
        except asyncio.CancelledError:
            if _being_cancelled():
                raise
            for entry in _entries(owed):
                self.ledger.settle(entry, fate or FAILED, "cancelled by nobody here")
        except grpc.aio.AioRpcError as error:
            for entry in _entries(owed):
                self._failed(entry, fate, error)
        open_ = False
        for entry in _entries(owed):
            self.ledger.settle(entry, LOST, "the stream ended")

    def _take(
        self, response: pb.ModelStreamInferResponse, owed: dict[str, Entry | str], settled: dict[str, Entry], fate: str
    ) -> None:
        """One answer of a stream: whole, a part, or an error."""
        answer, text = response.infer_response, response.error_message
        if answer.id not in owed:
            if answer.id in settled and not text:
                self._book(settled[answer.id], answer)
            else:
                self.ledger.stray(1, f'client {self._number} got "{answer.id}" {text}, which it did not ask for')
            return
        if answer.id != (oldest := next(iter(owed))):
            self.ledger.misplaced(f"{answer.id} was answered before {oldest}")
        entry = owed[answer.id]
        if isinstance(entry, str):
            self.ledger.bad(f"{entry}: client {self._number}, streamed", refused=bool(text))
            del owed[answer.id]
            return
        if text:
            late = fate == EXPIRED and ("deadline" in text or "no answer within" in text)
            self.ledger.settle(entry, EXPIRED if late else FAILED, text)
        else:
            self._book(entry, answer)
        if entry.settled:
            settled[answer.id] = entry
            del owed[answer.id]

    def _book(self, entry: Entry, answer: pb.ModelInferResponse) -> None:
        """A whole answer, or one part of it: its first row and whether it is the last are parameters then."""
        first, last = answer.parameters.get("first_row"), answer.parameters.get("triton_final_response")
        if answer.id != entry.id:
            self.ledger.stray(1, f'request {entry.id} got the answer to "{answer.id}"')
        self.ledger.answer(
            entry,
            decode_response(answer)["answer"],
            first=first.int64_param if first else 0,
            last=last.bool_param if last else True,
        )
        self.ledger.requests["split"] += entry.settled and entry.rows > self._largest

    def _failed(self, entry: Entry, fate: str, error: grpc.aio.AioRpcError) -> None:
        late = error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        if fate and error.details() == WRITTEN_TOO_LATE:
            self.ledger.settle(entry, fate)
        else:
            self.ledger.settle(entry, (EXPIRED if fate == EXPIRED else LOST) if late else FAILED, _told(error))

    def _request(self, rows: int, width: int) -> tuple[Entry, pb.ModelInferRequest]:
        self._requests += 1
        entry = self.ledger.send(self._number, self._requests, rows, width)
        return entry, encode_request("identity", {"row": entry.array}, request_id=entry.id)

    def _bad_request(self) -> tuple[str, pb.ModelInferRequest]:
        self._requests += 1
        wrong, request = self._bad[int(self._random.integers(len(self._bad)))]
        message = pb.ModelInferRequest()
        message.CopyFrom(request)
        message.id = f"bad {self._requests}"
        return wrong, message

    def _fate(self) -> str:
        drawn = self._random.random()
        return CANCELLED if drawn < 0.08 else EXPIRED if drawn < 0.16 else ""

    def _size(self) -> int:
        """Rows of a request: mostly few, often up to a batch, sometimes up to three, which are split."""
        drawn, largest = self._random.random(), self._largest
        low, high = (1, 8) if drawn < 0.6 else (9, max(largest, 9)) if drawn < 0.85 else (largest + 1, 3 * largest)
        return int(self._random.integers(low, high + 1))

    def _width(self) -> int:
        return int(self._random.choice(WIDTHS))

    def _upto(self, most: int) -> int:
        return int(self._random.integers(1, most + 1))

    def _between(self, low: float, high: float) -> float:
        return float(self._random.uniform(low, high))

    def _chance(self, share: float) -> bool:
        return bool(self._random.random() < share)


def _entries(owed: dict[str, Entry | str]) -> list[Entry]:
    return [entry for entry in owed.values() if isinstance(entry, Entry)]


def _told(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name}: {error.details()}"


def _being_cancelled() -> bool:
    """True where the task itself is cancelled, and not only its call."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
