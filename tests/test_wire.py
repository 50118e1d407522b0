"""Requests that are read without copying their raw contents are the requests that protobuf reads."""

from __future__ import annotations

import re

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from tensign._pb import open_inference_pb2 as pb
from tensign.errors import InvalidInput
from tensign.rpc import wire
from tensign.rpc.wire import received

PICTURE = np.random.default_rng(0).integers(0, 256, (1, 300, 300, 3), np.uint8).tobytes()
GROUP = bytes([15 << 3 | 3, 15 << 3 | 4])  # of a field that nobody knows


@pytest.fixture
def every(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every message is read as large ones are."""
    monkeypatch.setattr(wire, "_LARGE", 0)


def request(*raw: bytes) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=[1, 300, 300, 3])
    made = pb.ModelInferRequest(model_name="m", id="7", inputs=[tensor], raw_input_contents=raw)
    made.parameters["timeout"].int64_param = -1
    made.outputs.add(name="scores")
    return made


def same(content: bytes) -> bool:
    """Whether both readers see the same message, or neither sees one."""
    try:
        wanted = pb.ModelInferRequest.FromString(content)
    except DecodeError:
        with pytest.raises(InvalidInput, match=f"^{len(content)} bytes are no|^[0-9]+ bytes are no"):
            received(content)
        return True
    came = received(content)
    whole = pb.ModelInferRequest()
    whole.CopyFrom(came.request)
    whole.id = came.id
    whole.raw_input_contents.extend(map(bytes, came.raw))
    return whole == wanted and came.size == len(content)


def test_a_picture_is_a_view_into_its_message() -> None:
    content = request(PICTURE).SerializeToString()
    came = received(content)
    (view,) = came.raw
    assert view == PICTURE and came.request.ByteSize() < 100
    place = np.frombuffer(view, np.uint8).ctypes.data - np.frombuffer(content, np.uint8).ctypes.data
    assert 0 < place == content.index(PICTURE)


def test_requests_that_differ_in_id_and_contents_alone_are_parsed_once() -> None:
    first, second = request(PICTURE), request(b"abc")
    second.id = "8"
    came = [received(each.SerializeToString()) for each in (first, second)]
    assert came[0].request is came[1].request and came[0].heading == came[1].heading
    assert [(each.id, list(each.raw)) for each in came] == [("7", [PICTURE]), ("8", [b"abc"])]


def test_what_is_long_beside_its_contents_is_shared_with_nobody() -> None:
    long = request(PICTURE)
    long.parameters["text"].string_param = "x" * 2000
    came = [received(long.SerializeToString()) for _ in range(2)]
    assert came[0].request == came[1].request and came[0].request is not came[1].request
    assert came[0].heading == came[1].heading == b""


def test_a_small_message_of_many_fields_is_protobufs_own() -> None:
    many = request(*[b"x"] * 100)
    came = received(many.SerializeToString())
    assert came.heading == b"" and came.id == "7" and list(came.raw) == [b"x"] * 100 and not came.request.raw_input_contents


def test_an_id_that_is_no_text_makes_it_no_request() -> None:
    content = request(PICTURE).SerializeToString() + b"\x1a\x01\xff"
    assert same(content)


@pytest.mark.parametrize(
    "content",
    [
        request(b"", b"ab", PICTURE).SerializeToString(),
        PICTURE[:3000] + request(PICTURE).SerializeToString(),
        request(PICTURE).SerializeToString()[:-1],
        request(PICTURE).SerializeToString() + GROUP,
        request(PICTURE).SerializeToString() + b"\x3a",
        request(PICTURE).SerializeToString() + b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        request(PICTURE).SerializeToString() + b"\x38\x05",  # raw_input_contents as a number
        request(PICTURE).SerializeToString() + b"\xba\x00\x01x",  # its tag in two bytes where one would do
        request(PICTURE).SerializeToString() + b"\xba\x80\x80\x80\x80\x00\x01x",  # and in six, which are too many
        request(PICTURE).SerializeToString() + b"\x00\x00",  # field 0
        request(PICTURE).SerializeToString() + b"\x0a\x01n" + request(b"z").SerializeToString(),  # fields again
        request(PICTURE).SerializeToString() + b"\x1a\x01\xff\x1a\x017",  # two ids, the first of them no text
        bytes([9 << 3 | 1]) + bytes(8) + bytes([9 << 3 | 5]) + bytes(4) + request(PICTURE).SerializeToString(),
    ],
)
def test_what_is_unusual_is_read_as_protobuf_does(content: bytes) -> None:
    assert same(content)


@pytest.mark.usefixtures("every")
@settings(max_examples=400, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=3), st.data())
def test_changed_bytes_are_read_as_protobuf_does(raw: list[bytes], data: st.DataObject) -> None:
    content = bytearray(request(*raw).SerializeToString())
    places = st.integers(0, len(content) - 1)
    for place, value in data.draw(st.dictionaries(places, st.integers(0, 255), max_size=4)).items():
        content[place] = value
    assert same(bytes(content[: data.draw(st.integers(0, len(content)))]))


def test_much_beside_the_raw_contents_is_refused_before_it_is_parsed() -> None:
    many = b"\x2a\0" * (9 << 20)
    with pytest.raises(InvalidInput, match=re.escape("more than 16777216 bytes beside raw_input_contents")):
        received(bytes([1 << 3 | 2]) + b"\x80\x80\x80\x09" + many)  # a name of 18 MiB
    with pytest.raises(InvalidInput, match="beside raw_input_contents"):
        wire.parse(pb.ModelMetadataRequest, many)
    assert len(received(request(PICTURE * 80).SerializeToString()).raw) == 1


@pytest.mark.parametrize("field", [b"\x2a\0", b"\x3a\0", b"\x48\0"])
def test_so_many_fields_that_looking_through_them_would_hold_up_everybody_are_refused(field: bytes) -> None:
    assert received(request(PICTURE).SerializeToString() + field * (16384 - 6)).size
    with pytest.raises(InvalidInput, match=r"^expected at most 16384 fields in a message of 1048576 bytes, got more$"):
        received(field * (1 << 19))
