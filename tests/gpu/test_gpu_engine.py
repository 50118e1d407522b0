"""ONNX Runtime's engine on a GPU: memory that is pinned, lanes that overlap, memory that stays flat, and runs out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import ondevice
from conftest import save_onnx
from ondevice import Array
from tensign.engines import cuda
from tensign.engines.onnx import OnnxEngine
from tensign.errors import OutOfMemory

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

SIZES = (1, 2, 8, 16)
MIB = 1 << 20


@pytest.fixture(scope="module")
def rows() -> Array:
    return ondevice.photographs(48)


@pytest.fixture(scope="module")
def wanted(rows: Array) -> Array:
    return ondevice.on_cpu(rows)


@pytest.fixture(scope="module")
def engine(device: str, rows: Array) -> Iterator[OnnxEngine]:
    """Warmed for SIZES."""
    engine = ondevice.opened(device)
    for size in SIZES:
        engine.warmup({engine.inputs[0].name: rows[:size]})
    yield engine
    engine.close()


def run(engine: OnnxEngine, batch: Array) -> Array:
    return ondevice.only(engine.run({engine.inputs[0].name: batch}))


def test_memory_for_rows_is_pinned_and_copied_from(device: str, engine: OnnxEngine, rows: Array) -> None:
    if device == "cpu":
        pytest.skip("nothing is pinned for a CPU")
    runtime = engine._runtime
    assert isinstance(runtime, cuda.CudaRuntime)
    ordinary = np.zeros(1 << 20, np.uint8)
    assert runtime.pin(ordinary.ctypes.data, ordinary.nbytes)
    runtime.unpin(ordinary.ctypes.data)
    pinned = engine.empty(rows[:8].shape, rows.dtype)
    pinned[...] = rows[:8]
    assert not runtime.pin(pinned.ctypes.data, pinned.nbytes)  # it is already
    np.testing.assert_array_equal(run(engine, pinned), run(engine, rows[:8]))


def lanes(count: int, work: Callable[[int], None]) -> float:
    """Seconds that so many threads take, each for `work` with its number; raises what one of them raised."""
    failed: list[BaseException] = []

    def lane(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=lane, args=(number,)) for number in range(count)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    if failed:
        raise failed[0]
    return took


def test_two_lanes_of_batches_at_random_overlap_and_every_answer_is_right(
    device: str, engine: OnnxEngine, rows: Array, wanted: Array
) -> None:
    turns = 4 if device == "cpu" else 300

    def work(number: int) -> None:
        random = np.random.default_rng(number)
        for _ in range(turns):
            chosen = random.choice(len(rows), random.choice(SIZES), replace=False)
            np.testing.assert_allclose(run(engine, rows[chosen]), wanted[chosen], atol=1e-4)

    lanes(2, work)
    if device == "cpu":
        return
    batch = engine.empty(rows[:16].shape, rows.dtype)
    batch[...] = rows[:16]

    def same(_: int) -> None:
        for _ in range(turns):
            run(engine, batch)

    alone = min(lanes(1, same) for _ in range(3))
    assert min(lanes(2, same) for _ in range(3)) < 1.9 * alone  # for twice the work


def test_memory_stays_flat_over_a_thousand_batches(device: str, engine: OnnxEngine, rows: Array) -> None:
    batches = 20 if device == "cpu" else 1000
    random = np.random.default_rng(0)

    def some(count: int) -> None:
        for _ in range(count):
            run(engine, rows[: random.choice(SIZES)])

    some(batches // 10)
    before = ondevice.free_bytes(device)
    some(batches)
    assert before - ondevice.free_bytes(device) <= (64 if device == "cpu" else 2) * MIB


def test_a_batch_that_no_memory_holds_is_told_as_that_and_the_next_one_runs(device: str, tmp_path: Path) -> None:
    width = 1 << (10 if device == "cpu" else 28)  # numbers a row, of 4 bytes
    nodes = [
        helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["shape"], value=helper.make_tensor("v", TensorProto.INT64, [2], [1, width])),
        helper.make_node("Expand", ["floats", "shape"], ["wide"]),
        helper.make_node("ReduceMax", ["wide"], ["y"], axes=[1]),
    ]
    save_onnx(tmp_path / "wide.onnx", nodes, {"x": (TensorProto.UINT8, ["n", 1])}, {"y": (TensorProto.FLOAT, ["n", 1])})
    engine = ondevice.opened(device, tmp_path / "wide.onnx")
    engine.warmup({"x": np.ones((1, 1), np.uint8)})
    with nullcontext() if device == "cpu" else pytest.raises(OutOfMemory, match=device):
        run(engine, np.ones((1024, 1), np.uint8))
    assert engine.ready
    np.testing.assert_array_equal(run(engine, np.full((1, 1), 7, np.uint8)), [[7]])
    engine.close()
