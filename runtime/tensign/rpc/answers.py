"""An answer as a message: the outputs that a request asked for, as numbers, as classes, or in shared memory.

Messages of protobuf's may be put together from serialised pieces: what most answers say alike is serialised once, and rows are
copied once, out of their array into the message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from tensign import datatypes
from tensign._pb import open_inference_pb2 as pb
from tensign.classification import classified
from tensign.coltypes import ScalarType
from tensign.errors import InvalidInput, ModelFailed
from tensign.rpc.codec import SHA256, SHA256_LETTERS, as_column, to_bytes
from tensign.rpc.regionfields import Target
from tensign.rpc.wire import bytes_field
from tensign.signature import Arrays
from tensign.specs import ColumnSpec, Spec

_ID = pb.ModelInferResponse.ID_FIELD_NUMBER
_RAW = pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
_ANSWER = pb.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER
_FEW_BYTES = 4096  # sooner copied than looked at


@dataclass(slots=True, eq=False)
class Answer:
    """A ModelInferResponse in pieces; size: bytes of them all. Large rows still lie in their arrays, so make it bytes soon."""

    pieces: list[Any]
    size: int

    def alone(self) -> bytes:
        """As the answer of a unary call."""
        return b"".join(self.pieces)

    def streamed(self) -> bytes:
        """As one answer of a stream, in its ModelStreamInferResponse."""
        return b"".join((bytes_field(_ANSWER, self.size), *self.pieces))

    def say(self, parameters: Mapping[str, int]) -> None:
        """Adds parameters, bools and int64."""
        beside = pb.ModelInferResponse()
        for name, value in parameters.items():
            if isinstance(value, bool):
                beside.parameters[name].bool_param = value
            else:
                beside.parameters[name].int64_param = value
        self._add(beside.SerializeToString())

    def _add(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self.size += len(piece)


def encode_response(
    request: pb.ModelInferRequest,
    version: str,
    outputs: Arrays,
    labels: Sequence[str] = (),
    specs: Iterable[Spec] = (),
    placed: Mapping[str, Target] | None = None,
    *,
    request_id: str = "",
    digest: str = "",
) -> Answer:
    """The answer to `request`: the outputs it asked for (none named: all), as numbers or as its top k classes.

    specs: the signature's outputs, which tell a column of text from one of JSON. A column is [n]: text as UTF-8, datetimes
    as ISO 8601, compound values as JSON, each BYTES; a missing text or datetime is empty. placed: outputs that go to a region
    of shared memory, whose raw content is empty. digest: of the model, "" where it has none. Raises ModelFailed, and
    InvalidInput where a region is too small.
    """
    if not request.outputs and not any(array.dtype.kind in "OMSU" for array in outputs.values()):
        tensors = tuple((name, array.dtype, array.shape) for name, array in outputs.items())
        return _answer(_envelope(request.model_name, version, digest, tensors), request_id, map(_content, outputs.values()))
    compound = {spec.name for spec in specs if isinstance(spec, ColumnSpec) and not isinstance(spec.type, ScalarType)}
    response = pb.ModelInferResponse.FromString(_envelope(request.model_name, version, digest, ()))
    contents = []
    for name, count in requested_outputs(request, outputs).items():
        if count:
            array = classified(outputs[name], count, labels)
        else:
            try:
                array = as_column(outputs[name], compound=name in compound)
            except InvalidInput as error:
                raise ModelFailed(f'output "{name}": {error}') from None
        tensor = response.outputs.add(name=name, datatype=datatypes.of_numpy(array.dtype).protocol, shape=array.shape)
        goes = placed.get(name) if placed else None
        contents.append(goes.put(tensor, to_bytes(array)) if goes else _content(array))
    return _answer(response.SerializeToString(), request_id, contents)


def requested_outputs(request: pb.ModelInferRequest, known: Iterable[str]) -> dict[str, int]:
    """{output: classes wanted, 0 for the numbers}. Raises InvalidInput for an output that the model does not have."""
    names = list(known)
    if not request.outputs:
        return dict.fromkeys(names, 0)
    wanted = {}
    for output in request.outputs:
        if output.name not in names:
            raise InvalidInput(f'output "{output.name[:64]}" is unknown; the model gives {", ".join(names)}')
        if output.name in wanted:
            raise InvalidInput(f'output "{output.name}" is asked for twice')
        wanted[output.name] = 0
        if "classification" in output.parameters:
            asked = output.parameters["classification"]
            if asked.WhichOneof("parameter_choice") != "int64_param" or asked.int64_param < 1:
                raise InvalidInput(f'output "{output.name}": classification: wanted an int64 of at least 1')
            wanted[output.name] = asked.int64_param
    return wanted


@lru_cache(256)
def _envelope(model: str, version: str, digest: str, tensors: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]) -> bytes:
    """An answer without its id and its raw contents: most answers differ in nothing else."""
    response = pb.ModelInferResponse(model_name=model, model_version=version)
    for name, dtype, shape in tensors:
        response.outputs.add(name=name, datatype=datatypes.of_numpy(dtype).protocol, shape=shape)
    if digest:
        response.parameters[SHA256].string_param = digest[:SHA256_LETTERS]
    return response.SerializeToString()


def _answer(envelope: bytes, request_id: str, contents: Iterable[memoryview | bytes]) -> Answer:
    pieces: list[memoryview | bytes] = [envelope]
    if request_id:
        sent = request_id.encode()
        pieces += bytes_field(_ID, len(sent)), sent
    for content in contents:
        pieces += bytes_field(_RAW, len(content)), content
    return Answer(pieces, sum(map(len, pieces)))


def _content(array: np.ndarray[Any, Any]) -> memoryview | bytes:
    """An output's bytes; of a large one of numbers a view."""
    if array.nbytes < _FEW_BYTES or array.dtype.kind == "O":
        return to_bytes(array)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data.cast("B")
