from __future__ import annotations

from pathlib import Path

import pytest

from tensign.bench import Load, run
from tensign.client import Client
from tensign.errors import TensignError


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("rows", [1, 3])
def test_every_request_is_counted(mean_address: str, stream: bool, rows: int) -> None:
    ticks: list[int] = []
    with Client(mean_address) as client:
        report = run(client, Load(requests=20, concurrency=4, rows=rows, stream=stream), progress=ticks.append)
    assert ticks == list(range(1, 21))
    assert report.errors == 0
    assert report.images_per_s == pytest.approx(20 * rows / report.seconds)
    assert 0 < report.p50_ms <= report.p95_ms <= report.p99_ms
    assert report.mean_batch >= rows
    assert set(report.stage_ms) == {"queue", "compute_input", "compute_infer", "compute_output"}


def test_encoded_pictures_are_sent_in_turn_and_failures_counted(demo_address: str, pictures: list[Path]) -> None:
    images = [pictures[0].read_bytes(), b"no picture"]
    for stream in (False, True):
        with Client(demo_address) as client:
            report = run(client, Load(requests=10, concurrency=2, encoded=True, stream=stream), images=images)
        assert report.errors == 5


def test_a_model_without_preprocessing_takes_no_encoded_pictures(mean_address: str) -> None:
    with Client(mean_address) as client, pytest.raises(TensignError, match="declares no preprocessing"):
        run(client, Load(encoded=True), images=[b""])
