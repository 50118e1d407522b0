"""The search for a rate, against a queue whose answer is known: one server, constant service time, Poisson arrivals."""

from __future__ import annotations

import asyncio
import itertools

import numpy as np
import numpy.typing as npt
import pytest

from tensign.bench.arrivals import poisson
from tensign.bench.search import Answer, Probe, highest_rate

SERVICE_S = 0.010  # so that it can do 100/s at most
LIMIT_S = 0.050


def sojourns(rate: float, count: int, seed: int) -> npt.NDArray[np.float64]:
    """[count] seconds that each request spends in the queue and in service."""
    due = np.array(list(itertools.islice(poisson(rate, seed), count)))
    turn = SERVICE_S * np.arange(count)
    begun = turn + np.maximum.accumulate(due - turn)  # when it is due, or when the one before it is done
    waited: npt.NDArray[np.float64] = begun + SERVICE_S - due
    return waited


def find(first: float, *, generator_limit: float = float("inf"), precision: float = 0.05) -> Answer:
    async def measure(rate: float, seed: int) -> Probe | None:
        limited = rate > generator_limit
        times = sojourns(rate, 4000, seed) + (1.0 if limited else 0.0)
        return Probe(rate, len(times), int((times > LIMIT_S).sum()), limited)

    return asyncio.run(highest_rate(measure, first=first, precision=precision))


@pytest.fixture(scope="module")
def truth() -> float:
    """The rate at which one in a hundred of a million requests takes longer than the limit."""
    low, high = 10.0, 99.0
    while high / low > 1.005:
        rate = (low * high) ** 0.5
        late = (sojourns(rate, 500_000, seed=99) > LIMIT_S).mean()
        low, high = (rate, high) if late <= 0.01 else (low, rate)
    return low


def test_the_queue_is_the_one_of_the_formula() -> None:
    for load in (0.5, 0.8):
        mean = sojourns(load / SERVICE_S, 1_000_000, seed=1).mean()
        assert mean == pytest.approx(SERVICE_S * (1 + load / (2 * (1 - load))), rel=0.02)  # Pollaczek and Khinchine


@pytest.mark.parametrize("first", [2.0, 30.0, 55.0, 700.0])
def test_the_rate_that_is_found_is_the_true_one(first: float, truth: float) -> None:
    answer = find(first)
    assert answer.finished and not answer.limited
    assert answer.rate == pytest.approx(truth, rel=0.08)
    assert answer.broke is not None and answer.rate is not None
    assert answer.rate < answer.broke <= answer.rate * 1.05


def test_the_rate_that_is_found_was_measured_more_than_once() -> None:
    answer = find(1.7)
    votes = [probe for probe in answer.probes if probe.rate == answer.rate]
    assert len(votes) >= 2 and sum(probe.kept for probe in votes) > len(votes) / 2


def test_the_generators_own_limit_is_told() -> None:
    answer = find(5.0, generator_limit=30.0)
    assert answer.limited
    assert answer.rate == pytest.approx(30.0, rel=0.06)


def test_errors_are_misses_and_no_rate_may_be_the_answer() -> None:
    async def broken(rate: float, seed: int) -> Probe | None:
        return Probe(rate, 1000, 20)

    answer = asyncio.run(highest_rate(broken, first=64.0))
    assert answer.finished and answer.rate is None and answer.broke == 1.0


def test_a_server_that_dies_in_a_probe_leaves_what_was_found() -> None:
    async def dying(rate: float, seed: int) -> Probe | None:
        return Probe(rate, 1000, 0) if rate < 40 else None

    answer = asyncio.run(highest_rate(dying, first=10.0))
    assert not answer.finished
    assert answer.rate == 20.0 and answer.broke is None
