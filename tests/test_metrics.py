"""Counters of one model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tensign.metrics import Duration, Statistics


def batch(statistics: Statistics, rows: int, bucket: int, begun: int = 1) -> None:
    statistics.batch(rows, bucket, queue_ns=7, begun=begun, input_ns=10, infer_ns=100, output_ns=1)


def test_nothing_has_happened_yet() -> None:
    seen = Statistics().snapshot()
    assert (seen.rows, seen.executions, seen.padded_rows, seen.last_inference_ms) == (0, 0, 0, 0)
    assert seen.batches == {}


def test_requests_count_as_success_or_as_fail() -> None:
    statistics = Statistics()
    for ns, succeeded in ((5, True), (6, True), (9, False)):
        statistics.request(ns, succeeded=succeeded)
    seen = statistics.snapshot()
    assert seen.success == Duration(count=2, ns=11)
    assert seen.fail == Duration(count=1, ns=9)


def test_preprocessing_is_timed() -> None:
    statistics = Statistics()
    statistics.preprocess(30)
    statistics.preprocess(12)
    assert statistics.snapshot().preprocess == Duration(count=2, ns=42)


def test_batches_are_kept_by_their_rows() -> None:
    statistics = Statistics()
    batch(statistics, 3, 4, begun=2)
    batch(statistics, 3, 4, begun=0)
    batch(statistics, 8, 8)
    seen = statistics.snapshot()
    assert list(seen.batches) == [3, 8]
    assert seen.batches[3].compute_input == Duration(2, 20)
    assert seen.batches[3].compute_infer == Duration(2, 200)
    assert seen.batches[3].compute_output == Duration(2, 2)
    assert seen.queue == Duration(count=3, ns=21)
    assert seen.rows == 14
    assert seen.executions == 3
    assert seen.padded_rows == 2
    assert seen.last_inference_ms > 0


def test_snapshot_is_a_copy() -> None:
    statistics = Statistics()
    batch(statistics, 2, 2)
    before = statistics.snapshot()
    batch(statistics, 2, 2)
    statistics.request(1, succeeded=True)
    assert (before.rows, before.success.count) == (2, 0)
    before.batches.clear()
    assert statistics.snapshot().rows == 4


def test_no_count_is_lost_between_threads() -> None:
    statistics = Statistics()
    with ThreadPoolExecutor(8) as threads:
        for _ in range(200):
            threads.submit(batch, statistics, 1, 2)
            threads.submit(statistics.request, 1, succeeded=True)
    seen = statistics.snapshot()
    assert (seen.rows, seen.padded_rows, seen.success.count) == (200, 200, 200)
