"""The CUDA path without a GPU: its sessions and buffers for real on ONNX Runtime's CPU provider, the rest behind fakes.

The fakes prove order, sharing and what faults do; they prove nothing of CUDA.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from conftest import save_onnx
from tensign.config import ModelConfig
from tensign.devicememory import Copy
from tensign.doctor.lookup import Lookup
from tensign.engines import cuda
from tensign.engines.onnx import OnnxEngine
from tensign.errors import DeviceLost, EngineError, InvalidConfig, InvalidInput, OutOfMemory, ProviderUnavailable
from tensign.model import Model

HOST = ("cpu", 0)


@pytest.fixture
def doubler(tmp_path: Path) -> Path:
    """uint8 [n,2,3] -> y: float32 [n,2,3], twice the input."""
    nodes = [
        helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["floats", "floats"], ["y"]),
    ]
    inputs, outputs = {"x": (TensorProto.UINT8, ["n", 2, 3])}, {"y": (TensorProto.FLOAT, ["n", 2, 3])}
    save_onnx(tmp_path / "double.onnx", nodes, inputs, outputs)
    return tmp_path / "double.onnx"


def rows(count: int, seed: int = 0) -> dict[str, Any]:
    return {"x": np.random.default_rng(seed).integers(0, 256, (count, 2, 3), np.uint8)}


class Opened:
    """Opens sessions on the CPU and remembers with which settings; a slow one takes its time."""

    def __init__(self, file: Path) -> None:
        self.file, self.count = file, 0

    def __call__(self, batch: Any = None) -> Any:
        self.count += 1
        return onnxruntime.InferenceSession(self.file, providers=["CPUExecutionProvider"])


def test_each_batch_size_has_a_session_and_every_lane_its_buffers(doubler: Path) -> None:
    opened = Opened(doubler)
    sessions = cuda.Sessions([opened], HOST)
    for count in (1, 4, 4):
        sessions.warm(rows(count))
    assert opened.count == 2
    wrong: list[int] = []

    def lane(number: int) -> None:
        for turn in range(100):
            batch = rows((1, 4)[turn % 2], seed=1000 * number + turn)
            (answer,) = sessions.run(batch)
            if not np.array_equal(answer, 2 * batch["x"].astype(np.float32)):
                wrong.append(turn)

    threads = [threading.Thread(target=lane, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong


def test_an_answer_is_not_written_over_by_the_next_batch(doubler: Path) -> None:
    sessions = cuda.Sessions([Opened(doubler)], HOST)
    sessions.warm(rows(2))
    (first,) = sessions.run(rows(2, seed=1))
    kept = first.copy()
    sessions.run(rows(2, seed=2))
    assert np.array_equal(first, kept)


def test_shapes_that_were_not_warmed_are_none_of_theirs(doubler: Path) -> None:
    sessions = cuda.Sessions([Opened(doubler)], HOST)
    sessions.warm(rows(2))
    assert sessions.holds(rows(2)) and not sessions.holds(rows(3))
    assert not sessions.holds({"x": np.zeros((2, 5, 3), np.uint8)})


class Slowed:
    """A session whose runs take a while longer."""

    def __init__(self, session: Any, seconds: float) -> None:
        self._session, self._seconds, self.runs = session, seconds, 0

    def run_with_iobinding(self, *given: Any) -> None:
        self.runs += 1
        threading.Event().wait(self._seconds)
        self._session.run_with_iobinding(*given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def test_of_several_settings_the_fastest_runs(doubler: Path) -> None:
    opened = Opened(doubler)
    slow, fast = Slowed(opened(), 0.02), Slowed(opened(), 0)
    sessions = cuda.Sessions([lambda _: slow, lambda _: fast], HOST)
    sessions.warm(rows(2))
    tried = slow.runs
    sessions.run(rows(2))
    assert slow.runs == tried and fast.runs == tried + 1


class Wrong(Slowed):
    """A session of settings that change the answers."""

    def io_binding(self) -> Any:
        real = self._session.io_binding()

        class Binding:
            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

            def copy_outputs_to_cpu(self) -> list[Any]:
                return [answer + 1 for answer in real.copy_outputs_to_cpu()]

        Binding._iobinding = real._iobinding  # type: ignore[attr-defined]
        return Binding()


def test_settings_that_change_the_answers_are_not_taken(doubler: Path) -> None:
    opened = Opened(doubler)
    sessions = cuda.Sessions([lambda _: Slowed(opened(), 0.02), lambda _: Wrong(opened(), 0)], HOST)
    batch = rows(2)
    sessions.warm(batch)
    assert np.array_equal(sessions.run(batch)[0], 2 * batch["x"].astype(np.float32))
    with pytest.raises(EngineError, match="2 rows has other answers in buffers"):
        cuda.Sessions([lambda _: Wrong(opened(), 0)], HOST).warm(batch)


class Failing(Slowed):
    """A session that fails once, like one of CUDA."""

    def run_with_iobinding(self, *given: Any) -> None:
        if self.runs == 6:
            self.runs += 1
            raise RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; hostname=node")
        super().run_with_iobinding(*given)


def test_buffers_of_a_failed_run_are_not_used_again(doubler: Path) -> None:
    session = Failing(Opened(doubler)(), 0)
    sessions = cuda.Sessions([lambda _: session], HOST)
    sessions.warm(rows(2))
    sessions.run(rows(2))
    sessions.run(rows(2))
    with pytest.raises(RuntimeError):
        sessions.run(rows(2))
    batch = rows(2, seed=7)
    assert np.array_equal(sessions.run(batch)[0], 2 * batch["x"].astype(np.float32))


def test_a_session_whose_warm_up_fails_is_gone_at_once(doubler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its arena is, with it: the next one needs the memory."""
    as_on_cuda(monkeypatch, [])
    engine = OnnxEngine(doubler, "cuda")
    engine.load()
    opened: list[weakref.ref[Any]] = []

    class Full:
        def __init__(self) -> None:
            opened.append(weakref.ref(self))

        def run(self, *given: Any) -> None:
            raise RuntimeError("Available memory of 1040384 is smaller than requested bytes of 8192000")

    engine._warmed = cuda.Sessions([lambda _: Full()], HOST)
    gc.disable()
    try:
        with contextlib.suppress(OutOfMemory):
            engine.warmup(rows(2))
        assert len(opened) == 1 and opened[0]() is None
    finally:
        gc.enable()
    engine.close()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CUDA failure 2: out of memory ; GPU=0 ; file=cuda_allocator.cc", OutOfMemory),
        ("bfc_arena.cc AllocateRawInternal Failed to allocate memory for requested buffer of size 123", OutOfMemory),
        ("CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED", OutOfMemory),
        ("bfc_arena.cc:360 Available memory of 1040384 is smaller than requested bytes of 8192000", OutOfMemory),
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0", DeviceLost),
        ("CUDA failure 214: uncorrectable ECC error encountered ; GPU=0", DeviceLost),
        ("CUDA error 999: unknown", DeviceLost),
        ("Non-zero status code returned while running Gather node: indices out of bounds", None),
        ("CUDA failure 1: invalid argument ; GPU=0", None),
        ("expected 2 rows, got 700", None),
    ],
)
def test_what_an_error_means_for_the_device(text: str, kind: type[Exception] | None) -> None:
    found = cuda.told(RuntimeError(text), "cuda:1")
    assert type(found) is (kind or type(None))
    assert found is None or "cuda:1" in str(found)


