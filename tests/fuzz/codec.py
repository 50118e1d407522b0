"""Bytes of a call -> message -> arrays -> the signature's check -> the answer."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from google.protobuf.message import DecodeError

import hostile
from tensign import datatypes
from tensign._pb import open_inference_pb2 as pb
from tensign.errors import TensignError
from tensign.rpc import wire
from tensign.rpc.answers import encode_response, requested_outputs
from tensign.rpc.codec import decode_request
from tensign.signature import Signature, TensorSpec

MAX_LENGTH = 4096
wire._LARGE = 0  # small ones are read as large ones are
WORDS = [row.protocol.encode() for row in datatypes.TABLE] + [b"classification", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]

_SCORES = {"output": np.array([[0.5, np.nan, 0.25]], np.float32)}
_SIGNATURES = [
    Signature(tuple(TensorSpec(name, np.dtype(dtype), tuple(shape)) for name, (dtype, shape) in served.inputs.items()), ())
    for served in hostile.MODELS.values()
]


def seeds() -> Iterator[bytes]:
    for case in hostile.REQUESTS + hostile.PICTURES:
        message = case.message()
        if len(message) <= MAX_LENGTH:
            yield message


def mutate(content: bytes, limit: int, seed: int) -> bytes:
    """Every other time a change of bytes, else of one tensor in the message, so that it stays a message."""
    import atheris

    chance = random.Random(seed)
    try:
        request = pb.ModelInferRequest.FromString(content)
    except DecodeError:
        request = pb.ModelInferRequest()
    if chance.random() < 0.5 or not request.inputs:
        return bytes(atheris.Mutate(content, limit))
    tensor = chance.choice(request.inputs)
    match chance.randrange(6):
        case 0:
            tensor.datatype = chance.choice(datatypes.TABLE).protocol
        case 1:
            tensor.shape.append(chance.choice((-1, 0, 1, 2, 3, 2**31, 2**62)))
        case 2 if tensor.shape:
            tensor.shape[chance.randrange(len(tensor.shape))] = chance.choice((-1, 0, 1, 2, 3, 5, 2**31, 2**62))
        case 3:
            tensor.name = chance.choice(("image", "a", "b", ""))
        case 4:
            field = chance.choice(
                [row.contents for row in datatypes.TABLE if row.contents and row.contents != "bytes_contents"]
            )
            getattr(tensor.contents, field).extend([chance.choice((0, 1))] * chance.randrange(70))
        case _ if request.raw_input_contents:
            at = chance.randrange(len(request.raw_input_contents))
            request.raw_input_contents[at] = bytes(atheris.Mutate(request.raw_input_contents[at], limit))
    return request.SerializeToString()[:limit]


def enter(content: bytes) -> None:
    try:
        came = wire.received(content)
        request = came.request
        arrays = decode_request(request, came.raw)
        requested_outputs(request, _SCORES)
    except TensignError as error:
        assert 0 < len(str(error).encode()) <= 1000
        return
    encode_response(request, "1", _SCORES, ("cat", "dog")).alone()
    for signature in _SIGNATURES:
        try:
            checked = signature.enforce_inputs(arrays, encoded=("image",))
        except TensignError as error:
            assert 0 < len(str(error).encode()) <= 1000
        else:
            assert all(array.size for array in checked.values())
