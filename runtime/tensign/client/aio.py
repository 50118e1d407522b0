"""The client of asyncio programs; `Client` is the same for everybody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
import numpy.typing as npt
from PIL.Image import Image

from tensign._pb import open_inference_pb2 as pb
from tensign.client.answer import Answer
from tensign.client.connection import MAX_RETRIES, SERVICE, Connection
from tensign.client.exchange import Exchange, Item
from tensign.client.messages import Input, Messages, Picture, joined
from tensign.client.metadata import ModelMetadata, ServerMetadata
from tensign.client.source import source_of
from tensign.errors import InvalidConfig, InvalidInput, ModelNotFound, TensignError
from tensign.request import Outputs
from tensign.rpc.codec import decode_response
from tensign.rpc.status import error_of_answer

WINDOW = 64  # as many as the server reads ahead of a stream


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
        timeout_s: float = 60.0,
        retries: int = MAX_RETRIES,
        tls: bool | str | Path = False,
        certificate: tuple[str | Path, str | Path] | None = None,
        token: str | Callable[[], str] | None = None,
    ) -> None:
        """Raises InvalidConfig; connects when it is used."""
        if timeout_s <= 0:
            raise InvalidConfig(f"timeout_s: wanted more than 0, got {timeout_s}")
        self.address = address
        self._connection = Connection(address, tls=tls, certificate=certificate, token=token, retries=retries)
        self._timeout_s = timeout_s
        self._model = model
        self._metadata: ModelMetadata | None = None
        self._opened: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends what is under way and gives the connection back."""
        if self._opened is not None:
            await self._opened.close()

    async def ready(self) -> bool:
        """True where the server has warmed its models up and is not draining."""
        response: pb.ServerReadyResponse = await self._unary("ServerReady", pb.ServerReadyResponse, b"")
        return response.ready

    async def server(self) -> ServerMetadata:
        """Name, version and extensions of the server."""
        return ServerMetadata.of(await self._unary("ServerMetadata", pb.ServerMetadataResponse, b""))

    async def metadata(self) -> ModelMetadata:
        """The model's contract; asked for once."""
        if self._metadata is None:
            request = pb.ModelMetadataRequest(name=await self.model())
            answer = await self._unary("ModelMetadata", pb.ModelMetadataResponse, request.SerializeToString())
            self._metadata = ModelMetadata.of(answer)
        return self._metadata

    async def model(self) -> str:
        """The model's name. Raises ModelNotFound where none was given and the server offers several."""
        if not self._model:
            served = sorted({stats.name for stats in await self.statistics()})
            if len(served) != 1:
                raise ModelNotFound(f"{self.address} serves {', '.join(served) or 'nothing'}: say which model")
            self._model = served[0]
        return self._model

    async def statistics(self) -> list[pb.ModelStatistics]:
        """Counts and times of every served model since it was loaded."""
        answer: pb.ModelStatisticsResponse = await self._unary("ModelStatistics", pb.ModelStatisticsResponse, b"")
        return list(answer.model_stats)

    async def infer(self, inputs: Mapping[str, Any] | npt.NDArray[Any]) -> Outputs:
        """{input: [n,...]} -> {output: [n,...]}; one array is enough where the model has one input.

        More rows than one request may have are sent as several, and joined again.
        """
        pieces = (await self._messages()).pieces(inputs)
        if len(pieces) == 1:
            return decode_response(await self.send(pieces[0]))
        found: list[Outputs] = []
        async for response in self.send_stream(pieces):
            if error := error_of_answer(response):
                raise error
            found.append(decode_response(response.infer_response))
        return joined(found)

    async def predict(self, images: Picture | Iterable[Picture], *, top: int = 5) -> Answer | list[Answer]:
        """One picture -> its Answer, several -> theirs, in order. Raises the first error; `stream` gives each its own.

        A picture is a path, encoded bytes, uint8 [H,W,3], or Pillow's; uint8 [n,H,W,3] is several.
        """
        messages = await self._messages(top)
        if isinstance(images, np.ndarray) and images.ndim == len(messages.metadata.inputs[0].shape):
            images = list(images)
        if isinstance(images, Iterable) and not isinstance(images, str | bytes | bytearray | np.ndarray | Image):
            return [answer.checked() async for answer in self.stream(images, top=top)]
        message = await asyncio.to_thread(messages.of, images)
        return messages.answer(_source(images), [await self.send(message)], rows=False)

    async def stream(
        self, images: Iterable[Input] | AsyncIterable[Input], *, top: int = 5, window: int = WINDOW
    ) -> AsyncGenerator[Answer, None]:
        """Streams pictures, or mappings {input: [n,...]}, and yields their answers in order.

        Lazy at both ends, at most `window` on their way or waiting to be taken. A picture that fails, or a file that cannot
        be read, yields an Answer with its error; the stream goes on.
        """
        messages = await self._messages(top)

        def make(value: Input) -> Item:
            item = Item(_source(value), None, isinstance(value, Mapping))
            try:
                item.message = messages.of(value)
            except (OSError, ValueError, TypeError, TensignError) as error:
                item.outcome = InvalidInput((isinstance(error, OSError) and error.strerror) or str(error))
            return item

        async for item in self._exchange(images, make, window):
            if isinstance(item.outcome, TensignError):
                prefix = f"{item.source}: " if item.source else ""
                yield Answer(item.source, error=type(item.outcome)(f"{prefix}{item.outcome}"))
            else:
                yield messages.answer(item.source, item.outcome or [], rows=item.rows)

    async def send(self, message: bytes, *, timeout_s: float | None = None) -> pb.ModelInferResponse:
        """One serialized ModelInferRequest, one answer."""
        response: pb.ModelInferResponse = await self._unary("ModelInfer", pb.ModelInferResponse, message, timeout_s)
        return response

    async def send_stream(
        self, messages: Iterable[bytes] | AsyncIterable[bytes], *, window: int = WINDOW
    ) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        """Serialized requests over one stream; the answers in order, each in as many parts as the server gave it."""
        async for item in self._exchange(messages, lambda message: Item("", message), window):
            if isinstance(item.outcome, TensignError):
                yield pb.ModelStreamInferResponse(error_message=str(item.outcome), infer_response=item.parts[-1])
            else:
                for part in item.parts:
                    yield pb.ModelStreamInferResponse(infer_response=part)

    async def request(self, value: Input) -> bytes:
        """The serialized request that `stream` would send for one picture or mapping."""
        return (await self._messages()).of(value)

    async def _exchange(
        self, values: Iterable[Any] | AsyncIterable[Any], make: Callable[[Any], Item], window: int
    ) -> AsyncGenerator[Item, None]:
        if window < 1:
            raise InvalidConfig(f"window: wanted at least 1, got {window}")
        source = source_of(values, make)
        exchange = Exchange(self._channel, self._connection, window=window, timeout_s=self._timeout_s)
        answers = exchange.answers(source)
        try:
            async for item in answers:
                yield item
        finally:
            source.close()
            await answers.aclose()

    async def _messages(self, top: int = 5) -> Messages:
        return Messages(await self.metadata(), self._timeout_s, top)

    async def _unary(self, method: str, answer: Any, message: bytes, timeout_s: float | None = None) -> Any:
        call = self._channel.unary_unary(f"{SERVICE}{method}", lambda message: message, answer.FromString)
        try:
            return await call(message, timeout=timeout_s or self._timeout_s, metadata=self._connection.metadata())
        except grpc.RpcError as error:
            raise self._connection.failure(error) from None

    @property
    def _channel(self) -> grpc.aio.Channel:
        if self._opened is None:
            self._opened = self._connection.open()
        return self._opened


def _source(value: object) -> str:
    return str(value) if isinstance(value, str | Path) else ""
