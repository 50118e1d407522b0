"""The rules of dynamic batching. The engine of these tests waits at a gate, so that queues fill while it is busy."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, wait
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tensign.batcher import Batcher
from tensign.buckets import Buckets
from tensign.errors import DeadlineExceeded, EngineError, ModelNotReady, QueueFull, TooLarge
from tensign.lane import Place
from tensign.metrics import Statistics
from tensign.request import Outputs
from tensign.signature import Arrays

SOON = 10.0  # seconds; what takes longer has hung


class GatedEngine:
    """Doubles its input. Each run announces itself, then waits until the gate is open."""

    def __init__(self) -> None:
        self.batches: list[npt.NDArray[Any]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.poison: float | None = None

    def run(self, batch: Arrays, params: Mapping[str, Any], deadline: float | None) -> Outputs:
        self.entered.release()
        assert self.gate.acquire(timeout=SOON)
        rows = batch["x"]
        self.batches.append(rows.copy())
        if self.poison is not None and self.poison in rows:
            raise RuntimeError("secret details of the model")
        return {"y": rows * 2}

    def open(self, runs: int = 1000) -> None:
        self.gate.release(runs)

    def wait_until_busy(self) -> None:
        assert self.entered.acquire(timeout=SOON)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def engine() -> GatedEngine:
    return GatedEngine()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def statistics() -> Statistics:
    return Statistics()


@pytest.fixture
def batcher(engine: GatedEngine, clock: Clock, statistics: Statistics) -> Iterator[Batcher]:
    """Buckets of 1, 2, 4 and 8 rows; batching pays in full: each takes the same time."""
    buckets = Buckets((1, 2, 4, 8), (1.0, 1.0, 1.0, 1.0))
    made = Batcher([Place(engine.run)], buckets, max_queue_rows=20, statistics=statistics, clock=clock)
    yield made
    engine.open()
    made.close(SOON)


def submit(batcher: Batcher, *rows: float, deadline: float | None = None, width: int = 1, client: str = "") -> Future[Outputs]:
    request = batcher.reserve(len(rows), deadline, client)
    batcher.enqueue(request, {"x": np.array(rows, np.float32)[:, None].repeat(width, axis=1)})
    return request.future


def answer(future: Future[Outputs]) -> list[float]:
    return [float(row[0]) for row in future.result(SOON)["y"]]


def rows_of(batch: npt.NDArray[Any]) -> list[float]:
    return [float(row[0]) for row in batch]


def test_a_batch_leaves_at_once_when_the_engine_is_idle(batcher: Batcher, engine: GatedEngine) -> None:
    engine.open()
    assert answer(submit(batcher, 1)) == [2]
    assert len(engine.batches[0]) == 1


def test_it_fills_while_the_engine_is_busy_and_every_answer_goes_to_its_caller(batcher: Batcher, engine: GatedEngine) -> None:
    first = submit(batcher, 1)
    engine.wait_until_busy()
    others = [submit(batcher, 10 * n, 10 * n + 1) for n in range(1, 4)]
    engine.open()
    assert answer(first) == [2]
    assert [answer(other) for other in others] == [[20 * n, 20 * n + 2] for n in range(1, 4)]
    assert [len(batch) for batch in engine.batches] == [1, 8]  # 6 rows in a bucket of 8


def test_rows_count_not_requests(batcher: Batcher, engine: GatedEngine) -> None:
    first = submit(batcher, 0)
    engine.wait_until_busy()
    large = [submit(batcher, *range(6)), submit(batcher, *range(6))]
    engine.open()
    wait([first, *large], SOON)
    assert [len(batch) for batch in engine.batches] == [1, 8, 4]


def test_a_request_larger_than_a_batch_is_split_and_answered_whole(batcher: Batcher, engine: GatedEngine) -> None:
    engine.open()
    assert answer(submit(batcher, *range(19))) == [2 * n for n in range(19)]
    assert [len(batch) for batch in engine.batches] == [8, 8, 4]


def test_only_equal_shapes_share_a_batch(batcher: Batcher, engine: GatedEngine) -> None:
    first = submit(batcher, 0)
    engine.wait_until_busy()
    narrow, wide, narrow_too = submit(batcher, 1), submit(batcher, 2, width=3), submit(batcher, 3)
    engine.open()
    wait([first, narrow, wide, narrow_too], SOON)
    assert [batch.shape for batch in engine.batches] == [(1, 1), (2, 1), (1, 3)]
    assert answer(wide) == [4]


def test_a_cancelled_request_never_reaches_the_engine(batcher: Batcher, engine: GatedEngine) -> None:
    first = submit(batcher, 1)
    engine.wait_until_busy()
    cancelled, kept = submit(batcher, 2), submit(batcher, 3)
    assert cancelled.cancel()
    engine.open()
    assert answer(kept) == [6]
    wait([first], SOON)
    assert [rows_of(batch) for batch in engine.batches] == [[1], [3]]


def test_cancelling_during_the_run_harms_no_neighbour(batcher: Batcher, engine: GatedEngine) -> None:
    first = submit(batcher, 0)
    engine.wait_until_busy()
    cancelled, kept = submit(batcher, 1), submit(batcher, 2)
    engine.open(1)
    engine.wait_until_busy()
    cancelled.cancel()
    engine.open()
    assert answer(kept) == [4]
    assert answer(first) == [0]


def test_an_expired_request_never_reaches_the_engine(batcher: Batcher, engine: GatedEngine, clock: Clock) -> None:
    first = submit(batcher, 1)
    engine.wait_until_busy()
    late, patient = submit(batcher, 2, deadline=5.0), submit(batcher, 3, deadline=50.0)
    clock.now = 6.0
    engine.open()
    with pytest.raises(DeadlineExceeded, match=r"the deadline passed after .* ms in the queue"):
        late.result(SOON)
    assert answer(patient) == [6]
    wait([first], SOON)
    assert [rows_of(batch) for batch in engine.batches] == [[1], [3]]


def test_a_request_that_arrives_too_late_is_refused(batcher: Batcher, clock: Clock) -> None:
    clock.now = 6.0
    with pytest.raises(DeadlineExceeded, match="when the request arrived"):
        batcher.reserve(1, deadline=5.0)


def test_what_cannot_meet_its_deadline_is_refused_on_arrival(batcher: Batcher, engine: GatedEngine) -> None:
    with pytest.raises(DeadlineExceeded, match=r"a request of 2 rows needs about 1000\.0 ms and the request has 900\.0 left"):
        batcher.reserve(2, deadline=0.9)
    assert not batcher.waiting and batcher.room(20).done()


def test_what_cannot_meet_its_deadline_any_more_is_not_taken(batcher: Batcher, engine: GatedEngine, clock: Clock) -> None:
    first = submit(batcher, 1)
    engine.wait_until_busy()
    late, soon = submit(batcher, 2, deadline=2.4), submit(batcher, 3, deadline=2.6)
    clock.now = 1.5
    engine.open()
    with pytest.raises(DeadlineExceeded, match=r"a batch of 2 rows needs about 1000\.0 ms and the request has 900\.0 left"):
        late.result(SOON)
    assert answer(soon) == [6]
    wait([first], SOON)
    assert [rows_of(batch) for batch in engine.batches] == [[1], [3]]


@pytest.mark.parametrize("fate", ["expired", "cancelled", "settled"])
@pytest.mark.parametrize("local", [True, False])
def test_what_is_over_before_it_is_enqueued_is_not(
    engine: GatedEngine, clock: Clock, statistics: Statistics, fate: str, local: bool
) -> None:
    buckets = Buckets((1,), (1e-5,))
    batcher = Batcher([Place(engine.run, local=local)], buckets, max_queue_rows=20, statistics=statistics, clock=clock)
    request = batcher.reserve(1, deadline=5.0)
    if fate == "expired":
        clock.now = 6.0
    elif fate == "cancelled":
        request.future.cancel()
    else:
        batcher.settle(request, EngineError("a bad picture"))
    batcher.enqueue(request, {"x": np.zeros((1, 1), np.float32)})
    assert request.future.done() and not batcher.waiting and batcher.room(20).done()
    engine.open()
    assert answer(submit(batcher, 3)) == [6]
    batcher.close(SOON)


def test_times_that_were_made_up_refuse_nobody(engine: GatedEngine, clock: Clock, statistics: Statistics) -> None:
    buckets = Buckets((1, 2), (1.0, 2.0), measured=False)
    batcher = Batcher([Place(engine.run)], buckets, max_queue_rows=20, statistics=statistics, clock=clock)
    engine.open()
    assert answer(submit(batcher, 1, deadline=0.1)) == [2]
    batcher.close(SOON)


def test_the_earliest_deadline_leads_the_next_batch(batcher: Batcher, engine: GatedEngine) -> None:
    first = submit(batcher, 0)
    engine.wait_until_busy()
    others = [submit(batcher, n, deadline=deadline) for n, deadline in enumerate([None, 90.0, 30.0, None, 60.0], start=1)]
    others += [submit(batcher, *range(10, 16), deadline=20.0)]
    engine.open()
    wait([first, *others], SOON)
    assert [rows_of(batch)[:8] for batch in engine.batches[1:]] == [[*range(10, 16), 3, 5], [2, 1, 4, 4]]


def test_a_flood_of_one_client_lets_another_in(batcher: Batcher, engine: GatedEngine) -> None:
    first = submit(batcher, 0, client="flood")
    engine.wait_until_busy()
    flood = [submit(batcher, n, client="flood") for n in range(1, 17)]
    with pytest.raises(QueueFull, match="16 rows are waiting, 20 may, and 16 of them are this client's"):
        batcher.reserve(1, client="flood")
    trickle = [submit(batcher, 100, client="trickle"), submit(batcher, 200, client="third")]
    engine.open()
    wait([first, *flood, *trickle], SOON)
    assert {100, 200} < set(rows_of(engine.batches[1]))


def test_a_full_queue_refuses_at_once_and_takes_again_when_it_has_room(batcher: Batcher, engine: GatedEngine) -> None:
    first = submit(batcher, 0)
    engine.wait_until_busy()
    waiting = [submit(batcher, *range(10), client="a"), submit(batcher, *range(10), client="b")]
    with pytest.raises(QueueFull, match="20 rows are waiting and 20 may"):
        batcher.reserve(1)
    engine.open()
    wait([first, *waiting], SOON)
    assert answer(submit(batcher, 7)) == [14]


def test_a_request_that_no_queue_could_hold_says_so(batcher: Batcher) -> None:
    with pytest.raises(TooLarge, match="21 rows"):
        batcher.reserve(21)


def test_a_reserved_request_that_fails_gives_its_room_back(batcher: Batcher) -> None:
    for _ in range(3):
        request = batcher.reserve(20)
        batcher.settle(request, EngineError("bad picture"))
        with pytest.raises(EngineError, match="bad picture"):
            request.future.result(SOON)


def test_a_failing_batch_fails_only_the_request_that_made_it_fail(batcher: Batcher, engine: GatedEngine) -> None:
    engine.poison = 13
    first = submit(batcher, 0)
    engine.wait_until_busy()
    good, bad, good_too = submit(batcher, 1, 2), submit(batcher, 13), submit(batcher, 3)
    engine.open()
    with pytest.raises(EngineError) as failure:
        bad.result(SOON)
    assert "secret" not in str(failure.value)
    assert answer(good) == [2, 4]
    assert answer(good_too) == [6]
    assert answer(first) == [0]


def test_what_a_neighbour_left_in_the_buffer_is_not_run_again(batcher: Batcher, engine: GatedEngine) -> None:
    engine.poison = 13
    first = submit(batcher, 0)
    engine.wait_until_busy()
    bad, good = submit(batcher, 1, 2, 13), submit(batcher, 3)
    engine.open()
    with pytest.raises(EngineError):
        bad.result(SOON)
    assert answer(good) == [6]
    assert answer(submit(batcher, 4, 5, 6)) == [8, 10, 12]  # runs padded to four rows
    wait([first], SOON)


def test_an_output_that_changes_its_shape_from_batch_to_batch_fails_only_the_split_request(statistics: Statistics) -> None:
    def run(batch: Arrays, *_: object) -> Outputs:
        return {"y": np.zeros((len(batch["x"]), len(batch["x"])), np.float32)}

    batcher = Batcher([Place(run)], Buckets((1, 2, 4, 8), (1.0, 1.0, 1.0, 1.0)), max_queue_rows=20, statistics=statistics)
    with pytest.raises(EngineError, match='output "y": its shape differs from batch to batch'):
        submit(batcher, *range(11)).result(SOON)
    assert submit(batcher, 1, 2).result(SOON)["y"].shape == (2, 2)
    batcher.close(SOON)


def test_an_output_that_no_split_can_take_apart_leaves_the_thread_alive(statistics: Statistics) -> None:
    broken: list[bool] = [True]

    def run(batch: Arrays, *_: object) -> Outputs:
        return {"y": np.float32(0)} if broken[0] else {"y": batch["x"]}  # type: ignore[dict-item]

    batcher = Batcher([Place(run)], Buckets((1,), (1.0,)), max_queue_rows=20, statistics=statistics)
    with pytest.raises(EngineError):
        submit(batcher, 1).result(SOON)
    broken[0] = False
    assert answer(submit(batcher, 5)) == [5]
    batcher.close(SOON)


def test_cancelled_requests_keep_no_room_from_others(batcher: Batcher, engine: GatedEngine) -> None:
    first = submit(batcher, 0)
    engine.wait_until_busy()
    for future in [submit(batcher, *range(10), client="a"), submit(batcher, *range(10), client="b")]:
        future.cancel()
    kept = submit(batcher, 1)  # no QueueFull
    engine.open()
    assert answer(kept) == [2]
    assert wait([first, future], SOON).not_done == set()


def test_whoever_waits_for_room_is_told(batcher: Batcher, engine: GatedEngine) -> None:
    """Oldest first, and no more than fit; the cancelled one is passed over."""
    assert batcher.room(20).done()
    first = submit(batcher, 0)
    engine.wait_until_busy()
    queued = submit(batcher, *range(20), client="flood")
    left, large, small = batcher.room(1, "a"), batcher.room(8, "b"), batcher.room(1, "c")
    left.cancel()
    engine.open(1)
    engine.wait_until_busy()  # 8 of the 20 rows are taken: room for the large one, which came first, and no more
    assert large.result(SOON) is None
    assert not small.done()
    engine.open()
    small.result(SOON)
    wait([first, queued], SOON)


def test_who_is_told_that_his_deadline_passed_may_ask_again(batcher: Batcher, engine: GatedEngine, clock: Clock) -> None:
    """Of a full queue, too: it is looked through already."""
    first = submit(batcher, 1)
    engine.wait_until_busy()
    expired, queued = submit(batcher, *range(8), deadline=1.0), submit(batcher, *range(8))
    refused: list[QueueFull] = []

    def again(_: Future[Outputs]) -> None:
        try:
            submit(batcher, *range(13))
        except QueueFull as error:
            refused.append(error)

    expired.add_done_callback(again)
    clock.now = 2.0
    engine.open()
    assert answer(queued) == [2.0 * row for row in range(8)]
    assert len(refused) == 1 and answer(first) == [2]


def test_settling_while_the_engine_looks_at_the_queue_harms_nobody(statistics: Statistics) -> None:
    batcher = Batcher(
        [Place(lambda batch, *_: {"y": batch["x"]})], Buckets((1,), (1.0,)), max_queue_rows=100, statistics=statistics
    )

    def hammer() -> None:
        for _ in range(2000):
            request = batcher.reserve(1)
            batcher.enqueue(request, {"x": np.zeros((1, 1), np.float32)})
            batcher.settle(request, EngineError("changed my mind"))

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answer(submit(batcher, 3)) == [6 / 2]
    batcher.close(SOON)


def test_a_split_request_fails_once_and_whole(batcher: Batcher, engine: GatedEngine) -> None:
    engine.poison = 0
    engine.open()
    with pytest.raises(EngineError):
        submit(batcher, *range(19)).result(SOON)
    assert answer(submit(batcher, 5)) == [10]


def test_padding_repeats_nothing_of_it_in_the_answer(batcher: Batcher, engine: GatedEngine, statistics: Statistics) -> None:
    engine.open()
    assert answer(submit(batcher, 1, 2, 3)) == [2, 4, 6]
    assert len(engine.batches[0]) == 4
    batcher.close(SOON)
    assert statistics.snapshot().padded_rows == 1


def test_rows_are_left_for_the_next_batch_where_padding_would_cost_more(engine: GatedEngine, statistics: Statistics) -> None:
    buckets = Buckets((1, 2, 4), (1.0, 1.8, 3.6))  # three rows padded to four: 0.83 rows a second; two: 1.1
    batcher = Batcher([Place(engine.run)], buckets, max_queue_rows=20, statistics=statistics)
    engine.open()
    assert answer(submit(batcher, 1, 2, 3)) == [2, 4, 6]
    batcher.close(SOON)
    assert [len(batch) for batch in engine.batches] == [2, 1]


def test_closing_drains_what_is_queued_and_refuses_what_is_new(batcher: Batcher, engine: GatedEngine) -> None:
    futures = [submit(batcher, n) for n in range(3)]
    engine.wait_until_busy()
    closer = threading.Thread(target=batcher.close, args=(SOON,))
    closer.start()
    refused = threading.Event()
    for _ in range(1000):
        try:
            batcher.settle(batcher.reserve(1), EngineError("not closing yet"))
        except ModelNotReady:
            refused.set()
            break
    engine.open()
    closer.join(SOON)
    assert refused.is_set()
    assert [answer(future) for future in futures] == [[0], [2], [4]]


def test_closing_gives_up_on_an_engine_that_hangs(engine: GatedEngine, statistics: Statistics) -> None:
    batcher = Batcher([Place(engine.run)], Buckets((1,), (1.0,)), max_queue_rows=20, statistics=statistics)
    stuck, queued = submit(batcher, 1), submit(batcher, 2)
    engine.wait_until_busy()
    batcher.close(0.01)
    for future in (stuck, queued):
        with pytest.raises(ModelNotReady, match="stopped"):
            future.result(SOON)
    engine.open()


def test_statistics_count_rows_requests_and_batches(batcher: Batcher, engine: GatedEngine, statistics: Statistics) -> None:
    first = submit(batcher, 0)
    engine.wait_until_busy()
    second = submit(batcher, 1, 2)
    cancelled = submit(batcher, 3)
    cancelled.cancel()
    engine.open()
    wait([first, second], SOON)
    batcher.close(SOON)
    seen = statistics.snapshot()
    assert (seen.rows, seen.executions, seen.success.count, seen.fail.count) == (3, 2, 2, 1)
    assert seen.queue.count == 2
    assert sorted(seen.batches) == [1, 2]


def test_many_callers_at_once_all_get_their_own(engine: GatedEngine, statistics: Statistics) -> None:
    batcher = Batcher(
        [Place(engine.run)], Buckets((1, 2, 4, 8), (1.0, 1.0, 1.0, 1.0)), max_queue_rows=10_000, statistics=statistics
    )
    engine.open(100_000)
    wrong: list[tuple[int, list[float]]] = []

    def caller(number: int) -> None:
        rng = np.random.default_rng(number)
        for _ in range(50):
            rows = [float(value) for value in rng.integers(0, 1000, rng.integers(1, 12))]
            if (got := answer(submit(batcher, *rows))) != [2 * row for row in rows]:
                wrong.append((number, got))

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    batcher.close(SOON)
    assert not wrong
    assert statistics.snapshot().success.count == 16 * 50
