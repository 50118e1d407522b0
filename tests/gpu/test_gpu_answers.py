"""Answers of a GPU beside those of a CPU in single precision, in every bucket and every way to compute them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ondevice
from ondevice import Array
from tensign.model import Model

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

FP32, HALF = 1e-4, 5e-3  # of a probability


@pytest.fixture(scope="module")
def rows() -> Array:
    return ondevice.photographs()


@pytest.fixture(scope="module")
def wanted(rows: Array) -> Array:
    return ondevice.on_cpu(rows)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ondevice.plain(tmp_path_factory.mktemp("plain") / "model")


@pytest.fixture(scope="module")
def half(rows: Array, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ondevice.plain(tmp_path_factory.mktemp("half") / "model", half_with=rows[:4])


def compare(path: Path, config: Any, rows: Array, wanted: Array, tolerance: float) -> None:
    with closing(Model.load(path, config)) as model:
        assert model.device == ("cpu" if config.device == "cpu" else config.device)
        off: dict[int, float] = {}
        for bucket in (*model.buckets.rows, *reversed(model.buckets.rows)):
            start = len(rows) - bucket  # twice over other rows: what a captured graph replays is the second time's
            for part in (slice(0, bucket), slice(start, None)):
                (answer,) = model.infer(rows[part]).values()
                off[bucket] = max(off.get(bucket, 0), float(np.abs(answer - wanted[part]).max()))
                assert (answer.argmax(1) == wanted[part].argmax(1)).mean() >= (1 if tolerance == FP32 else 0.995), bucket
        assert max(off.values()) <= tolerance, off


WAYS: dict[str, tuple[dict[str, str], float]] = {
    "fp32": ({}, FP32),
    "tf32": ({"variant": "tf32"}, HALF),
    "cuda-graphs": ({"accelerator": "cuda-graphs"}, FP32),
    "tensorrt": ({"accelerator": "tensorrt"}, FP32),
    "tensorrt tf32": ({"accelerator": "tensorrt", "variant": "tf32"}, HALF),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_bucket_answers_as_a_cpu_does(
    device: str, way: str, whole: Path, rows: Array, wanted: Array, tmp_path: Path
) -> None:
    options, tolerance = WAYS[way]
    compare(whole, ondevice.config(device, cache_dir=str(tmp_path), **options), rows, wanted, tolerance)


@pytest.mark.parametrize("accelerator", ["", "cuda-graphs"])
def test_half_precision_is_as_near_as_it_should(device: str, accelerator: str, rows: Array, wanted: Array, half: Path) -> None:
    compare(half, ondevice.config(device, accelerator=accelerator), rows, wanted, HALF)


def test_engines_that_tensorrt_built_are_found_again(
    device: str, whole: Path, rows: Array, wanted: Array, tmp_path: Path
) -> None:
    config = ondevice.config(device, accelerator="tensorrt", variant="tf32", max_batch_size=2, cache_dir=str(tmp_path))
    kept = []
    for _ in range(2):
        compare(whole, config, rows, wanted, HALF)
        kept.append({file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.engine")})
    assert kept[0] == kept[1] and bool(kept[0]) == (device != "cpu")
