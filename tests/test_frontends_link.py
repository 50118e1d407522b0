"""What crosses between a front end and the server: messages both ways, places in shared memory, and what is no message."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import socket
import struct
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from conftest import CPU, save_mean_model
from fronted import SOON, until
from tensign.engines.arena import BrokenFrame
from tensign.engines.process import memory
from tensign.errors import DeadlineExceeded, QueueFull, TooLarge
from tensign.frontends.link import Link
from tensign.frontends.places import Places
from tensign.frontends.reception import Reception
from tensign.frontends.remote import Calls, RemoteBatcher
from tensign.model import Model

MIB = 1 << 20
PAGE = 4096


class Pair:
    """Both sides of a link, in this process."""

    def __init__(self, limit: int = 64 * MIB) -> None:
        ours, its = socket.socketpair()
        there, back = memory("there"), memory("back")
        self.raw = its
        self.memories = (there, back)
        self.server = Link(ours, there, back, limit)
        self.front = Link(its, os.dup(back), os.dup(there), limit)

    def write(self, text: bytes, payload: bytes = b"") -> None:
        """A frame by hand."""
        self.raw.sendall(struct.pack("<II16s", len(text), len(payload), bytes(16)) + text + payload)

    def close(self) -> None:
        self.front.close()
        self.server.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


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


# The server's side


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    made = Model.load(save_mean_model(tmp_path_factory.mktemp("link") / "mean"), CPU, name="mean")
    yield made
    made.close()


@pytest.fixture
def served(pair: Pair, model: Model) -> Iterator[tuple[Pair, threading.Thread]]:
    """A reception that reads what `pair.front` sends."""
    thread = threading.Thread(target=Reception(pair.server, [model], lambda said: None).serve)
    thread.start()
    yield pair, thread
    pair.front.end()
    thread.join(SOON)
    assert not thread.is_alive()


def enqueue(number: int, **other: Any) -> dict[str, Any]:
    return {"do": "enqueue", "id": number, "model": 0, "rows": 2, "left_s": 5.0, "reserved": False, "params": {}, **other}


PIXELS = {"image": np.arange(120, dtype=np.uint8).reshape(2, 4, 5, 3)}


def test_a_request_is_answered_by_its_number(served: tuple[Pair, threading.Thread]) -> None:
    pair, _ = served
    pair.front.send({"do": "reserve", "id": 6, "model": 0, "rows": 2, "left_s": None})
    pair.front.send(enqueue(6, reserved=True), PIXELS)
    pair.front.send(enqueue(7), {"image": np.tile(PIXELS["image"], (1000, 1, 1, 1))} | {})
    header, arrays, _ = pair.front.receive()
    assert header == {"id": 6}
    assert np.allclose(arrays["output-0"], PIXELS["image"].mean((1, 2)))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (enqueue(1, rows=513), "TooLarge"),
        (enqueue(1, left_s=-1.0), "DeadlineExceeded"),
        (enqueue(1, params={"x": [1]}), None),
    ],
)
def test_what_the_batcher_refuses_is_told(
    header: dict[str, Any], said: str | None, served: tuple[Pair, threading.Thread]
) -> None:
    pair, _ = served
    pair.front.send(header, PIXELS)
    assert pair.front.receive()[0].get("error") == said


def test_rows_that_the_engine_cannot_take_fail_alone(served: tuple[Pair, threading.Thread]) -> None:
    pair, _ = served
    for number, arrays in enumerate(({"other": PIXELS["image"]}, {"image": PIXELS["image"][:, :3]}, PIXELS)):
        pair.front.send(enqueue(number), arrays)
    answers = {header["id"]: header.get("error") for header, _, _ in (pair.front.receive() for _ in range(3))}
    assert answers == {0: "EngineError", 1: "EngineError", 2: None}


@pytest.mark.parametrize(
    ("header", "arrays"),
    [
        ({"do": "exec"}, {}),
        ({"no": "word"}, {}),
        ({"do": "statistics", "id": 1, "model": 1}, {}),
        ({"do": "statistics", "id": 1, "model": -1}, {}),
        ({"do": "statistics", "id": [], "model": 0}, {}),
        ({"do": "preprocess", "model": 0, "ns": -5}, {}),
        ({"do": "preprocess", "model": 0, "ns": 1e300}, {}),
        ({"do": "room", "id": 1, "model": 0, "rows": "2"}, {}),
        (enqueue(1), {}),
        (enqueue(1, rows=3), PIXELS),
        (enqueue(1, rows=-2), PIXELS),
        (enqueue(1, rows=True), PIXELS),
        (enqueue(1, left_s="soon"), PIXELS),
        (enqueue(1, left_s=float("nan")), PIXELS),
        (enqueue(1, params=5), PIXELS),
        (enqueue(1), {"image": np.array(5)}),
    ],
    ids=lambda part: str(part)[:60],
)
def test_a_front_end_that_says_what_none_says_is_given_up_and_harms_nobody(
    header: dict[str, Any], arrays: dict[str, Any], pair: Pair, model: Model
) -> None:
    thread = threading.Thread(target=Reception(pair.server, [model], lambda said: None).serve)
    thread.start()
    before = model.statistics.snapshot().preprocess
    pair.front.send(header, arrays)
    thread.join(SOON)
    assert not thread.is_alive()
    with pytest.raises(EOFError):
        while True:
            pair.front.receive()
    assert np.allclose(model.infer(PIXELS["image"])["output-0"], PIXELS["image"].mean((1, 2)))
    until(lambda: not model.batcher._unsettled)  # type: ignore[attr-defined]
    assert model.statistics.snapshot().preprocess == before


def test_an_answer_is_gone_with_who_asked_for_it(served: tuple[Pair, threading.Thread], model: Model) -> None:
    """In no circle: the collector does not know how much memory an answer has."""
    calls = Calls(served[0].front)
    batcher = RemoteBatcher(calls, 0, model.buckets)

    def read() -> None:
        with contextlib.suppress(EOFError):
            calls.read(lambda said: None)

    threading.Thread(target=read, daemon=True).start()
    kept = []
    gc.disable()
    try:
        for number in range(5):
            request = batcher.reserve(2)
            if number % 2:
                assert not batcher.dropped(request)
            batcher.enqueue(request, PIXELS)
            assert np.allclose(request.future.result(SOON)["output-0"], PIXELS["image"].mean((1, 2)))
            kept.append(weakref.ref(request.future))
        assert batcher.dropped(request)
        late = batcher.reserve(2, deadline=0.0)
        assert batcher.dropped(late) and isinstance(late.future.exception(), DeadlineExceeded)
        del request
        assert not any(ref() for ref in kept[:-1])  # of the last one the threads may still have a hand
    finally:
        gc.enable()


def test_requests_of_one_number_are_no_message(served: tuple[Pair, threading.Thread]) -> None:
    pair, thread = served
    for _ in range(2):
        pair.front.send({"do": "reserve", "id": 1, "model": 0, "rows": 2, "left_s": None})
    thread.join(SOON)
    assert not thread.is_alive()


def test_cancelled_twice_settled_twice_or_never_known_is_nothing(served: tuple[Pair, threading.Thread]) -> None:
    pair, thread = served
    for header in (
        {"do": "reserve", "id": 1, "model": 0, "rows": 2, "left_s": None},
        {"do": "settle", "id": 1, "error": "UndecodableImage", "text": "row 0"},
        {"do": "settle", "id": 1, "error": "SystemExit", "text": "row 0"},
        {"do": "cancel", "id": 1},
        {"do": "cancel", "id": 99},
    ):
        pair.front.send(header)
    pair.front.send(enqueue(1, reserved=True), PIXELS)  # answered already
    pair.front.send(enqueue(2), PIXELS)
    heard = [pair.front.receive()[0] for _ in range(2)]
    assert heard == [{"id": 1, "error": "UndecodableImage", "text": "row 0"}, {"id": 2}]
    assert thread.is_alive()
