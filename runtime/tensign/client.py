"""The client a Python user wants: images or arrays in, predictions out, one at a time or as a stream."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import numpy.typing as npt

from tensign import errors
from tensign._pb import open_inference_pb2 as pb
from tensign.classification import Prediction
from tensign.rpc.codec import decode_response, encode_request
from tensign.rpc.status import error_of
from tensign.signature import Arrays

Image = str | Path | bytes | npt.NDArray[np.uint8]

_SERVICE = "/inference.GRPCInferenceService/"
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Client:
    """One connection to one server; `model` may stay empty where the server offers a single one.

    Raises tensign.errors: InvalidInput, ModelNotFound, QueueFull, DeadlineExceeded, ... as the server meant them, and
    ModelNotReady where no server answers. timeout_s: the deadline of every unary call, in seconds.
    """

    def __init__(self, address: str, *, model: str = "", timeout_s: float = 60.0) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._model = model
        self._metadata: pb.ModelMetadataResponse | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    @property
    def model(self) -> str:
        if not self._model:
            served = [stats.name for stats in self.statistics()]
            if len(set(served)) != 1:
                raise errors.ModelNotFound(f"{self.address} serves {', '.join(sorted(set(served)))}: say which model")
            self._model = served[0]
        return self._model

    def ready(self) -> bool:
        """True where the server has warmed its models up and is not draining."""
        response: pb.ServerReadyResponse = self._unary("ServerReady", pb.ServerReadyResponse, b"")
        return response.ready

    def metadata(self) -> pb.ModelMetadataResponse:
        """The model's signature and what else the server says of it; asked for once."""
        if self._metadata is None:
            request = pb.ModelMetadataRequest(name=self.model)
            self._metadata = self._unary("ModelMetadata", pb.ModelMetadataResponse, request.SerializeToString())
        return self._metadata

    def statistics(self) -> list[pb.ModelStatistics]:
        """Counts and times of every served model since it was loaded."""
        return list(self._unary("ModelStatistics", pb.ModelStatisticsResponse, b"").model_stats)

    def infer(self, inputs: Mapping[str, Any] | npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """{input: [n,...]} -> {output: [n,...]}; one array is enough where the model has one input."""
        if not isinstance(inputs, Mapping):
            inputs = {self.metadata().inputs[0].name: inputs}
        arrays = {name: _array(value) for name, value in inputs.items()}
        return decode_response(self.send(encode_request(self.model, arrays).SerializeToString()))

    def classify(
        self, images: Image | Iterable[Image], *, top: int = 1, window: int = 32
    ) -> Iterator[list[Prediction] | errors.TensignError]:
        """Streams pictures (paths, encoded bytes or uint8 [H,W,3]) and yields each one's `top` classes, best first, in order.

        Lazy at both ends, at most `window` on their way. A picture that fails, or a file that cannot be read, yields its
        error, which names the file; the stream goes on.
        """
        if isinstance(images, str | Path | bytes | np.ndarray):
            images = [images]
        output = self.metadata().outputs[0].name
        unsent: deque[tuple[str, str]] = deque()  # for each picture its name, and why it could not be sent

        def messages() -> Iterator[bytes]:
            for image in images:
                name = f"{image}: " if isinstance(image, str | Path) else ""
                reason = ""
                try:
                    message = self.request(image, {output: top})
                except (OSError, ValueError, TypeError) as error:
                    reason = (isinstance(error, OSError) and error.strerror) or str(error)
                    message = self.request(b"", {output: top})  # keeps its place in the order, and in the window
                unsent.append((name, reason))
                yield message

        for response in self.send_stream(messages(), window=window):
            name, reason = unsent.popleft()
            if reason:
                yield errors.InvalidInput(f"{name}{reason}")
            elif response.error_message:
                yield errors.TensignError(f"{name}{response.error_message}")
            else:
                yield [Prediction.parse(text) for text in decode_response(response.infer_response)[output][0]]

    def request(self, image: Image, classes: Mapping[str, int] | None = None) -> bytes:
        """The serialized request for one picture: encoded ones go as they are, arrays as the signature's tensor.

        Raises InvalidInput where the model takes no encoded images, OSError where the file cannot be read.
        """
        metadata = self.metadata()
        if isinstance(image, np.ndarray):
            inputs: Arrays = {metadata.inputs[0].name: image[None]}
        else:
            name = metadata.parameters["encoded_images"].string_param
            if not name:
                raise errors.InvalidInput(f'model "{self.model}" declares no preprocessing, so it takes no encoded images')
            inputs = {name: _array([bytes(image) if isinstance(image, bytes | bytearray) else Path(image).read_bytes()])}
        return encode_request(self.model, inputs, classes=classes).SerializeToString()

    def send(self, message: bytes) -> pb.ModelInferResponse:
        """One serialized ModelInferRequest, one answer."""
        response: pb.ModelInferResponse = self._unary("ModelInfer", pb.ModelInferResponse, message)
        return response

    def send_stream(self, messages: Iterable[bytes], *, window: int = 32) -> Iterator[pb.ModelStreamInferResponse]:
        """Serialized requests over one stream, answers in their order; `messages` is read at most `window` ahead.

        It is read in a thread of grpc's, and no more once the answers are closed.
        """
        if window < 1:
            raise errors.InvalidConfig(f"window: wanted at least 1, got {window}")
        room, closed = threading.Semaphore(window), threading.Event()
        failure: queue.SimpleQueue[BaseException] = queue.SimpleQueue()

        def feed() -> Iterator[bytes]:
            try:
                iterator = iter(messages)
                while True:
                    room.acquire()  # before the next one is made, so that nothing waits made
                    if closed.is_set() or (message := next(iterator, None)) is None:
                        return
                    yield message
            except BaseException as error:  # grpc would swallow what reading the pictures raises
                failure.put(error)

        method = self._channel.stream_stream(_SERVICE + "ModelStreamInfer", _as_it_is, pb.ModelStreamInferResponse.FromString)
        call = method(feed())
        try:
            for response in call:
                room.release()
                yield response
        except grpc.RpcError as error:
            raise error_of(error.code(), error.details(), self.address) from None
        finally:
            closed.set()
            call.cancel()
            room.release()
        if not failure.empty():
            raise failure.get()

    def _unary(self, method: str, answer: Any, message: bytes) -> Any:
        call = self._channel.unary_unary(_SERVICE + method, _as_it_is, answer.FromString)
        try:
            return call(message, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise error_of(error.code(), error.details(), self.address) from None


def _array(value: Any) -> npt.NDArray[Any]:
    """An array as it is; a list of bytes as BYTES, which numpy alone would pad with zeros."""
    if isinstance(value, list | tuple) and value and isinstance(value[0], bytes):
        rows = np.empty(len(value), object)
        rows[:] = value
        return rows
    return np.asarray(value)


def _as_it_is(message: bytes) -> bytes:
    return message
