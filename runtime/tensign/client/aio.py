"""The client of asyncio programs; `Client` is the same for everybody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
from PIL.Image import Image

from tensign._pb import open_inference_pb2 as pb
from tensign.client.answer import Answer
from tensign.client.connection import MAX_RETRIES, SERVICE, Connection
from tensign.client.exchange import Exchange, Item
from tensign.client.messages import Input, Messages, Picture
from tensign.client.metadata import ModelMetadata, ServerMetadata
from tensign.client.source import FromAsync, FromIterable, source_of
from tensign.errors import (
    DeadlineExceeded,
    InvalidConfig,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    SignatureMismatch,
    TensignError,
)
from tensign.request import Outputs
from tensign.rpc.status import error_of_answer

WINDOW = 64  # as many as the server reads ahead of a stream
CLOSED = "the client is closed"

_ONE = (str, Path, bytes, bytearray, memoryview, np.ndarray, Image)  # these iterate, and are one picture all the same
_YEAR_S = 366 * 86400.0  # gRPC takes no longer deadline


class AsyncClient:
    """One connection to one server, of one event loop; `model` may stay empty where the server offers a single one.

    timeout_s: the deadline of every request, in seconds. tls, certificate, token, retries: see Connection. Every call
    raises tensign.errors as the server meant them, ModelNotReady where none answers.
    """

    def __init__(
        self,
        address: str,
        *,
        model: str = "",
        version: str = "",
        timeout_s: float = 60.0,
        retries: int = MAX_RETRIES,
        tls: bool | str | Path = False,
        certificate: tuple[str | Path, str | Path] | None = None,
        token: str | Callable[[], str] | None = None,
    ) -> None:
        """Raises InvalidConfig; connects when it is used."""
        if isinstance(address, str):
            address = address.removeprefix("grpc://")  # as `tensign serve` prints it
        self.address = address
        self._connection = Connection(address, tls=tls, certificate=certificate, token=token, retries=retries)
        self._timeout_s = _timeout(timeout_s)
        self._given, self._version = model, version
        self._only = ""  # the model that the server offers, where it is a single one
        self._metadata: ModelMetadata | None = None
        self._opened: grpc.aio.Channel | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends what is under way and gives the connection back."""
        self._closed = True
        if self._opened is not None:
            await self._opened.close()

    async def ready(self, *, timeout_s: float | None = None) -> bool:
        """True where the server has warmed its models up and is not draining; False also where none answers."""
        try:
            response: pb.ServerReadyResponse = await self._unary("ServerReady", pb.ServerReadyResponse, b"", timeout_s)
        except (ModelNotReady, DeadlineExceeded):
            return False
        return response.ready

    async def server(self) -> ServerMetadata:
        """Name, version and extensions of the server."""
        return ServerMetadata.of(await self._unary("ServerMetadata", pb.ServerMetadataResponse, b""))

    async def metadata(self) -> ModelMetadata:
        """The model's contract; asked for once, and again when the server turns out to have another."""
        if self._metadata is None:
            request = pb.ModelMetadataRequest(name=await self.model(), version=self._version)
            answer = await self._unary("ModelMetadata", pb.ModelMetadataResponse, request.SerializeToString())
            self._metadata = ModelMetadata.of(answer)
        return self._metadata

    async def model(self) -> str:
        """The model's name. Raises ModelNotFound where none was given and the server offers several."""
        if not (self._given or self._only):
            served = sorted({stats.name for stats in await self.statistics()})
            if len(served) != 1:
                raise ModelNotFound(f"{self.address} serves {', '.join(served) or 'nothing'}: say which model")
            self._only = served[0]
        return self._given or self._only

    async def statistics(self) -> list[pb.ModelStatistics]:
        """Counts and times of every served model since it was loaded."""
        answer: pb.ModelStatisticsResponse = await self._unary("ModelStatistics", pb.ModelStatisticsResponse, b"")
        return list(answer.model_stats)

    async def infer(self, inputs: Any, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None) -> Outputs:
        """{input: [n,...]} -> {output: [n,...]}; one array is enough where the model has one input.

        A model of columns takes a pandas DataFrame and a list of records as well; params: those that its signature declares.
        More than one request may hold is sent as several, and joined again.
        """
        messages = await self._messages(timeout_s=timeout_s)
        pieces = await asyncio.to_thread(messages.pieces, inputs, params)
        if len(pieces) == 1:
            return messages.outputs([await self.send(pieces[0], timeout_s=timeout_s)])
        found: list[pb.ModelInferResponse] = []
        async with aclosing(self.send_stream(pieces, timeout_s=timeout_s)) as responses:
            async for response in responses:
                if error := error_of_answer(response):
                    raise error
                found.append(response.infer_response)
        return messages.outputs(found)

    async def predict(
        self, images: Picture | Iterable[Picture] | AsyncIterable[Picture], *, top: int = 5, timeout_s: float | None = None
    ) -> Answer | list[Answer]:
        """One picture -> its Answer, several -> theirs, in order. Raises the first error; `stream` gives each its own.

        A picture is a path, encoded bytes, uint8 [H,W], [H,W,3] or [H,W,4], or Pillow's; uint8 [n,H,W,3] is several.
        """
        messages = await self._messages(top, timeout_s)
        if isinstance(images, Mapping):
            raise InvalidInput("expected pictures, got a mapping; `infer` takes the rows of inputs by name")
        if isinstance(images, np.ndarray) and images.ndim == len(messages.metadata.inputs[0].shape):
            images = list(images)
        if isinstance(images, Iterable | AsyncIterable) and not isinstance(images, _ONE):
            async with aclosing(self.stream(images, top=top, timeout_s=timeout_s)) as answers:
                return [answer.checked() async for answer in answers]
        try:
            return await self._predicted(images, messages, timeout_s)
        except _Exchanged:  # once: by a balancer before two models it might go on for ever
            return await self._predicted(images, await self._messages(top, timeout_s), timeout_s)

    async def stream(
        self,
        images: Iterable[Input] | AsyncIterable[Input],
        *,
        top: int = 5,
        window: int = WINDOW,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[Answer, None]:
        """Streams pictures, or mappings {input: [n,...]}, and yields their answers in order.

        Lazy at both ends, at most `window` on their way or waiting to be taken. A picture that fails, or a file that cannot
        be read, yields an Answer with its error; the stream goes on.
        """
        if isinstance(images, _ONE) or isinstance(images, Mapping):
            images = [images]  # else a path would be taken for its letters
        messages = await self._messages(top, timeout_s)
        async with aclosing(self._exchange(source_of(images, messages.item), window, timeout_s)) as items:
            async for item in items:
                if isinstance(item.outcome, TensignError):
                    self._forget(item.outcome)
                    yield Answer.failed(item.source, item.outcome)
                else:
                    yield self._answer(messages, item.source, item.outcome or [], rows=item.rows)

    async def send(self, message: bytes, *, timeout_s: float | None = None) -> pb.ModelInferResponse:
        """One serialized ModelInferRequest, one answer."""
        response: pb.ModelInferResponse = await self._unary("ModelInfer", pb.ModelInferResponse, message, timeout_s)
        return response

    async def send_stream(
        self, messages: Iterable[bytes] | AsyncIterable[bytes], *, window: int = WINDOW, timeout_s: float | None = None
    ) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        """Serialized requests over one stream; the answers in order, each in as many parts as the server gave it."""
        source = source_of(messages, lambda message: Item("", message), made=True)
        async with aclosing(self._exchange(source, window, timeout_s)) as items:
            async for item in items:
                if isinstance(item.outcome, TensignError):
                    yield pb.ModelStreamInferResponse(error_message=str(item.outcome), infer_response=item.parts[-1])
                else:
                    for part in item.parts:
                        yield pb.ModelStreamInferResponse(infer_response=part)

    async def request(self, value: Input) -> bytes:
        """The serialized request that `stream` would send for one picture or mapping."""
        return (await self._messages()).of(value)

    async def _exchange(
        self, source: FromIterable | FromAsync, window: int, timeout_s: float | None
    ) -> AsyncGenerator[Item, None]:
        if window < 1:
            raise InvalidConfig(f"window: wanted at least 1, got {window}")
        patience_s = self._timeout_s if timeout_s is None else _timeout(timeout_s)
        exchange = Exchange(self._channel, self._connection, window=window, timeout_s=patience_s)
        try:
            async with aclosing(exchange.answers(source)) as items:
                async for item in items:
                    yield item
        finally:
            source.close()

    async def _predicted(self, image: Any, messages: Messages, timeout_s: float | None) -> Answer:
        item = await asyncio.to_thread(messages.item, image)
        if item.message is None:
            assert isinstance(item.outcome, TensignError)
            return Answer.failed(item.source, item.outcome).checked()
        try:
            response = await self.send(item.message, timeout_s=timeout_s)
            return self._answer(messages, item.source, [response], rows=False)
        except InvalidInput as error:
            raise Answer.failed(item.source, error).error or error from None

    def _answer(self, messages: Messages, source: str, responses: list[pb.ModelInferResponse], *, rows: bool) -> Answer:
        if messages.are_of_another(responses):
            self._forget(error := _Exchanged(f"{self.address}: the server has another model since; ask again"))
            raise error
        return messages.answer(source, responses, rows=rows)

    def _forget(self, error: TensignError) -> None:
        """What was known of the model, where an error may come of its being another by now."""
        if isinstance(error, SignatureMismatch | ModelNotFound | _Exchanged):
            self._only, self._metadata = "", None

    async def _messages(self, top: int = 5, timeout_s: float | None = None) -> Messages:
        if top < 1:
            raise InvalidConfig(f"top: wanted at least 1, got {top}")
        deadline_s = self._timeout_s if timeout_s is None else _timeout(timeout_s)
        return Messages(await self.metadata(), version=self._version, timeout_s=deadline_s, top=top)

    async def _unary(self, method: str, answer: Any, message: bytes, timeout_s: float | None = None) -> Any:
        call = self._channel.unary_unary(f"{SERVICE}{method}", lambda message: message, answer.FromString)
        deadline_s = self._timeout_s if timeout_s is None else _timeout(timeout_s)
        try:
            return await call(message, timeout=deadline_s, metadata=await self._connection.metadata())
        except grpc.RpcError as error:
            failure = self._connection.failure(error, deadline_s)
            self._forget(failure)
            raise failure from None
        except grpc.aio.UsageError:
            raise TensignError(CLOSED) from None

    @property
    def _channel(self) -> grpc.aio.Channel:
        if self._closed:
            raise TensignError(CLOSED)
        if self._opened is None:
            self._opened = self._connection.open()
        return self._opened


class _Exchanged(ModelNotReady):
    """An answer came from another model than the one that was asked about."""


def _timeout(timeout_s: float) -> float:
    if not timeout_s > 0:
        raise InvalidConfig(f"timeout_s: wanted more than 0, got {timeout_s}")
    return min(timeout_s, _YEAR_S)
