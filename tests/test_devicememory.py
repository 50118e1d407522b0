"""Rows that a client leaves in a device's memory, from its region to the engine's buffers.

The device is a fake, whose memory is the host's: it proves where rows go, in which order, and what faults do. It proves nothing
of CUDA. The sessions are ONNX Runtime's own, on the CPU.
"""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

import hostile
from conftest import CPU
from hostile import MODELS
from tensign._pb import open_inference_pb2 as pb
from tensign.config import ModelConfig, ServerConfig
from tensign.devicememory import DeviceArray, DeviceRegion
from tensign.engines import cuda
from tensign.errors import DeviceLost, EngineError, InvalidInput
from tensign.model import Model
from tensign.regions import Regions, SystemRegion
from tensign.request import Part, Request, kind_of
from tensign.slots import Slots
from tensign.testing import serving
from test_engines_cuda import FakeRuntime, as_on_cuda

Array = npt.NDArray[Any]

ON = ServerConfig(grpc_port=0, drain_s=5.0, cuda_shared_memory=True)
ON_CUDA = ModelConfig(device="cuda", max_batch_size=4)
INFER = "/inference.GRPCInferenceService/ModelInfer"
HANDLE = b"h" * 64


def pixels(rows: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (rows, 4, 5, 3), np.uint8)


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


def left_on(runtime: FakeRuntime, array: Array, index: int = 0) -> DeviceArray:
    """The same rows in the memory of the fake's device, in a region of their own."""
    handle = len(runtime.shared).to_bytes(64, "big")
    runtime.shared[handle] = array
    region = DeviceRegion(runtime, "region", index, handle, array.nbytes)
    return region.read(0, array.nbytes).viewed(array.dtype, array.shape)


def copied(array: Any) -> Array:
    """What an engine's buffer holds after the rows were copied there."""
    buffer = np.full(array.shape, 99, array.dtype)
    array.copy_to(buffer.ctypes.data)
    return buffer


def test_an_array_on_a_device_has_dtype_shape_and_slices(runtime: FakeRuntime) -> None:
    rows = pixels(5).astype(np.float32)
    array = left_on(runtime, rows)
    assert (array.dtype, array.shape, array.ndim, len(array), array.size) == (rows.dtype, rows.shape, 4, 5, rows.size)
    assert array.device == "cuda:0"
    for part in (slice(1, 3), slice(-1, None), slice(0, 99), slice(2, 3)):
        np.testing.assert_array_equal(copied(array[part]), rows[part])


def test_rows_of_several_requests_are_gathered_and_padded(runtime: FakeRuntime) -> None:
    first, second = pixels(3, 1), pixels(2, 2)
    one, other = (Request.of({"x": left_on(runtime, rows)}) for rows in (first, second))  # type: ignore[dict-item]
    batch = Slots().gather([Part(one, 1, 3), Part(other, 0, 2)], 8)
    assert batch["x"].shape == (8, 4, 5, 3)
    wanted = np.concatenate([first[1:], second, *[second[-1:]] * 4])
    np.testing.assert_array_equal(copied(batch["x"]), wanted)
    sources = [source for _, source, _ in runtime.copies]
    assert sources == [first[1:].ctypes.data, second.ctypes.data, *[second[1:].ctypes.data] * 4]


def test_inputs_on_device_and_host_are_gathered_side_by_side(runtime: FakeRuntime) -> None:
    there, here = pixels(2, 1), np.arange(2, dtype=np.float32)
    request = Request.of({"x": left_on(runtime, there), "y": here})  # type: ignore[dict-item]
    batch = Slots().gather([Part(request, 0, 2)], 3)
    assert list(batch) == ["x", "y"]
    np.testing.assert_array_equal(copied(batch["x"]), there[[0, 1, 1]])
    np.testing.assert_array_equal(batch["y"], here[[0, 1, 1]])


def test_rows_on_a_device_share_batches_among_themselves(runtime: FakeRuntime) -> None:
    here: Any = {"x": pixels(1)}
    there: Any = {"x": left_on(runtime, pixels(1))}
    assert kind_of(there) == kind_of({"x": left_on(runtime, pixels(2))})  # type: ignore[dict-item]
    assert kind_of(there) != kind_of(here)