class FakeRuntime:
    """Remembers what is pinned; refuses beyond a limit, as a system does. Memory of a device is the host's.

    shared: what other processes would open by a handle; opened: addresses of it; copies: what was copied, in order; faults:
    what copying raises next.
    """

    def __init__(self, limit: int = 1 << 30) -> None:
        self.limit, self.pinned = limit, dict[int, int]()
        self.shared: dict[bytes, Any] = {}
        self.opened: list[int] = []
        self.copies: list[Copy] = []
        self.faults: list[Exception] = []

    def open_region(self, index: int, handle: bytes) -> tuple[int, int]:
        if handle not in self.shared:
            raise InvalidInput(f"cuda:{index}: the handle opens no memory")
        self.opened.append(self.shared[handle].ctypes.data)
        return self.opened[-1], self.shared[handle].nbytes

    def close_region(self, index: int, address: int) -> None:
        self.opened.remove(address)

    def copy(self, index: int, copies: Sequence[Copy]) -> None:
        if self.faults:
            raise self.faults.pop(0)
        for to, source, size in copies:
            ctypes.memmove(to, source, size)
        self.copies += copies

    def pin(self, address: int, size: int) -> bool:
        if size > self.limit:
            return False
        self.pinned[address] = size
        return True

    def unpin(self, address: int) -> None:
        mapped = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines()]
        if any(int(begins, 16) <= address < int(ends, 16) for begins, ends in mapped):
            del self.pinned[address]

    def memory(self, index: int) -> tuple[int, int]:
        return 1 << 30, 2 << 30


def test_memory_is_pinned_as_long_as_anybody_sees_it() -> None:
    runtime = FakeRuntime()
    array = cuda.pinned(runtime, (3, 5, 7), np.uint8)
    assert runtime.pinned == {array.ctypes.data: 105} and array.ctypes.data % 4096 == 0
    array[:] = 7
    part = array[1:2]
    del array
    gc.collect()
    assert len(runtime.pinned) == 1 and (part == 7).all()
    del part
    gc.collect()
    assert runtime.pinned == {}


