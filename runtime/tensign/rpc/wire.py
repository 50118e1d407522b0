"""The bytes of a call -> its message, without copying large tensors out of them.

protobuf copies every bytes field, which costs a picture of 270 kB more than all that is done with it besides
(benchmarks/wire.py). Here large raw contents stay where gRPC put them; everything else goes through protobuf's own parser.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from tensign._pb import open_inference_pb2 as pb
from tensign.errors import InvalidInput

_MAX_BESIDE_RAW = 16 << 20  # parsed, what is no raw contents takes up to 44 times its bytes
_MAX_FIELDS = 1 << 14  # each takes 1.5 us here, while nobody else is served; 4096 inputs with their contents are 8192
_TAG_BYTES = 5
_LARGE = 32 << 10  # from here on looking through the fields costs less than copying them
_RAW = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | 2
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5  # wire types; groups are left to protobuf

M = TypeVar("M", bound=Message)
Raw = Sequence[bytes] | Sequence[memoryview]


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came. raw: its raw_input_contents, which `request` itself may lack; size: bytes of the message;
    took_ns: what reading it took.
    """

    request: pb.ModelInferRequest
    raw: Raw
    size: int
    took_ns: int = 0


def received(content: bytes) -> Received:
    """A ModelInferRequest from its bytes, which its raw contents keep alive as views. Raises InvalidInput."""
    began, size = time.perf_counter_ns(), len(content)
    if size < _LARGE or (found := _divided(content)) is None:
        request = parse(pb.ModelInferRequest, content)
        return Received(request, request.raw_input_contents, size, time.perf_counter_ns() - began)
    rest, raw = found
    return Received(parse(pb.ModelInferRequest, rest), raw, size, time.perf_counter_ns() - began)


def parse(kind: type[M], content: bytes) -> M:
    """A message of protobuf's from its bytes. Raises InvalidInput for bytes that are none.

    Large tensors travel raw: a large message of much else, such as a million inputs of no bytes, is refused unparsed.
    """
    if len(content) > _MAX_BESIDE_RAW:
        raise _too_much()
    try:
        return kind.FromString(content)
    except DecodeError:
        raise InvalidInput(f"{len(content)} bytes are no {kind.DESCRIPTOR.name}") from None


def _divided(content: bytes) -> tuple[bytes, list[memoryview]] | None:
    """What is no raw contents, and views of those that are; None where that is no chain of plain fields.

    Raises InvalidInput where there is too much beside them.
    """
    view, end = memoryview(content), len(content)
    rest: list[memoryview] = []
    raw: list[memoryview] = []
    at, beside, fields = 0, 0, 0
    while at < end:
        begins = at
        tag, at = _varint(content, at)
        if at - begins > _TAG_BYTES:
            return None
        wire = tag & 7
        if wire == _BYTES:
            length, at = _varint(content, at)
            at += length
        elif wire == _VARINT:
            _, at = _varint(content, at)
        elif wire in (_FIXED_64, _FIXED_32):
            at += 8 if wire == _FIXED_64 else 4
        else:
            return None
        if at > end or not tag >> 3:
            return None
        if tag == _RAW:
            raw.append(view[at - length : at])
        else:
            rest.append(view[begins:at])
            beside += at - begins
        fields += 1
        if fields > _MAX_FIELDS:
            raise InvalidInput(f"expected at most {_MAX_FIELDS} fields in a message of {end} bytes, got more")
        if beside > _MAX_BESIDE_RAW:
            raise _too_much()
    return b"".join(rest), raw


def _too_much() -> InvalidInput:
    return InvalidInput(
        f"the message has more than {_MAX_BESIDE_RAW} bytes beside raw_input_contents; send large tensors in those"
    )


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """(value, where the next field begins), which lies behind the end where the varint is cut or too long."""
    value = 0
    for place in range(at, min(at + 10, len(content))):
        value |= (content[place] & 0x7F) << 7 * (place - at)
        if content[place] < 0x80:
            return value, place + 1
    return value, len(content) + 1
