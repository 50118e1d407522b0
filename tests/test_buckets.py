"""Which batch sizes run, on a clock that moves only when a batch runs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensign import buckets
from tensign.buckets import Buckets, measure, powers_of_two

CPU = Buckets((1, 2, 4, 8), (1.0, 2.0, 4.0, 8.0))  # nothing gained by a larger batch
GPU = Buckets((1, 2, 4, 8), (1.0, 1.1, 1.2, 1.3))  # a larger batch is nearly free
STEEP = Buckets((4, 16), (1.0, 2.0))


@pytest.mark.parametrize(
    ("measured", "waiting", "plan"),
    [
        (CPU, 1, (1, 1)),
        (CPU, 4, (4, 4)),
        (CPU, 8, (8, 8)),
        (GPU, 2, (2, 2)),
        (GPU, 3, (3, 4)),  # 3/1.2 rows a second beat 2/1.1
        (GPU, 5, (5, 8)),
        (GPU, 7, (7, 8)),
        (CPU, 3, (2, 2)),  # 2/2 rows a second beat 3/4
        (CPU, 7, (4, 4)),
        (STEEP, 7, (4, 4)),  # 4/1 beat 7/2
        (STEEP, 8, (8, 16)),  # as fast either way: all at once
        (STEEP, 9, (9, 16)),
        (STEEP, 1, (1, 4)),  # nothing smaller to run them in
        (GPU, 9, (8, 8)),
        (GPU, 1000, (8, 8)),
    ],
)
def test_plan_takes_what_answers_more_rows_a_second(measured: Buckets, waiting: int, plan: tuple[int, int]) -> None:
    assert measured.plan(waiting) == plan


@settings(deadline=None)
@given(st.dictionaries(st.integers(1, 64), st.floats(0.001, 10), min_size=1), st.integers(1, 200))
def test_plan_never_takes_more_than_wait_or_fit(times: dict[int, float], waiting: int) -> None:
    rows = tuple(sorted(times))
    taken, bucket = Buckets(rows, tuple(times[n] for n in rows)).plan(waiting)
    assert 1 <= taken <= min(waiting, bucket)
    assert bucket in rows


@pytest.mark.parametrize(("rows", "bucket"), [(1, 4), (4, 4), (5, 16), (16, 16)])
def test_holding_is_the_smallest_bucket_that_is_enough(rows: int, bucket: int) -> None:
    assert STEEP.holding(rows) == bucket


def test_largest() -> None:
    assert STEEP.largest == 16


@pytest.mark.parametrize(
    ("largest", "powers"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 4, 8)), (12, (1, 2, 4, 8, 12)), (9, (1, 2, 4, 8, 9))],
)
def test_powers_of_two_end_in_the_largest(largest: int, powers: tuple[int, ...]) -> None:
    assert powers_of_two(largest) == powers


class Machine:
    """Runs a batch in the seconds that a table gives, by a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float]) -> None:
        self.now, self.seconds = 0.0, seconds
        self.warmed: list[int] = []
        self.ran: list[int] = []
        monkeypatch.setattr(buckets, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def run(self, rows: int) -> None:
        self.ran.append(rows)
        self.now += self.seconds[rows]

    def measure(self) -> Buckets:
        return measure(self.warmed.append, self.run, tuple(self.seconds))


def test_larger_batches_stay_while_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, {1: 1.0, 2: 1.5, 4: 2.0, 8: 2.5})
    assert machine.measure() == Buckets((1, 2, 4, 8), (1.0, 1.5, 2.0, 2.5))


def test_measuring_stops_at_the_first_batch_that_gains_less_than_a_twentieth(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, {1: 1.0, 2: 1.5, 4: 4 / 1.39, 8: 0.001})  # 4 rows: 1.39 a second, 1.4 would pay
    assert machine.measure().rows == (1, 2)
    assert machine.warmed == [1, 2, 4]


def test_a_twentieth_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Machine(monkeypatch, {1: 1.0, 2: 2 / 1.06}).measure().rows == (1, 2)


def test_gain_is_over_the_best_before_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, {1: 1.0, 2: 1.0, 4: 1.95})  # 1, 2, then 2.05 rows a second
    assert machine.measure().rows == (1, 2)


def test_first_candidate_always_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Machine(monkeypatch, {4: 100.0, 8: 300.0}).measure() == Buckets((4,), (100.0,))


def test_each_batch_is_warmed_once_before_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, {1: 0.001, 2: 0.001})
    machine.measure()
    assert machine.warmed == [1, 2]
    assert machine.ran == [1] * 5 + [2] * 5


def test_slow_model_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, {1: 3.0})
    machine.measure()
    assert machine.ran == [1]


def test_shortest_run_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, {1: 0.0})
    durations = iter([0.02, 0.01, 0.015, 0.01, 0.03])

    def run(rows: int) -> None:
        machine.now += next(durations)

    assert measure(machine.warmed.append, run, (1,)).seconds == pytest.approx((0.01,))
