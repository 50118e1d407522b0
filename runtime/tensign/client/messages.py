"""Pictures and arrays -> the messages that a model's contract asks for; its messages -> answers."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as pillow

from tensign._pb import open_inference_pb2 as pb
from tensign.classification import predictions
from tensign.client.answer import Answer
from tensign.client.metadata import ModelMetadata
from tensign.errors import InvalidInput
from tensign.request import Outputs
from tensign.rpc.codec import decode_response, encode_request
from tensign.signature import Arrays, TensorSpec

Picture = str | Path | bytes | bytearray | npt.NDArray[Any] | pillow.Image
Input = Picture | Mapping[str, Any]

_ENVELOPE = 64 << 10  # what a message holds besides its tensors, generously


@dataclass(frozen=True, slots=True)
class Messages:
    """timeout_s: the deadline that each request carries; top: the classes that an answer names."""

    metadata: ModelMetadata
    timeout_s: float
    top: int = 5

    def of(self, value: Input) -> bytes:
        """The serialized request for one picture, or for the rows of {input: [n,...]}.

        Encoded pictures go as they are. Decoded ones, uint8 [H,W,3] or Pillow's, go as the signature's tensor where they
        have its size, else as PNG. Raises InvalidInput, OSError where a file cannot be read.
        """
        if isinstance(value, Mapping):
            return self._message({name: as_array(array) for name, array in value.items()})
        if isinstance(value, str | Path):
            return self._encoded(Path(value).read_bytes())
        if isinstance(value, bytes | bytearray | memoryview):
            return self._encoded(bytes(value))
        if isinstance(value, pillow.Image):
            value = np.asarray(value.convert("RGB"))
        if not isinstance(value, np.ndarray):
            raise InvalidInput(f"expected a picture: a path, bytes, an array or a Pillow image; got {type(value).__name__}")
        spec = self.metadata.inputs[0]
        if self.metadata.image and not _fits(value, spec):
            return self._encoded(_png(value))
        return self._message({spec.name: value[None]})

    def pieces(self, inputs: Mapping[str, Any] | npt.NDArray[Any]) -> list[bytes]:
        """The serialized requests for {input: [n,...]} or the only input's array, as few as the server's limits allow."""
        if not isinstance(inputs, Mapping):
            inputs = {self.metadata.inputs[0].name: inputs}
        arrays = {name: as_array(array) for name, array in inputs.items()}
        rows = min((len(array) for array in arrays.values() if array.ndim), default=0)
        step = self._rows_of_a_message(arrays, rows)
        if rows <= step:
            return [self._message(arrays)]
        return [self._message({name: array[at : at + step] for name, array in arrays.items()}) for at in range(0, rows, step)]

    def answer(self, source: str, responses: Sequence[pb.ModelInferResponse], *, rows: bool) -> Answer:
        """`responses`: all parts of one answer. rows: keep the axis of rows, which a picture has no use for."""
        outputs = joined([decode_response(response) for response in responses])
        if rows:
            return Answer(source, outputs)
        single = {name: array[0] for name, array in outputs.items()}
        return Answer(source, single, tuple(self._predictions(outputs)))

    def _predictions(self, outputs: Outputs) -> Iterator[Any]:
        scores = outputs.get(self.metadata.outputs[0].name)
        if scores is None or scores.ndim != 2 or scores.dtype.kind != "f":
            return
        threshold = self.metadata.threshold
        count = self.top if threshold is None else scores.shape[1]
        for prediction in predictions(scores, count, self.metadata.labels)[0]:
            if threshold is None or prediction.score > threshold:
                yield prediction

    def _encoded(self, picture: bytes) -> bytes:
        if not self.metadata.image:
            raise InvalidInput(f'model "{self.metadata.name}" declares no preprocessing, so it takes no encoded pictures')
        return self._message({self.metadata.image: as_array([picture])})

    def _message(self, arrays: Arrays) -> bytes:
        request = encode_request(self.metadata.name, arrays)
        request.parameters["timeout"].int64_param = int(self.timeout_s * 1e6)  # microseconds, as Triton reads it
        return request.SerializeToString()

    def _rows_of_a_message(self, arrays: Arrays, rows: int) -> int:
        step = self.metadata.max_request_rows or rows
        if self.metadata.max_message_bytes and rows:
            sent = sum(map(_bytes, arrays.values())) / rows
            answered = sum(math.prod(spec.shape[1:]) * spec.dtype.itemsize for spec in self.metadata.outputs)
            step = min(step, int((self.metadata.max_message_bytes - _ENVELOPE) / max(sent, answered, 1)))
        return max(step, 1)


def joined(pieces: Sequence[Outputs]) -> Outputs:
    """The rows of several answers as one."""
    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def as_array(value: Any) -> npt.NDArray[Any]:
    """An array as it is; a list of bytes as BYTES, which numpy alone would pad with zeros."""
    if isinstance(value, list | tuple) and value and isinstance(value[0], bytes | bytearray | memoryview):
        rows = np.empty(len(value), object)
        rows[:] = [bytes(row) for row in value]
        return rows
    return np.asarray(value)


def _fits(pixels: npt.NDArray[Any], spec: TensorSpec) -> bool:
    """True as well for what is no picture at all: the server's refusal says what was wanted."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        return True
    return all(want in (-1, got) for want, got in zip(spec.shape[1:], pixels.shape, strict=False))


def _png(pixels: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    pillow.fromarray(pixels).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def _bytes(array: npt.NDArray[Any]) -> int:
    return array.nbytes if array.dtype != object else sum(len(value) + 4 for value in array.flat)
