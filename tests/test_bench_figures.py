"""Arrivals, samples, percentiles, ratios, the server's own account: the arithmetic under every figure."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tensign._pb import open_inference_pb2 as pb
from tensign.bench.arrivals import poisson
from tensign.bench.comparison import Ratio, order
from tensign.bench.latency import Latency
from tensign.bench.load import Load
from tensign.bench.samples import Samples
from tensign.bench.server import Served
from tensign.bench.window import Window
from tensign.errors import InvalidConfig, QueueFull


def test_arrivals_are_poisson_and_the_same_for_the_same_seed() -> None:
    times = np.array(list(itertools.islice(poisson(50.0, seed=7), 20_000)))
    gaps = np.diff(times)
    assert gaps.min() > 0
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.03)  # of an exponential, the same as its mean
    assert np.corrcoef(gaps[:-1], gaps[1:])[0, 1] == pytest.approx(0, abs=0.03)
    assert list(itertools.islice(poisson(50.0, seed=7), 10)) == times[:10].tolist()
    assert next(poisson(50.0, seed=8)) != times[0]


def test_percentiles_are_samples_and_not_told_of_too_few() -> None:
    latency = Latency.of(np.arange(1000, 0, -1.0))
    assert (latency.p50, latency.p90, latency.p95, latency.p99, latency.p999) == (500, 900, 950, 990, 999)
    assert (latency.samples, latency.mean, latency.max) == (1000, 500.5, 1000)
    few = Latency.of(np.arange(1.0, 100.0))
    assert (few.p95, few.p99, few.p999, few.max) == (95, None, None, 99)
    none = Latency.of(np.array([]))
    assert (none.samples, none.mean, none.p50, none.max, none.curve) == (0, None, None, None, [])


def test_the_curve_ends_where_the_samples_do() -> None:
    percentiles = [percentile for percentile, _ in Latency.of(np.arange(1000.0)).curve]
    assert percentiles == sorted(percentiles)
    assert percentiles[-1] == 99.9


def test_only_what_was_due_in_the_window_counts() -> None:
    samples = Samples(timeout_s=10.0)
    for due, done in ((0.5, 1.5), (1.0, 1.25), (1.9, 4.0), (2.0, 2.5)):
        samples.answer(due, done)
    samples.failure(1.1, QueueFull("full"))
    samples.failure(2.1, QueueFull("full again"))
    assert samples.latencies_ms(1.0, 2.0).tolist() == pytest.approx([250, 2100])
    assert samples.errors(1.0, 2.0) == {"QueueFull": (1, "full")}
    assert samples.answered(1.0, 2.0) == 2  # one that was due before it, none that came after it
    assert samples.last(1.0) == 4.0


def test_an_answer_after_its_deadline_is_an_error() -> None:
    samples = Samples(timeout_s=1.0)
    samples.answer(0.0, 1.5)
    assert len(samples.latencies_ms(0.0, 9.0)) == 0
    assert samples.errors(0.0, 9.0) == {"DeadlineExceeded": (1, "answered after 1.5 s, 1 s were allowed")}


def test_a_window_counts_what_it_admits() -> None:
    window = Window()
    assert window.admits(5.0) and window.admits(6.0)  # warm-up has no limit
    window.start, window.remaining = 7.0, 2
    assert window.admits(6.9)  # due before it, if late
    assert window.admits(7.0) and window.admits(8.0) and not window.admits(9.0)
    window.end, window.remaining = 8.0, 99
    assert window.admits(7.9) and not window.admits(8.0)


def test_a_ratio_tells_its_spread_and_whether_the_rounds_agree() -> None:
    ratio = Ratio.of([90.0, 100.0, 110.0], [100.0, 100.0, 100.0])
    assert (ratio.first, ratio.second, ratio.median, ratio.low, ratio.high) == (100, 100, 1.0, 0.9, 1.1)
    assert not ratio.decided
    assert Ratio.of([3.0, 4.0], [2.0, 2.0]).decided
    assert order(3) == [(0, 1), (1, 0), (0, 1)]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rate": 0.0}, "rate: wanted more than 0, got 0.0"),
        ({"rate": float("nan")}, "rate: wanted more than 0, got nan"),
        ({"concurrency": 0}, "concurrency: wanted at least 1, got 0"),
        ({"duration_s": float("inf")}, "duration_s: wanted more than 0, got inf"),
        ({"concurrency": 2, "streams": 3}, "streams: 2 requests in flight cannot fill 3 streams"),
    ],
)
def test_a_load_that_cannot_be_is_refused(fields: dict[str, float], said: str) -> None:
    with pytest.raises(InvalidConfig, match=said):
        Load(**fields)  # type: ignore[arg-type]


def statistics(
    batches: dict[int, tuple[int, int]], *, queue: tuple[int, int], compute_input: tuple[int, int]
) -> pb.ModelStatistics:
    """batches: {rows: (runs, ns of inference in all)}."""
    message = pb.ModelStatistics(
        name="m",
        inference_count=sum(rows * runs for rows, (runs, _) in batches.items()),
        execution_count=sum(runs for runs, _ in batches.values()),
    )
    for rows, (runs, ns) in batches.items():
        message.batch_stats.add(batch_size=rows, compute_infer=pb.StatisticDuration(count=runs, ns=ns))
    message.inference_stats.queue.count, message.inference_stats.queue.ns = queue
    message.inference_stats.compute_input.count, message.inference_stats.compute_input.ns = compute_input
    message.inference_stats.success.count = queue[0]
    return message


def test_the_servers_account_is_the_difference_weighted_by_rows() -> None:
    before = statistics({1: (10, 10_000_000)}, queue=(10, 0), compute_input=(10, 0))
    after = statistics({1: (12, 12_000_000), 8: (1, 9_000_000)}, queue=(20, 5_000_000), compute_input=(13, 20_000_000))
    served = Served.between([before], [after], "m")
    assert served is not None
    assert served.batches == {1: 2, 8: 1}
    assert served.mean_batch == pytest.approx(10 / 3)
    assert served.stage_ms["queue"] == pytest.approx(0.5)
    assert served.stage_ms["compute_infer"] == pytest.approx((2 * 1 + 8 * 9) / 10)  # eight rows waited nine ms, two one
    assert served.stage_ms["compute_input"] == pytest.approx(2.0)  # preprocessing of ten requests, outside of batches
    assert Served.between([before], [before], "m") is None
    assert Served.between([], [after], "m") is None


def test_a_server_that_counts_stages_by_request_has_no_preprocessing_outside_of_batches() -> None:
    before = statistics({}, queue=(0, 0), compute_input=(0, 0))
    after = statistics({4: (2, 8_000_000)}, queue=(8, 0), compute_input=(8, 99_000_000))
    served = Served.between([before], [after], "m")
    assert served is not None and served.stage_ms["compute_input"] == 0