def test_what_cannot_be_pinned_is_ordinary_memory() -> None:
    runtime = FakeRuntime(limit=10)
    assert cuda.pinned(runtime, (100,), np.float32).shape == (100,)
    assert cuda.pinned(runtime, (0, 3), np.float32).shape == (0, 3)
    assert cuda.pinned(runtime, (1,), object).dtype == object
    assert runtime.pinned == {}


def as_on_cuda(monkeypatch: pytest.MonkeyPatch, asked: list[list[Any]]) -> FakeRuntime:
    """Lets the engine believe in a GPU whose sessions run on the CPU."""
    real, runtime = onnxruntime.InferenceSession, FakeRuntime()

    class Session:
        def __init__(self, file: str, options: Any, providers: list[Any]) -> None:
            asked.append(providers)
            self._session, self._first = real(file, options, ["CPUExecutionProvider"]), providers[0][0]

        def get_providers(self) -> list[str]:
            return [self._first]

        def __getattr__(self, name: str) -> Any:
            return getattr(self._session, name)

    sessions = cuda.Sessions
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [cuda.TENSORRT, cuda.CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(cuda, "CudaRuntime", lambda: runtime)
    monkeypatch.setattr(cuda, "Sessions", lambda opens, place, **options: sessions(opens, HOST))
    return runtime


def test_the_engine_on_a_gpu_asks_for_what_it_should(doubler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[Any]] = []
    runtime = as_on_cuda(monkeypatch, asked)
    engine = OnnxEngine(doubler, "cuda:1")
    engine.load()
    batch = {"x": engine.empty((4, 2, 3), np.uint8)}
    assert list(runtime.pinned) == [batch["x"].ctypes.data] and engine.lanes == 2
    batch["x"][:] = rows(4)["x"]
    engine.warmup(batch)
    assert np.array_equal(engine.run(batch)["y"], 2 * batch["x"].astype(np.float32))
    assert np.array_equal(engine.run(rows(3))["y"], 2 * rows(3)["x"].astype(np.float32))  # not warmed
    (plain, first, last, again) = (dict(providers)[cuda.CUDA] for providers in asked)
    assert plain == again  # closed when all that comes was warmed, opened for what came nevertheless
    assert (first["prefer_nhwc"], last["prefer_nhwc"]) == ("0", "1")
    assert plain["device_id"] == "1" and plain["use_tf32"] == "0" and plain["enable_cuda_graph"] == "0"
    assert plain["cudnn_conv_algo_search"] == "HEURISTIC" and plain["arena_extend_strategy"] == "kSameAsRequested"


@pytest.mark.parametrize(
    ("options", "provider", "setting"),
    [
        ({"tf32": True}, cuda.CUDA, {"use_tf32": "1"}),
        ({"accelerator": "tensorrt"}, cuda.TENSORRT, {"device_id": "0", "trt_fp16_enable": "0"}),
        ({"accelerator": "tensorrt", "half": True}, cuda.TENSORRT, {"trt_fp16_enable": "1"}),
    ],
)
def test_what_is_asked_for_on_top(
    doubler: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: Mapping[str, Any],
    provider: str,
    setting: Mapping[str, str],
) -> None:
    asked: list[list[Any]] = []
    as_on_cuda(monkeypatch, asked)
    engine = OnnxEngine(doubler, "cuda", **options)
    engine.load()
    assert engine.lanes == 2
    name, given = asked[0][0]
    assert name == provider and setting.items() <= given.items()


def test_graphs_are_captured_and_replayed_on_one_thread(doubler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[Any]] = []
    as_on_cuda(monkeypatch, asked)
    fake: Any = onnxruntime.InferenceSession
    threads: list[int] = []

    class Session(fake):  # type: ignore[misc]
        def __getattr__(self, name: str) -> Any:
            if name.startswith("run"):
                threads.append(threading.get_ident())
            return super().__getattr__(name)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    engine = OnnxEngine(doubler, "cuda", accelerator="cuda-graphs")
    engine.load()
    engine.warmup(rows(4))
    warmed = len(threads)
    for count in (4, 3):  # one that was warmed, and one that was not
        with ThreadPoolExecutor(1) as lane:
            answer = lane.submit(engine.run, rows(count)).result()
        assert np.array_equal(answer["y"], 2 * rows(count)["x"].astype(np.float32))
    assert 0 < warmed < len(threads) and len(set(threads)) == 1 and threading.get_ident() not in threads
    assert engine.lanes == 1
    assert [dict(providers)[cuda.CUDA]["enable_cuda_graph"] for providers in asked] == [
        "0",
        "1",
        "1",
        "0",
    ]  # by any shape, none
    (thread,) = [each for each in threading.enumerate() if each.ident == threads[0]]
    engine.close()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("options", [{"tf32": True}, {"accelerator": "tensorrt"}])
def test_on_a_cpu_it_is_refused(doubler: Path, options: Mapping[str, Any]) -> None:
    with pytest.raises(ProviderUnavailable, match="runs on CUDA alone"):
        OnnxEngine(doubler, "cpu", **options).load()


@pytest.mark.skipif(Lookup().finds("libnvinfer.so.10"), reason="TensorRT is installed")
def test_an_installation_without_tensorrt_says_how_to_get_it(doubler: Path) -> None:
    with pytest.raises(ProviderUnavailable, match=r"Tensorrt.* is missing \(libnvinfer.so.10.*apt repository.*tensorrt image"):
        OnnxEngine(doubler, "cuda", accelerator="tensorrt").load()


def test_tensorrt_builds_for_each_batch_size_alone(doubler: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[Any]] = []
    as_on_cuda(monkeypatch, asked)
    engine = OnnxEngine(doubler, "cuda:0", accelerator="tensorrt", cache=str(tmp_path / "kept"))
    engine.load()
    for count in (1, 4):
        engine.warmup(rows(count))
        assert np.array_equal(engine.run(rows(count))["y"], 2 * rows(count)["x"].astype(np.float32))
    any_shape, one, four = (dict(providers)[cuda.TENSORRT] for providers in asked)
    assert "trt_profile_opt_shapes" not in any_shape
    assert [given["trt_profile_max_shapes"] for given in (one, four)] == ["x:1x2x3", "x:4x2x3"]
    assert len({given["trt_engine_cache_path"] for given in (any_shape, one, four)}) == 3
    assert len({given["trt_timing_cache_path"] for given in (any_shape, one, four)}) == 1


def test_a_lost_device_makes_the_model_not_ready_and_memory_halves_the_batch(
    mean_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_on_cuda(monkeypatch, [])
    model = Model.load(mean_model, ModelConfig(device="cuda", max_batch_size=8))
    (engine,) = model._engines
    assert isinstance(engine, OnnxEngine) and engine._warmed is not None
    working = engine._warmed.run

    def with_fault(fault: Callable[[int], None]) -> None:
        def run(batch: Any) -> Any:
            fault(len(next(iter(batch.values()))))
            return working(batch)

        monkeypatch.setattr(engine._warmed, "run", run)

    pictures = np.random.default_rng(0).integers(0, 256, (8, 4, 5, 3), np.uint8)

    def full(count: int) -> None:
        if count > 2:
            raise RuntimeError("CUDA failure 2: out of memory")

    with_fault(full)
    largest = model.buckets.largest
    np.testing.assert_allclose(model.infer(pictures)["output-0"], pictures.mean((1, 2)), rtol=1e-6)
    assert model.buckets.largest == min(largest, 2) and model.ready

    def lost(count: int) -> None:
        raise RuntimeError("CUDA failure 719: unspecified launch failure")

    with_fault(lost)
    with pytest.raises(DeviceLost, match="CUDA error 719"):
        model.infer(pictures[:1])
    assert not model.ready
    model.close()


NO_NAMES = ["cuda:GPU-", "cuda:MIG-../x", "cuda:GPU-0 ", "cuda:TPU-0", "GPU-0", "cuda:GPU-a,GPU-a"]


@pytest.mark.parametrize("device", ["cuda:", "cuda:0,", "cuda:a", "gpu", "cpu:1", *NO_NAMES])
def test_devices_that_are_none(device: str) -> None:
    with pytest.raises(InvalidConfig, match=r"device: (wanted|GPU-a is named twice)"):
        ModelConfig(device=device)


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ("cuda:0,0", 'device: 0 is named twice in "cuda:0,0"'),
        ("cuda:1,0,01", "device: 1 is named twice"),
        ("MIG-abc", "did you mean cuda:MIG-abc?"),
        ("GPU-abc", "did you mean cuda:GPU-abc?"),
        ("1", "did you mean cuda:1?"),
        ("cuda:0, 1", "did you mean cuda:0,1?"),
        ("cuda:0,", "several are written without blanks: cuda:0,1"),
    ],
)
def test_a_device_that_was_nearly_named_is_told(device: str, says: str) -> None:
    with pytest.raises(InvalidConfig, match=re.escape(says)):
        ModelConfig(device=device)


def test_devices_each_by_itself() -> None:
    assert ModelConfig(device="cuda:0,2").devices == ("cuda:0", "cuda:2")
    assert ModelConfig(device="cuda:GPU-c0,03,MIG-7f").devices == ("cuda:GPU-c0", "cuda:3", "cuda:MIG-7f")
    assert ModelConfig(device="auto").devices == ("auto",)
