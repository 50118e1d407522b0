"""Part of the step `served`: rows that a client shares with the server, in the host's memory or on the GPU, and only names."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from gpu import networks
from gpu.load import Generators
from gpu.step import Absent, Cell, Task
from tensign._pb import open_inference_pb2 as pb
from tensign.bench.load import Load
from tensign.child import served
from tensign.devicememory import HANDLE_BYTES
from tensign.errors import ModelNotReady
from tensign.regions import FOLDER
from tensign.rpc.codec import encode_request
from tensign.rpc.regionfields import REGION, SIZE

_SERVICE = "/inference.GRPCInferenceService"
_NAME, _KEY = "rows", f"tensign-benchmark-{os.getpid()}"
_SENT = ((1, 1), (1, 64), (16, 32))  # rows of a request, requests in flight
_SENT_ON_CPU = ((1, 1),)
_SECONDS, _WARMUP_S = 1.2, 0.5
_LIBRARIES = ("libcudart.so.13", "libcudart.so.12")
_TO_DEVICE = 1  # cudaMemcpyHostToDevice
_ALIKE = 1e-3


@dataclass(frozen=True, slots=True)
class Shared:
    """Memory that holds the rows: what the server has to be told, when it starts and once it runs."""

    options: tuple[str, ...]
    rpc: str
    request: Any


def cells(task: Task, generators: Generators, network: str, precision: str, *options: str) -> Iterator[Cell]:
    """options: of the server."""
    rows = networks.pieces(networks.SPEC, max(count for count, _ in _SENT))
    for kind, memory in (("system", _on_host), ("CUDA", _on_device)):
        called = f"{kind} shared memory"
        with contextlib.ExitStack() as stack:
            try:
                path = networks.directory(task, network, precision)
                shared = stack.enter_context(memory(task, rows))
                address = stack.enter_context(served(path, "--device", task.device, *shared.options, *options))
                _register(address, shared, path.name, rows)
            except Exception as error:  # the other cells are measured all the same
                yield f"{network}, {called}", partial(_raise, _reason(error))
                continue
            for count, level in _SENT if task.on_gpu else _SENT_ON_CPU:
                what = f"{called}, {count} row{'s' * (count > 1)}"
                measure = partial(_measured, generators, address, by_region(path.name, rows[:count]), count, level)
                yield f"{network}, {what}, {level}", partial(_named, network, what, level, measure)


def by_region(model: str, rows: networks.Pixels) -> bytes:
    """The request for rows that the region begins with."""
    request = pb.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="input-0", datatype="UINT8", shape=rows.shape)
    tensor.parameters[REGION].string_param, tensor.parameters[SIZE].int64_param = _NAME, rows.nbytes
    return request.SerializeToString()


@contextlib.contextmanager
def _on_host(task: Task, rows: networks.Pixels) -> Iterator[Shared]:
    file = Path(FOLDER, _KEY)
    file.write_bytes(rows.tobytes())
    try:
        request = pb.SystemSharedMemoryRegisterRequest(name=_NAME, key=_KEY, byte_size=rows.nbytes)
        yield Shared(("--shared-memory", _KEY), "SystemSharedMemoryRegister", request)
    finally:
        file.unlink()


@contextlib.contextmanager
def _on_device(task: Task, rows: networks.Pixels) -> Iterator[Shared]:
    """Memory of this process, which the server, another one, is let into."""
    if not task.on_gpu:
        raise Absent("needs a GPU")
    call, address, handle = _runtime(), ctypes.c_void_p(), ctypes.create_string_buffer(HANDLE_BYTES)
    call("cudaSetDevice", task.index)
    call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(rows.nbytes))
    try:
        source = ctypes.c_void_p(np.ascontiguousarray(rows).ctypes.data)
        call("cudaMemcpy", address, source, ctypes.c_size_t(rows.nbytes), _TO_DEVICE)
        call("cudaDeviceSynchronize")
        call("cudaIpcGetMemHandle", handle, address)
        request = pb.CudaSharedMemoryRegisterRequest(
            name=_NAME, raw_handle=handle.raw, device_id=task.index, byte_size=rows.nbytes
        )
        yield Shared(("--cuda-shared-memory",), "CudaSharedMemoryRegister", request)
    finally:
        call("cudaDeviceReset")  # with the memory goes the context, or it would be counted as the next server's


def _runtime() -> Callable[..., None]:
    """Calls the CUDA runtime that ONNX Runtime or torch brought. Raises Absent, also where a call fails."""
    with contextlib.suppress(ImportError):
        import onnxruntime

        onnxruntime.preload_dlls()
    with contextlib.suppress(ImportError):
        import torch  # noqa: F401 - loads it
    library = next(filter(None, map(_library, _LIBRARIES)), None)
    if library is None:
        raise Absent(f"none of {', '.join(_LIBRARIES)} is there: pip install 'tensign[gpu]'")

    def call(name: str, *arguments: Any) -> None:
        if failed := getattr(library, name)(*arguments):
            raise Absent(f"{name} fails here: CUDA error {failed}")

    return call


def _library(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def _register(address: str, shared: Shared, model: str, rows: networks.Pixels) -> None:
    """And checks that rows in the region are answered as rows in the message. Raises grpc.RpcError."""
    with grpc.insecure_channel(address) as channel:
        channel.unary_unary(f"{_SERVICE}/{shared.rpc}", bytes, bytes)(shared.request.SerializeToString())
        infer = channel.unary_unary(f"{_SERVICE}/ModelInfer", bytes, pb.ModelInferResponse.FromString)
        raw = encode_request(model, {"input-0": rows[:1]}).SerializeToString()
        wanted, got = (
            np.frombuffer(infer(message).raw_output_contents[0], np.float32) for message in (raw, by_region(model, rows[:1]))
        )
        if not (apart := np.abs(got - wanted).max()) <= _ALIKE:
            raise Absent(f"rows in the region are answered otherwise than in the message, by {apart:.1e}")


def _measured(generators: Generators, address: str, message: bytes, rows: int, level: int) -> dict[str, Any]:
    return generators.measure(address, [message], Load(level, rows=rows, duration_s=_SECONDS, warmup_s=_WARMUP_S))


def _named(network: str, kind: str, level: int, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return {"network": network, "kind": kind, "level": level, **measure()}


def _reason(error: Exception) -> Exception:
    """As what cannot be had here, where that is what it means."""
    if isinstance(error, grpc.Call):
        return Absent(str(error.details()))
    return Absent(str(error)) if isinstance(error, (ModelNotReady, OSError)) else error


def _raise(error: Exception) -> None:
    raise error
