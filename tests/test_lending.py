"""What takes less time than handing it over is run on the thread that brings it, with the one lane there is."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tensign.batcher import Batcher
from tensign.binding import Binding
from tensign.buckets import Buckets
from tensign.errors import EngineError, ModelNotReady, OutOfMemory
from tensign.lane import Place
from tensign.metrics import Statistics
from tensign.request import Outputs
from tensign.signature import Arrays, Signature
from tensign.specs import TensorSpec

SOON = 10.0
QUICK = Buckets((1, 2, 4), (1e-6, 1e-6, 1e-6))


class Doubler:
    """Tells on which threads it ran; `first` is called in its first run."""

    def __init__(self, first: Callable[[], None] = lambda: None) -> None:
        self.threads: list[str] = []
        self._first = first

    def run(self, batch: Arrays, params: Mapping[str, Any], deadline: float | None) -> Outputs:
        self.threads.append(threading.current_thread().name)
        if len(self.threads) == 1:
            self._first()
        return {"y": batch["x"] * 2}


def batched(doubler: Doubler, buckets: Buckets = QUICK, *, local: bool = True) -> Batcher:
    """One whose lane rests."""
    made = Batcher([Place(doubler.run, local=local)], buckets, max_queue_rows=1000, statistics=Statistics())
    while local and not made._idle:
        os.sched_yield()
    return made


def submitted(batcher: Batcher, *rows: float) -> Future[Outputs]:
    request = batcher.reserve(len(rows))
    batcher.enqueue(request, {"x": np.array(rows, np.float32)[:, None]})
    return request.future


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


@pytest.fixture
def quick(doubler: Doubler) -> Iterator[Batcher]:
    made = batched(doubler)
    yield made
    made.close(SOON)


def test_it_is_answered_when_enqueue_returns(quick: Batcher, doubler: Doubler) -> None:
    for number in range(5):
        future = submitted(quick, number)
        assert future.done() and future.result()["y"].tolist() == [[2.0 * number]]
    assert set(doubler.threads) == {threading.current_thread().name}


@pytest.mark.parametrize(("buckets", "local"), [(Buckets((4,), (1.0,)), True), (QUICK, False)])
def test_what_takes_long_or_runs_elsewhere_is_handed_over(buckets: Buckets, local: bool) -> None:
    doubler = Doubler()
    batcher = batched(doubler, buckets, local=local)
    assert submitted(batcher, 1).result(SOON)["y"].tolist() == [[2]]
    assert doubler.threads == ["tensign-engine"]
    batcher.close(SOON)


def test_who_comes_while_the_lane_is_lent_is_answered_by_it_later() -> None:
    lent, go = threading.Event(), threading.Event()

    def held() -> None:
        lent.set()
        assert go.wait(SOON)

    doubler = Doubler(held)
    batcher = batched(doubler)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(submitted, batcher, 1)
        assert lent.wait(SOON)
        second = submitted(batcher, 2, 3)
        with pytest.raises(TimeoutError):  # the lane itself must not run beside whoever has it
            second.result(0.1)
        go.set()
        assert second.result(SOON)["y"].tolist() == [[4], [6]]
        assert first.result(SOON).result(SOON)["y"].tolist() == [[2]]
    assert doubler.threads[1] == "tensign-engine"
    batcher.close(SOON)


def test_who_is_called_back_under_the_lock_has_its_rows_run_by_the_lane(quick: Batcher, doubler: Doubler) -> None:
    """Else everybody who asks for anything would wait for that run."""
    held, later = quick.reserve(1000), list[Future[Outputs]]()
    quick.room(1).add_done_callback(lambda _: later.append(submitted(quick, 7)))
    quick.settle(held, EngineError("bad picture"))
    assert later[0].result(SOON)["y"].tolist() == [[14]]
    assert doubler.threads == ["tensign-engine"]


def test_closing_waits_for_what_runs_on_a_lent_lane() -> None:
    lent, go = threading.Event(), threading.Event()

    def held() -> None:
        lent.set()
        assert go.wait(SOON)

    batcher = batched(Doubler(held))
    with ThreadPoolExecutor(2) as others:
        first = others.submit(submitted, batcher, 1)
        assert lent.wait(SOON)
        closed = others.submit(batcher.close, SOON)
        go.set()
        closed.result(SOON)
        assert first.result(SOON).result(0)["y"].tolist() == [[2]]
    assert not batcher._lanes[0].is_alive()


def test_who_is_interrupted_gives_the_lane_back() -> None:
    """A Ctrl-C in a notebook must not be the end of the model."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    batcher = batched(Doubler(interrupted))
    request = batcher.reserve(1)
    with pytest.raises(KeyboardInterrupt):
        batcher.enqueue(request, {"x": np.zeros((1, 1), np.float32)})
    with pytest.raises(EngineError, match="interrupted"):
        request.future.result(0)
    assert submitted(batcher, 4).result(SOON)["y"].tolist() == [[8]]
    batcher.close(SOON)


