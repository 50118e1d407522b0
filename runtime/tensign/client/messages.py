"""Pictures and arrays -> the messages that a model's contract asks for; its messages -> answers."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as pillow

from tensign._pb import open_inference_pb2 as pb
from tensign.classification import named
from tensign.client.answer import Answer
from tensign.client.columns import as_columns
from tensign.client.exchange import Item
from tensign.client.metadata import ModelMetadata
from tensign.errors import InvalidInput, TensignError, TooLarge
from tensign.request import Outputs, joined
from tensign.rpc.codec import SHA256, WIRE_PARAMETERS, decode_response, encode_param, encode_request
from tensign.signature import Arrays, Signature, TensorSpec

Picture = str | Path | bytes | bytearray | memoryview | npt.NDArray[Any] | pillow.Image
Input = Picture | Mapping[str, Any]

_ENVELOPE = 64 << 10  # what a message holds besides its tensors, generously


class Messages:
    """The requests to one model. timeout_s: the deadline that each carries; top: the classes that an answer names."""

    def __init__(self, metadata: ModelMetadata, *, version: str = "", timeout_s: float, top: int = 5) -> None:
        self.metadata = metadata
        self._version = version
        self._timeout_us = int(timeout_s * 1e6)  # microseconds, as Triton reads it
        self._top = top
        self._ids = itertools.count()

    def item(self, value: Input) -> Item:
        """What `of` makes of a value, or why it cannot be sent. Never raises, for a stream goes on."""
        item = Item(path_of(value), None, rows=isinstance(value, Mapping))
        try:
            request = self._of(value)
            message = request.SerializeToString()
            limit = self.metadata.max_message_bytes
            if limit and len(message) > limit:
                raise TooLarge(f"{len(message)} bytes in one request are more than the server's {limit}")
            item.id, item.message = request.id, message
        except TensignError as error:
            item.outcome = error
        except Exception as error:  # whatever a library raises over a picture
            item.outcome = InvalidInput((isinstance(error, OSError) and error.strerror) or f"{type(error).__name__}: {error}")
        return item

    def of(self, value: Input) -> bytes:
        """The serialized request for one picture, or for the rows of {input: [n,...]}.

        Encoded pictures go as they are. Decoded ones, uint8 [H,W], [H,W,1], [H,W,3], [H,W,4] or Pillow's, get the channels of
        the signature's tensor as Pillow converts them, transparency left out; they go as that tensor where they have its
        size, else as PNG. Raises InvalidInput, OSError where a file cannot be read.
        """
        return self._of(value).SerializeToString()

    def pieces(self, inputs: Any, params: Mapping[str, Any] | None = None) -> list[bytes]:
        """The serialized requests for {input: [n,...]}, the only input's array, or of columns a DataFrame or records; as few
        as the server's limits allow. Raises InvalidInput.
        """
        arrays = self._arrays(inputs)
        lengths = {len(array) if array.ndim else 0 for array in arrays.values()}
        if len(lengths) != 1:  # the server says what is wrong
            return [self._request(arrays, params).SerializeToString()]
        cuts = self._cuts(arrays, lengths.pop())
        slices = [slice(start, stop) for start, stop in itertools.pairwise(cuts)]
        return [self._request({n: a[rows] for n, a in arrays.items()}, params).SerializeToString() for rows in slices]

    def outputs(self, pieces: Sequence[pb.ModelInferResponse]) -> Outputs:
        """The rows of all pieces; columns of text, datetimes and compound types as what they are."""
        outputs = joined([decode_response(piece) for piece in pieces])
        if self._columns is None or set(outputs) != {spec.name for spec in self._columns.outputs}:
            return outputs
        return self._columns.enforce_outputs(outputs)

    def are_of_another(self, responses: Sequence[pb.ModelInferResponse]) -> bool:
        """True where another model gave these answers than the one that the metadata are of."""
        digest = self.metadata.sha256
        said = (response.parameters[SHA256].string_param for response in responses if SHA256 in response.parameters)
        return bool(digest) and any(not digest.startswith(letters) for letters in said)

    def answer(self, source: str, responses: Sequence[pb.ModelInferResponse], *, rows: bool) -> Answer:
        """`responses`: all parts of one answer. rows: keep the axis of rows, which a picture has no use for."""
        outputs = joined([decode_response(response) for response in responses])
        if rows:
            return Answer(source, outputs)
        single = {name: array[0] for name, array in outputs.items()}
        scores, metadata = outputs.get(self.metadata.outputs[0].name), self.metadata
        if scores is None or scores.dtype.kind != "f":
            return Answer(source, single)
        found = named(scores, self._top, metadata.threshold, metadata.labels, metadata.task)
        return Answer(source, single, tuple(found[0]))

    def _of(self, value: Input) -> pb.ModelInferRequest:
        if isinstance(value, Mapping):
            return self._request(self._arrays(value))
        if isinstance(value, str | Path):
            return self._encoded(Path(value).read_bytes())
        if isinstance(value, bytes | bytearray | memoryview):
            return self._encoded(bytes(value))
        if isinstance(value, pillow.Image):
            value = np.asarray(value if value.mode in ("L", "RGB", "RGBA") else value.convert("RGB"))
        if not isinstance(value, np.ndarray):
            raise InvalidInput(f"expected a picture: a path, bytes, an array or a Pillow image; got {type(value).__name__}")
        spec = self.metadata.inputs[0]
        value = _in_channels(value, spec)
        if self.metadata.image and not _fits(value, spec):
            return self._encoded(_png(value))
        return self._request({spec.name: value[None]})

    def _encoded(self, picture: bytes) -> pb.ModelInferRequest:
        if not self.metadata.image:
            raise InvalidInput(f'model "{self.metadata.name}" declares no preprocessing, so it takes no encoded pictures')
        return self._request({self.metadata.image: as_array([picture])})

    @property
    def _columns(self) -> Signature | None:
        signature = self.metadata.signature
        return signature if signature and signature.columnar else None

    def _arrays(self, inputs: Any) -> dict[str, npt.NDArray[Any]]:
        if self._columns is not None:
            return as_columns(inputs, self._columns)
        if isinstance(inputs, Mapping):
            return {name: as_array(array) for name, array in inputs.items()}
        return {self.metadata.inputs[0].name: as_array(inputs)}

    def _request(self, arrays: Arrays, params: Mapping[str, Any] | None = None) -> pb.ModelInferRequest:
        request = encode_request(self.metadata.name, arrays, version=self._version, request_id=str(next(self._ids)))
        request.parameters["timeout"].int64_param = self._timeout_us
        for name, value in (params or {}).items():
            if name in WIRE_PARAMETERS:
                raise InvalidInput(f'param "{name}": the protocol has a parameter of that name, so the model cannot have it')
            request.parameters[name].CopyFrom(encode_param(value))
        return request

    def _cuts(self, arrays: Arrays, rows: int) -> list[int]:
        """Where to cut so many rows: [0, ..., rows]."""
        most_rows, most_bytes = self.metadata.max_request_rows or rows, self.metadata.max_message_bytes - _ENVELOPE
        if not self.metadata.max_message_bytes:
            return [*range(0, rows, most_rows or 1), rows]
        answered = sum(math.prod(s.shape[1:]) * s.dtype.itemsize for s in self.metadata.outputs if -1 not in s.shape[1:])
        sizes = np.maximum(sum(map(_row_bytes, arrays.values())), answered)
        cuts, held = [0], 0
        for row, size in enumerate(sizes.tolist()):
            if row > cuts[-1] and (held + size > most_bytes or row - cuts[-1] == most_rows):
                cuts.append(row)
                held = 0
            held += size
        return [*cuts, rows]


def path_of(value: object) -> str:
    """The path that a value is, "" where it is none."""
    return str(value) if isinstance(value, str | Path) else ""


def as_array(value: Any) -> npt.NDArray[Any]:
    """An array as it is; a list of bytes as BYTES, which numpy alone would pad with zeros."""
    if isinstance(value, list | tuple) and value and isinstance(value[0], bytes | bytearray | memoryview):
        rows = np.empty(len(value), object)
        rows[:] = [bytes(row) for row in value]
        return rows
    return np.asarray(value)


_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def _in_channels(pixels: npt.NDArray[Any], spec: TensorSpec) -> npt.NDArray[Any]:
    """Grey, colours, colours with transparency as the model's [H,W,C] or [H,W]; what is no picture stays, to be refused."""
    if pixels.dtype != np.uint8 or len(spec.shape) not in (3, 4) or not pixels.size:
        return pixels
    if len(spec.shape) == 3:
        grey = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in _MODES)
        return _in_channels(pixels, replace(spec, shape=(*spec.shape, 1)))[:, :, 0] if grey else pixels
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    wanted = 3 if spec.shape[3] == -1 else spec.shape[3]
    if pixels.ndim != 3 or pixels.shape[2] == wanted or not {pixels.shape[2], wanted} <= _MODES.keys():
        return pixels
    image = pillow.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
    converted = np.asarray(image.convert(_MODES[wanted]))
    return converted if converted.ndim == 3 else converted[:, :, None]


def _fits(pixels: npt.NDArray[Any], spec: TensorSpec) -> bool:
    """True as well for what is no picture at all: the server's refusal says what was wanted."""
    if pixels.dtype != np.uint8 or pixels.ndim != len(spec.shape) - 1 or pixels.shape[2:] not in ((), (3,)):
        return True
    return all(want in (-1, got) for want, got in zip(spec.shape[1:], pixels.shape, strict=False))


def _png(pixels: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    pillow.fromarray(pixels).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def _row_bytes(array: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """[n]: what each row takes in a message."""
    if array.dtype != object:
        return np.full(len(array), array.nbytes // max(len(array), 1), np.int64)
    return np.array([sum(len(value) + 4 for value in np.ravel(row)) for row in array], np.int64)
