"""The bytes of a call -> its message, without copying tensors out of them, and without parsing what was parsed before.

protobuf copies every bytes field, which costs a picture of 270 kB more than all that is done with it besides
(benchmarks/wire.py). Here raw contents stay where gRPC put them; everything else goes through protobuf's own parser, once for
requests that differ in nothing but their id and their raw contents.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from tensign._pb import open_inference_pb2 as pb
from tensign.errors import InvalidInput

_MAX_BESIDE_RAW = 16 << 20  # parsed, what is no raw contents takes up to 44 times its bytes
_MAX_FIELDS = 1 << 14  # each takes 1.5 us here, while nobody else is served; 4096 inputs with their contents are 8192
_TAG_BYTES = 5
_FEW_FIELDS, _LARGE = 64, 32 << 10  # from so many bytes on looking through more fields costs less than copying them
KEPT, _KEPT_BYTES = 256, 1 << 10  # headings that are read once, and the longest: parsed, 44 KiB at most
_RAW = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | 2
_ID = pb.ModelInferRequest.ID_FIELD_NUMBER << 3 | 2
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5  # wire types; groups are left to protobuf

M = TypeVar("M", bound=Message)
Raw = Sequence[bytes] | Sequence[memoryview]


@dataclass(slots=True, eq=False)  # frozen, it would take three times as long to make
class Received:
    """A request as it came. request: without its id and its raw contents, never to be changed, for requests that are equal
    share one; heading: the bytes that it was parsed from, b"" where it is shared with nobody; raw: its raw_input_contents;
    size: bytes of the message; took_ns: what reading it took.
    """

    request: pb.ModelInferRequest
    heading: bytes
    id: str
    raw: Raw
    size: int
    took_ns: int = 0


def received(content: bytes) -> Received:
    """A ModelInferRequest from its bytes, which its raw contents keep alive as views. Raises InvalidInput."""
    began, size = time.perf_counter_ns(), len(content)
    if (found := _divided(content)) is None:
        request = parse(pb.ModelInferRequest, content)
        name, raw = request.id, list(request.raw_input_contents)
        request.ClearField("id")
        request.ClearField("raw_input_contents")
        return Received(request, b"", name, raw, size, time.perf_counter_ns() - began)
    heading, sent, views = found
    try:
        name = str(sent, "utf-8")
    except UnicodeDecodeError:
        raise _none(pb.ModelInferRequest, size) from None
    if len(heading) > _KEPT_BYTES:
        return Received(parse(pb.ModelInferRequest, heading), b"", name, views, size, time.perf_counter_ns() - began)
    return Received(_parsed(heading), heading, name, views, size, time.perf_counter_ns() - began)


@lru_cache(KEPT)
def _parsed(heading: bytes) -> pb.ModelInferRequest:
    return parse(pb.ModelInferRequest, heading)


def parse(kind: type[M], content: bytes) -> M:
    """A message of protobuf's from its bytes. Raises InvalidInput for bytes that are none.

    Large tensors travel raw: a large message of much else, such as a million inputs of no bytes, is refused unparsed.
    """
    if len(content) > _MAX_BESIDE_RAW:
        raise _too_much()
    try:
        return kind.FromString(content)
    except DecodeError:
        raise _none(kind, len(content)) from None


def _divided(content: bytes) -> tuple[bytes, memoryview, list[memoryview]] | None:
    """(what is neither id nor raw contents, the id, the raw contents); None where that is no chain of plain fields, has two
    ids, or is a small message of many fields.

    Raises InvalidInput where there is too much beside the raw contents.
    """
    view, end = memoryview(content), len(content)
    rest: list[memoryview] = []
    raw: list[memoryview] = []
    name: memoryview | None = None
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
            beside += at - begins
            if tag == _ID:
                if name is not None:
                    return None
                name = view[at - length : at]
            else:
                rest.append(view[begins:at])
        fields += 1
        if fields > _FEW_FIELDS and end < _LARGE:
            return None
        if fields > _MAX_FIELDS:
            raise InvalidInput(f"expected at most {_MAX_FIELDS} fields in a message of {end} bytes, got more")
        if beside > _MAX_BESIDE_RAW:
            raise _too_much()
    return b"".join(rest), view[:0] if name is None else name, raw


@lru_cache(KEPT)
def bytes_field(number: int, size: int) -> bytes:
    """What stands before the bytes of field `number` of a message, of 1 to 15."""
    written = bytearray([number << 3 | _BYTES])
    while size > 0x7F:
        written.append(size & 0x7F | 0x80)
        size >>= 7
    written.append(size)
    return bytes(written)


def _none(kind: type[Message], size: int) -> InvalidInput:
    return InvalidInput(f"{size} bytes are no {kind.DESCRIPTOR.name}")


def _too_much() -> InvalidInput:
    return InvalidInput(
        f"the message has more than {_MAX_BESIDE_RAW} bytes beside raw_input_contents; send large tensors in those"
    )


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """(value, where the next field begins), which lies behind the end where the varint is cut or too long."""
    if at < len(content) and (value := content[at]) < 0x80:
        return value, at + 1
    value = 0
    for place in range(at, min(at + 10, len(content))):
        value |= (content[place] & 0x7F) << 7 * (place - at)
        if content[place] < 0x80:
            return value, place + 1
    return value, len(content) + 1
