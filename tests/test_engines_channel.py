"""What crosses between server and worker: every kind of array there and back, and what is no message."""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tensign.engines.arena import Arena, BrokenFrame
from tensign.engines.channel import MAX_HEADER, Channel
from tensign.engines.hosted import _resident
from tensign.engines.packing import MAX_JSON


def objects(*values: Any) -> npt.NDArray[Any]:
    array = np.empty(len(values), object)
    for index, value in enumerate(values):
        array[index] = value
    return array


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel, socket.socket]]:
    """Two ends of one channel, and the socket of the second."""
    sockets = socket.socketpair()
    there, back = os.memfd_create("there"), os.memfd_create("back")
    first = Channel(sockets[0], there, back)
    second = Channel(sockets[1], os.dup(back), os.dup(there))
    yield first, second, sockets[1]
    first.close()
    second.close()


HEADER = {"a": 1, "params": {"at": datetime(2020, 1, 2, 3, 4, 5, 6), "days": [date(2020, 1, 2)], "bytes": b"\xff"}}
ARRAYS: dict[str, npt.NDArray[Any]] = {
    "numbers": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "not contiguous": np.arange(24, dtype=np.int16).reshape(4, 6)[:, ::2],
    "truth": np.array([True, False]),
    "times": np.array(["2020-01-01", "NaT"], "datetime64[ns]"),
    "no rows": np.empty((0, 3), np.uint8),
    "a single value": np.array(7),
    "text": objects("ä", "", None, "\ud800"),
    "text of fixed width": np.array(["a", "bcd"]),
    "bytes": objects(b"\0\xff", b"", None),
    "pictures": objects(np.ones((2, 3, 3), np.uint8), np.zeros((1, 1, 3), np.uint8)),
    "values": objects([1, 2.5, None], {"a": [True]}, "text", b"\xff", 7),
    "values of one length": objects([1, 2], [3, 4]),
    "what looks like ours": objects({"\0bytes": "abc"}, {"\0datetime": "x"}, {"0" * 32: ["bytes", "x"]}),
    "times of every kind": objects(datetime(2020, 1, 2, 3, tzinfo=UTC), date(2020, 1, 2), np.datetime64("2020-01-02T03", "ns")),
    "rank 2": objects("a", "b", "c", "d").reshape(2, 2),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_arrive_as_they_were_sent(ends: tuple[Channel, Channel, socket.socket], name: str) -> None:
    first, second, _ = ends
    first.send(HEADER, {"x": ARRAYS[name], "y": np.ones(3)})
    header, arrays = second.receive()
    assert header == HEADER
    assert arrays["x"].shape == ARRAYS[name].shape
    np.testing.assert_equal(arrays["x"].tolist(), ARRAYS[name].tolist())
    if ARRAYS[name].dtype.kind not in "OU":
        assert arrays["x"].dtype == ARRAYS[name].dtype


def test_the_memory_grows_with_the_arrays(ends: tuple[Channel, Channel, socket.socket]) -> None:
    first, second, _ = ends
    for size in (1, 5000, 3, 2_000_000):
        first.send({}, {"x": np.full(size, size, np.int64)})
        assert second.receive()[1]["x"].tolist() == [size] * size


def message(arrays: Any, size: Any = 64) -> bytes:
    text = json.dumps({"header": {}, "arrays": arrays, "bytes": size}).encode()
    return framed(text)


def framed(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<I16s", len(text) if length is None else length, bytes(16)) + text


@pytest.mark.parametrize(
    "sent",
    {
        "a long header": framed(b"", MAX_HEADER + 1),
        "no JSON": framed(b"abc"),
        "a list": framed(b"[]"),
        "deep": framed(b"[" * 200_000),
        "more than there is": message([], 1 << 30),
        "far more": message([], 1 << 50),
        "negative": message([], -1),
        "behind the end": message([["x", "plain", [9], [[0, "<f8", [9]]]]]),
        "before the start": message([["x", "plain", [1], [[-8, "<f8", [1]]]]]),
        "negative axes": message([["x", "plain", [1], [[0, "<f8", [-1, -1]]]]]),
        "objects": message([["x", "plain", [1], [[0, "|O", [1]]]]]),
        "records": message([["x", "plain", [1], [[0, "V8", [1]]]]]),
        "no dtype": message([["x", "plain", [1], [[0, "import os", [1]]]]]),
        "another shape": message([["x", "plain", [7], [[0, "<f8", [1]]]]]),
        "too few texts": message([["x", "text", [7], [[0, "<i8", [1]], [8, "|u1", [1]]]]]),
        "many axes": message([["x", "plain", [1], [[0, "<f8", [1] * 60_000]]]]),
        "many long axes": message([["x", "plain", [1], [[0, "<f8", [9] * 60_000]]]]),
        "an array of many axes": message([["x", "plain", [1] * 33, [[0, "<f8", [1]]]]]),
        "axes that are no numbers": message([["x", "plain", [1], [[0, "<f8", [1.0]]]]]),
        "an axis to be guessed": message([["x", "plain", [-1], [[0, "<f8", [1]]]]]),
        "no kind of value": framed(b'{"header": {"%s": ["pickle", "x"]}, "arrays": [], "bytes": 0}' % (b"0" * 32)),
        "no time": framed(b'{"header": {"%s": ["datetime64", "x"]}, "arrays": [], "bytes": 0}' % (b"0" * 32)),
        "no place": message([["x", "text", [7], []]]),
    }.items(),
    ids=lambda case: case[0],
)
def test_what_is_no_message_is_told_as_that(ends: tuple[Channel, Channel, socket.socket], sent: tuple[str, bytes]) -> None:
    first, second, raw = ends
    second.send({}, {"x": np.zeros(8)})  # 64 bytes of memory
    first.receive()
    raw.sendall(sent[1])
    with pytest.raises(BrokenFrame):
        first.receive()


def test_much_json_is_not_parsed(ends: tuple[Channel, Channel, socket.socket]) -> None:
    first, second, raw = ends
    size = MAX_JSON + 64
    second.send({}, {"x": np.full(size, ord(" "), np.uint8)})
    first.receive()
    raw.sendall(message([["x", "json", [1], [[0, "|u1", [size]]]]], size))
    with pytest.raises(BrokenFrame, match="bytes of JSON"):
        first.receive()


@pytest.mark.parametrize(("wanted", "size"), [(1 << 20, 1 << 20), ((1 << 20) + 1, 2 << 20), (1, mmap.PAGESIZE)])
def test_memory_of_a_power_of_two_is_not_doubled(wanted: int, size: int) -> None:
    with closing(Arena(os.memfd_create("arena"))) as arena:
        assert len(arena.room(wanted)) == size


def test_what_is_shared_is_no_growth_of_the_worker() -> None:
    with closing(Arena(os.memfd_create("arena"))) as arena:
        before = _resident()
        arena.room(64 << 20)[:] = bytes(64 << 20)
        assert _resident() - before < 16 << 20


def test_an_end_that_is_gone(ends: tuple[Channel, Channel, socket.socket]) -> None:
    first, _, raw = ends
    raw.sendall(b"\1")
    raw.shutdown(socket.SHUT_RDWR)
    with pytest.raises(EOFError):
        first.receive()


def test_what_json_cannot_say_is_not_sent(ends: tuple[Channel, Channel, socket.socket]) -> None:
    with pytest.raises(TypeError, match="a object cannot cross"):
        ends[0].send({}, {"x": objects(object())})
