"""What the server makes of a front end's messages: requests and their answers, and what is none."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from conftest import CPU, save_mean_model
from fronted import SOON, until
from linked import Pair, pair
from tensign.errors import DeadlineExceeded
from tensign.frontends.reception import Reception
from tensign.frontends.remote import Calls, RemoteBatcher
from tensign.model import Model

__all__ = ["pair"]  # a fixture


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
    assert header["id"] == 6 and [rows for rows, *_ in header["ran"]] == [2]
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
        ({"do": "exchanged", "model": 0, "receive": {"count": -1, "ns": 0}, "send": {"count": 0, "ns": 0}}, {}),
        ({"do": "exchanged", "model": 0, "receive": 5, "send": {}}, {}),
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
                batcher.announce(request)
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
    settled, answered = (pair.front.receive()[0] for _ in range(2))
    assert settled == {"id": 1, "error": "UndecodableImage", "text": "row 0"}
    assert answered["id"] == 2 and "error" not in answered
    assert thread.is_alive()