def test_a_region_is_open_as_long_as_anybody_has_rows_of_it(runtime: FakeRuntime) -> None:
    runtime.shared[HANDLE] = pixels(4)
    regions = Regions((), lambda: runtime, {"cuda:0"})
    regions.register_on_device("one", HANDLE, 0, 240)
    array = regions["one"].read(0, 240)
    assert isinstance(array, DeviceArray)
    part = array.viewed(np.dtype(np.uint8), (4, 4, 5, 3))[1:2]
    regions.unregister(DeviceRegion, "one")
    del array
    gc.collect()
    assert len(runtime.opened) == 1
    np.testing.assert_array_equal(copied(part), runtime.shared[HANDLE][1:2])
    del part
    gc.collect()
    assert runtime.opened == []


@pytest.mark.parametrize(
    ("handle", "index", "size", "told"),
    [
        (b"h" * 63, 0, 1, "expected a raw_handle of 64 bytes, got 63"),
        (b"", 0, 1, "expected a raw_handle of 64 bytes, got 0"),
        (b"x" * 64, 0, 1, "the handle opens no memory"),
        (HANDLE, 1, 1, "no model takes rows from the memory of device 1, but of cuda:0"),
        (HANDLE, -1, 1, "no model takes rows from the memory of device -1"),
        (HANDLE, 0, 241, "241 bytes are more than the 240 that its handle is for"),
        (HANDLE, 0, 2**64 - 1, "are more than the 240"),
        (HANDLE, 0, 0, "expected at least 1 byte"),
    ],
)
def test_what_cannot_be_registered(runtime: FakeRuntime, handle: bytes, index: int, size: int, told: str) -> None:
    runtime.shared[HANDLE] = pixels(4)
    regions = Regions((), lambda: runtime, {"cuda:0"})
    with pytest.raises(InvalidInput, match=told):
        regions.register_on_device("one", handle, index, size)
    gc.collect()
    assert runtime.opened == [] and regions.registered(DeviceRegion) == []


def test_both_kinds_share_one_table_and_are_listed_apart(runtime: FakeRuntime, tmp_path: Path) -> None:
    runtime.shared[HANDLE] = pixels(4)
    regions = Regions(("*",), lambda: runtime, {"cuda:0"})
    regions.register_on_device("one", HANDLE, 0, 240)
    with pytest.raises(InvalidInput, match="registered already"):
        regions.register("one", "any", 0, 1)
    regions.unregister(SystemRegion)
    assert regions.registered(SystemRegion) == [] and len(regions.registered(DeviceRegion)) == 1


@pytest.mark.parametrize(
    ("dtype", "shape", "told"),
    [
        ("uint8", (3, 4, 5, 3), "uint8 .* takes 180 bytes, shared_memory_byte_size is 240"),
        ("bool", (240,), "BOOL in CUDA shared memory: expected numbers"),
        ("object", (1,), "BYTES in CUDA shared memory: expected numbers"),
    ],
)
def test_bytes_that_have_to_be_looked_at_stay_on_the_host(
    runtime: FakeRuntime, dtype: str, shape: tuple[int, ...], told: str
) -> None:
    with pytest.raises(InvalidInput, match=told):
        left_on(runtime, pixels(4)).viewed(np.dtype(dtype), shape)


@pytest.fixture
def on_cuda(mean_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Model, FakeRuntime]]:
    runtime = as_on_cuda(monkeypatch, [])
    model = Model.load(mean_model, ON_CUDA, name="mean")
    yield model, runtime
    model.close()


def test_rows_go_from_region_to_engine_without_the_host(on_cuda: tuple[Model, FakeRuntime]) -> None:
    model, runtime = on_cuda
    assert model.rows_on == "cuda:0"
    for rows in (1, 2, 3, 4, 11):
        array = pixels(rows, rows)
        begins, ends = array.ctypes.data, array.ctypes.data + array.nbytes
        runtime.copies.clear()
        np.testing.assert_allclose(model.infer(left_on(runtime, array))["output-0"], array.mean((1, 2)), rtol=1e-6)
        assert {source for _, source, _ in runtime.copies} >= {begins}
        assert all(begins <= source < ends for _, source, _ in runtime.copies)


def test_requests_from_device_and_host_at_once(on_cuda: tuple[Model, FakeRuntime]) -> None:
    model, runtime = on_cuda
    arrays = [pixels(number % 3 + 1, number) for number in range(24)]
    inputs = [left_on(runtime, array) if number % 2 else array for number, array in enumerate(arrays)]
    with ThreadPoolExecutor(8) as pool:
        for array, answer in zip(arrays, pool.map(model.infer, inputs), strict=True):
            np.testing.assert_allclose(answer["output-0"], array.mean((1, 2)), rtol=1e-6)