def test_from_many_threads_everybody_gets_the_own_answer(quick: Batcher, doubler: Doubler) -> None:
    def ask(number: int) -> bool:
        rows = [number * 10.0 + row for row in range(1 + number % 6)]
        return bool(np.array_equal(submitted(quick, *rows).result(SOON)["y"][:, 0], 2 * np.array(rows)))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(800)))
    assert "tensign-engine" in doubler.threads  # at least what is larger than a batch


@pytest.mark.parametrize(
    ("dtype", "shape", "even"),
    [("uint8", (-1, 4, 5, 3), True), ("uint8", (-1, -1, -1, 3), False), ("object", (-1,), False), ("object", (-1, 2), False)],
)
def test_only_rows_of_one_size_take_what_was_measured(dtype: str, shape: tuple[int, ...], even: bool) -> None:
    spec = TensorSpec("x", np.dtype(dtype), shape)
    binding = Binding(Signature((spec,), (), ()), {"x": spec}, {})
    assert binding.even is even


def test_what_fails_here_has_failed_once(quick: Batcher, doubler: Doubler) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    doubler._first = broken
    with pytest.raises(EngineError, match=r"^the engine failed: ZeroDivisionError$"):
        quick.at_once({"x": np.ones((1, 1), np.float32)})
    doubler.threads.clear()
    with pytest.raises(EngineError, match=r"^the engine failed: ZeroDivisionError$"):
        submitted(quick, 3).result(SOON)
    assert len(doubler.threads) == 1
    assert submitted(quick, 3).result(SOON)["y"].tolist() == [[6]]
    seen = quick.statistics.snapshot()
    assert (seen.success.count, seen.fail.count) == (1, 2)


def test_where_memory_runs_out_the_lane_makes_its_batches_smaller() -> None:
    def full() -> None:
        raise OutOfMemory("no room")

    doubler = Doubler(full)
    batcher = batched(doubler)
    assert batcher.at_once({"x": np.ones((4, 1), np.float32)}) is None
    doubler.threads.clear()
    assert submitted(batcher, 1, 2, 3, 4).result(SOON)["y"].tolist() == [[2], [4], [6], [8]]
    batcher.close(SOON)


def test_rows_between_two_buckets_are_padded(quick: Batcher) -> None:
    outputs = quick.at_once({"x": np.array([[1], [2], [3]], np.float32)})
    assert outputs is not None and outputs["y"].tolist() == [[2], [4], [6]]
    assert quick.statistics.snapshot().padded_rows == 1


def test_nobody_passes_those_who_wait_for_room(quick: Batcher) -> None:
    held = quick.reserve(1000)
    room = quick.room(1)
    assert quick.at_once({"x": np.ones((1, 1), np.float32)}) is None
    quick.settle(held, EngineError("bad picture"))
    assert room.done() and quick.at_once({"x": np.ones((1, 1), np.float32)}) is not None


def test_a_batcher_that_is_closed_runs_nothing_here(doubler: Doubler) -> None:
    batcher = batched(doubler)
    batcher.close(SOON)
    assert batcher.at_once({"x": np.ones((1, 1), np.float32)}) is None
    with pytest.raises(ModelNotReady):
        batcher.reserve(1)


def test_more_rows_than_the_queue_may_hold_are_not_run_here_either(quick: Batcher) -> None:
    quick._queue.max_rows = 1
    assert quick.at_once({"x": np.ones((2, 1), np.float32)}) is None
    assert quick.at_once({"x": np.ones((1, 1), np.float32)}) is not None


def test_a_deadline_that_has_passed_is_left_to_who_refuses_it(quick: Batcher) -> None:
    assert quick.at_once({"x": np.ones((1, 1), np.float32)}, deadline=1.0) is None
