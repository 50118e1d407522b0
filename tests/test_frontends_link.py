"""What crosses between a front end and the server: messages both ways, places in shared memory, and what is no message."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from fronted import SOON
from linked import MIB, Pair, pair
from tensign.engines.arena import BrokenFrame
from tensign.errors import QueueFull, TooLarge
from tensign.frontends.link import Link
from tensign.frontends.places import Places

PAGE = 4096
__all__ = ["pair"]  # a fixture


def rows(seed: int, size: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def test_messages_small_and_large_arrive_as_they_were_sent_while_both_sides_send_from_many_threads(pair: Pair) -> None:
    def send(link: Link, seed: int) -> None:
        for number in range(40):
            name = 1000 * seed + number
            link.send({"name": name}, {"x": rows(name, random.Random(name).choice((1, 900, 20_000, 300_000)))})

    def receive(link: Link) -> list[int]:
        names: list[int] = []
        while len(names) < 160:
            header, arrays, place = link.receive()
            if header:
                names.append(header["name"])
                assert np.array_equal(arrays["x"], rows(names[-1], arrays["x"].size))
            link.release(place)
        return sorted(names)

    sides = (pair.server, pair.front)
    with ThreadPoolExecutor(10) as threads:
        read = [threads.submit(receive, link) for link in sides]
        sent = [threads.submit(send, link, seed) for link in sides for seed in range(4)]
        for each in sent:
            each.result(SOON)
        assert all(each.result(SOON) == [1000 * seed + number for seed in range(4) for number in range(40)] for each in read)


def test_places_are_used_again_so_that_memory_does_not_grow(pair: Pair) -> None:
    for number in range(300):
        pair.front.send({}, {"x": rows(number, 300_000)})
        _, arrays, place = pair.server.receive()
        assert arrays["x"].size == 300_000
        pair.server.release(place)
        pair.server.send({})
        pair.front.receive()
    assert pair.front.places.taken == 0
    assert os.fstat(pair.memories[1]).st_size <= MIB


def test_places_are_given_back_by_themselves_where_nothing_else_is_sent(pair: Pair) -> None:
    for number in range(200):
        pair.front.send({}, {"x": rows(number, 20_000 if number % 20 else 2 * MIB)})
        pair.server.release(pair.server.receive()[2])
    pair.server.send({"last": True})
    while "last" not in pair.front.receive()[0]:
        pass
    assert pair.front.places.taken == 0


def test_nobody_waits_for_a_side_that_does_not_read(pair: Pair) -> None:
    for number in range(2000):  # 16 MB, more than any socket takes
        pair.front.send({"number": number}, {"x": np.full(8000, number % 256, np.uint8)})
    for number in range(2000):
        header, arrays, _ = pair.server.receive()
        assert header["number"] == number and arrays["x"][0] == number % 256


def test_what_has_no_room_is_not_sent_and_keeps_none() -> None:
    pair = Pair(limit=MIB)
    with pytest.raises(TooLarge, match="may cross between processes"):
        pair.front.send({}, {"x": np.zeros(2 * MIB, np.uint8)})
    pair.front.send({"id": 1}, {"x": np.zeros(MIB, np.uint8)})
    with pytest.raises(QueueFull, match="try again later"):
        pair.front.send({}, {"x": np.zeros(MIB // 2, np.uint8)})
    with pytest.raises(TypeError):
        pair.front.send({"x": object()})
    header, _, place = pair.server.receive()
    assert (header, place) == ({"id": 1}, (0, MIB))
    pair.close()


def test_its_end_is_an_end_on_both_sides(pair: Pair) -> None:
    with ThreadPoolExecutor(1) as one:
        waits = one.submit(pair.server.receive)
        pair.front.end()
        with pytest.raises(EOFError):
            waits.result(SOON)
    pair.server.send({"nobody": "is told"}, {"x": np.zeros(MIB, np.uint8)})


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{",
        b"[]",
        b"[1,2,3,4,5]",
        b"[[],[],0,null,[]]{",
        b'[{},[["x","plain",[4],[[0,"|u1",[4]]]],4,null,[]]',  # without its arrays
        b'[{},[["x","plain",[4],[[0,"|u1",[4]]]],4,4096,[]]',  # in a memory that has no such place
        b'[{},[["x","plain",[4],[[0,"|u1",[4]]]],4,-1,[]]',
        b'[{},[["x","plain",[4],[[0,"|u1",[4]]]],4,1e3,[]]',
        b'[{},[["x","plain",[4],[[0,"|u1",[4]]]],9223372036854775807,0,[]]',
        b'[{},[["x","plain",[4],[[0,"|O",[4]]]],4,null,[]]',
        b'[{},[["x","code",[4],[[0,"|u1",[4]]]],4,null,[]]',
        b"[{},[],0,null,5]",
        b"[" * 100_000,
    ],
    ids=lambda message: message[:60].decode(),
)
def test_what_is_no_message_is_refused(message: bytes, pair: Pair) -> None:
    pair.write(message)
    with pytest.raises(BrokenFrame):
        pair.server.receive()


@pytest.mark.parametrize("lengths", [(1 << 30, 0), (2, 1 << 20), (0xFFFFFFFF, 0xFFFFFFFF)])
def test_no_length_is_believed(lengths: tuple[int, int], pair: Pair, tracemalloc_peak: Callable[..., int]) -> None:
    pair.raw.sendall(struct.pack("<II16s", *lengths, bytes(16)) + b"{}")

    def receive() -> None:
        with pytest.raises(BrokenFrame):
            pair.server.receive()

    assert tracemalloc_peak(receive) < MIB


def test_places_never_overlap_and_come_together_again() -> None:
    places, drawn = Places(64 * PAGE), random.Random(0)
    taken: dict[int, int] = {}
    for _ in range(3000):
        if taken and drawn.random() < 0.5:
            start = drawn.choice(sorted(taken))
            del taken[start]
            places.give_back(start)
            places.give_back(start)  # a second time is nothing
        else:
            size = drawn.randrange(1, 9 * PAGE)
            try:
                start = places.take(size)
            except QueueFull:
                continue
            assert all(start + size <= other or other + length <= start for other, length in taken.items())
            assert start + size <= 64 * PAGE
            taken[start] = size
    for start in taken:
        places.give_back(start)
    places.give_back(17)
    assert places.taken == 0 and places.take(64 * PAGE) == 0