def test_a_shape_that_was_not_warmed_is_copied_too(on_cuda: tuple[Model, FakeRuntime]) -> None:
    model, runtime = on_cuda
    (engine,) = model._engines
    array = pixels(7)
    batch: Any = {"image": left_on(runtime, array)}
    np.testing.assert_allclose(engine.run(batch)["mean"], array.mean((1, 2)), rtol=1e-6)


def test_what_is_checked_of_rows_elsewhere(on_cuda: tuple[Model, FakeRuntime]) -> None:
    model, runtime = on_cuda
    with pytest.raises(InvalidInput, match=r"expected uint8 \[-1,4,5,3\], got float32 \[2,4,5,3\]"):
        model.infer(left_on(runtime, pixels(2).astype(np.float32)))
    with pytest.raises(InvalidInput, match=r"got uint8 \[2,5,4,3\]"):
        model.infer(left_on(runtime, pixels(2).reshape(2, 5, 4, 3)))
    with pytest.raises(InvalidInput, match="lies on cuda:1; this model takes rows from cuda:0 alone"):
        model.infer({"input-0": left_on(runtime, pixels(1), index=1)})


def test_a_fault_of_copying_fails_that_request_and_none_after_it(on_cuda: tuple[Model, FakeRuntime]) -> None:
    model, runtime = on_cuda
    array = pixels(2)
    runtime.faults.append(RuntimeError("CUDA failure 1: copying 1 blocks of rows on cuda:0"))
    with pytest.raises(EngineError, match="the engine failed"):
        model.infer(left_on(runtime, array))
    np.testing.assert_allclose(model.infer(left_on(runtime, array))["output-0"], array.mean((1, 2)), rtol=1e-6)
    runtime.faults.append(RuntimeError("CUDA failure 719: copying 1 blocks of rows on cuda:0"))
    with pytest.raises(DeviceLost, match="CUDA error 719"):
        model.infer(left_on(runtime, array))
    assert not model.ready


def test_models_that_cannot_read_a_device(runtime: FakeRuntime, mean_model: Path) -> None:
    model = Model.load(mean_model, CPU)
    assert model.rows_on == ""
    with pytest.raises(InvalidInput, match="lies on cuda:0; this model takes rows from the host alone"):
        model.infer({"input-0": left_on(runtime, pixels(1))})
    model.close()


def test_pictures_that_the_host_resizes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runtime = as_on_cuda(monkeypatch, [])
    picture = replace(MODELS["picture"], inputs={"image": ("uint8", [-1, -1, -1, 3])})
    model = Model.load(hostile.written(tmp_path / "picture", picture), ON_CUDA)
    with pytest.raises(InvalidInput, match=r'input "image": pictures of this size are resized by the host.* send them raw'):
        model.infer({"image": left_on(runtime, np.zeros((1, 9, 9, 3), np.uint8))})
    fitting = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    np.testing.assert_allclose(model.infer({"image": left_on(runtime, fitting)})["output"], fitting.mean((1, 2)), rtol=1e-5)
    model.close()


def send(channel: grpc.Channel, name: str, request: Any, answer: Any) -> Any:
    path = f"/inference.GRPCInferenceService/{name}"
    return channel.unary_unary(path, bytes, answer.FromString)(request.SerializeToString(), timeout=30)


def placed(parameters: Any, region: str, size: int, offset: int = 0) -> None:
    parameters["shared_memory_region"].string_param = region
    parameters["shared_memory_byte_size"].int64_param = size
    parameters["shared_memory_offset"].int64_param = offset


def test_over_grpc(mean_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = as_on_cuda(monkeypatch, [])
    array = pixels(4)
    answers = np.zeros(100, np.uint8)
    runtime.shared |= {HANDLE: array, b"o" * 64: answers}
    with (
        serving(Model.load(mean_model, ON_CUDA, name="mean"), config=ON) as address,
        grpc.insecure_channel(address) as channel,
    ):
        metadata = send(channel, "ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse)
        assert "cuda_shared_memory" in metadata.extensions and "system_shared_memory" not in metadata.extensions
        for name, handle, size in (("in", HANDLE, 240), ("out", b"o" * 64, 100)):
            request = pb.CudaSharedMemoryRegisterRequest(name=name, raw_handle=handle, device_id=0, byte_size=size)
            send(channel, "CudaSharedMemoryRegister", request, pb.CudaSharedMemoryRegisterResponse)
        told = send(channel, "CudaSharedMemoryStatus", pb.CudaSharedMemoryStatusRequest(), pb.CudaSharedMemoryStatusResponse)
        seen = {name: (region.name, region.device_id, region.byte_size) for name, region in told.regions.items()}
        assert seen == {"in": ("in", 0, 240), "out": ("out", 0, 100)}
        infer = pb.ModelInferRequest(model_name="mean")
        tensor = infer.inputs.add(name="input-0", datatype="UINT8", shape=[3, 4, 5, 3])
        placed(tensor.parameters, "in", 180, 60)
        placed(infer.outputs.add(name="output-0").parameters, "out", 60, 10)
        answer = send(channel, "ModelInfer", infer, pb.ModelInferResponse)
        assert list(answer.raw_output_contents) == [b""] and list(answer.outputs[0].shape) == [3, 3]
        found = answers[10:46].view(np.float32).reshape(3, 3)
        np.testing.assert_allclose(found, array[1:].mean((1, 2)), rtol=1e-6)
        assert not answers[:10].any() and not answers[46:].any()
        send(
            channel, "CudaSharedMemoryUnregister", pb.CudaSharedMemoryUnregisterRequest(), pb.CudaSharedMemoryUnregisterResponse
        )
        until = time.monotonic() + 10
        while runtime.opened and time.monotonic() < until:  # the engine's thread lets go a moment after the answer
            gc.collect()
        assert runtime.opened == []
        with pytest.raises(grpc.RpcError) as refused:
            send(channel, "ModelInfer", infer, pb.ModelInferResponse)
        assert 'region "out" is not registered' in str(refused.value.details())


def test_a_server_without_a_device_registers_none(mean_address: str, mean_model: Path) -> None:
    with serving(Model.load(mean_model, CPU, name="mean"), config=ON) as address, grpc.insecure_channel(address) as channel:
        request = pb.CudaSharedMemoryRegisterRequest(name="in", raw_handle=HANDLE, device_id=0, byte_size=1)
        with pytest.raises(grpc.RpcError) as refused:
            send(channel, "CudaSharedMemoryRegister", request, pb.CudaSharedMemoryRegisterResponse)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "no model takes rows from the memory of device 0, but of no device" in str(refused.value.details())


class Library:
    """The CUDA runtime's and the driver's calls, in the order in which they come; `failing`: what one of them returns."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.failing: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append((name, arguments))
            if name == "cudaIpcOpenMemHandle":
                arguments[0]._obj.value = 1 << 21 | 512
            if name == "cuMemGetAddressRange_v2":
                arguments[0]._obj.value, arguments[1]._obj.value = 1 << 21, 4096
            return self.failing.get(name, 0)

        return call

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    return library


def test_a_region_is_as_large_as_the_driver_says(library: Library) -> None:
    """A claim of the client's is not believed: reading beyond would end the context for everybody."""
    handle = bytes(range(64))
    assert cuda.CudaRuntime().open_region(3, handle) == (1 << 21 | 512, 4096 - 512)
    assert library.names == ["cudaSetDevice", "cudaIpcOpenMemHandle", "cuMemGetAddressRange_v2"]
    (index,), (_, given, flag) = library.calls[0][1], library.calls[1][1]
    assert (index, bytes(given), flag.value) == (3, handle, 1)


@pytest.mark.parametrize(
    ("failing", "last"),
    [
        ("cudaSetDevice", "cudaGetLastError"),
        ("cudaIpcOpenMemHandle", "cudaGetLastError"),
        ("cuMemGetAddressRange_v2", "cudaIpcCloseMemHandle"),
    ],
)
def test_a_handle_that_does_not_open_leaves_nothing_behind(library: Library, failing: str, last: str) -> None:
    library.failing[failing] = 201
    with pytest.raises(InvalidInput, match=r"cuda:0: the .*CUDA error 201"):
        cuda.CudaRuntime().open_region(0, bytes(64))
    assert library.names[-1] == last


def test_copies_are_waited_for_and_the_first_fault_counts(library: Library) -> None:
    runtime = cuda.CudaRuntime()
    runtime.copy(1, [(10, 20, 3), (13, 40, 5)])
    assert library.names == ["cudaSetDevice", "cudaMemcpyAsync", "cudaMemcpyAsync", "cudaStreamSynchronize"]
    to, source, size, kind, stream = library.calls[2][1]
    assert (to.value, source.value, size.value, kind) == (13, 40, 5, 4)
    assert stream.value == library.calls[3][1][0].value == 2
    library.failing = {"cudaMemcpyAsync": 719, "cudaStreamSynchronize": 1}
    with pytest.raises(RuntimeError, match="CUDA failure 719") as failed:
        runtime.copy(1, [(10, 20, 3), (13, 40, 5)])
    assert isinstance(cuda.told(failed.value, "cuda:1"), DeviceLost)
