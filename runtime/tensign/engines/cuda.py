"""What ONNX Runtime needs on a GPU beyond a CPU: settings, a session a batch size, buffers that stay, pinned memory.

Sessions and buffers go through ONNX Runtime's own calls, which are the same for its CPU provider: tests run them there. What
is CUDA's alone lies behind `Runtime`.
"""

from __future__ import annotations

import ctypes
import itertools
import logging
import mmap
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tensign.devicememory import HANDLE_BYTES, Copy, DeviceArray, DeviceMemory
from tensign.engines.faults import told as told
from tensign.errors import EngineError, InvalidInput, ProviderUnavailable
from tensign.signature import Arrays

log = logging.getLogger(__name__)

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
LANES = 2  # batches at once: rows of one are copied while the other computes
_RUNS = 3  # of each session that is tried; the first two of a CUDA graph capture it
_ALIKE = 1e-3
_LIBRARIES = ("libcudart.so.13", "libcudart.so.12")
_DRIVER = "libcuda.so.1"
_LAZY_PEER_ACCESS = 1  # cudaIpcMemLazyEnablePeerAccess, the one flag that opening a handle takes
_EITHER_WAY = 4  # cudaMemcpyDefault: the addresses tell what is the device's
_STREAM = 2  # cudaStreamPerThread
_PORTABLE = 1  # cudaHostRegisterPortable: pinned for every device

Settings = Mapping[str, str]


def settings(
    index: int, *, tf32: bool = False, channels_last: bool = False, graphs: bool = False, memory: int | None = None
) -> dict[str, str]:
    """Of the CUDA provider.

    Exhaustive search costs 0.6 s for every new shape and gains nothing; the default arena only ever doubles. tf32: products of
    10 bits, which ONNX Runtime makes by default: twice as fast, and off by 2e-3 of a probability. memory: bytes of the arena.
    """
    made = {
        "device_id": str(index),
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": str(int(tf32)),
        "prefer_nhwc": str(int(channels_last)),
        "enable_cuda_graph": str(int(graphs)),
    }
    return made | ({"gpu_mem_limit": str(memory)} if memory else {})


class Runtime(DeviceMemory, Protocol):
    """The few calls of the CUDA runtime that ONNX Runtime does not make for us."""

    def pin(self, address: int, size: int) -> bool:
        """Makes host memory one that the device copies from directly; False where it will not."""

    def unpin(self, address: int) -> None:
        """Makes it ordinary again."""

    def memory(self, index: int) -> tuple[int, int]:
        """Bytes free and in all."""


class CudaRuntime:
    """The runtime library that ONNX Runtime has loaded. Raises ProviderUnavailable where there is none."""

    def __init__(self) -> None:
        for name in _LIBRARIES:
            try:
                self._library = ctypes.CDLL(name)
                return
            except OSError:
                continue
        raise ProviderUnavailable(f"none of {', '.join(_LIBRARIES)} is loaded: pip install 'tensign[gpu]'")

    def pin(self, address: int, size: int) -> bool:
        return not self._library.cudaHostRegister(ctypes.c_void_p(address), ctypes.c_size_t(size), _PORTABLE)

    def unpin(self, address: int) -> None:
        self._library.cudaHostUnregister(ctypes.c_void_p(address))

    def memory(self, index: int) -> tuple[int, int]:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        if self._library.cudaSetDevice(index) or self._library.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)):
            raise ProviderUnavailable(f"cuda:{index}: its memory cannot be asked for")
        return free.value, total.value

    def open_region(self, index: int, handle: bytes) -> tuple[int, int]:
        address, begins, size = ctypes.c_void_p(), ctypes.c_uint64(), ctypes.c_size_t()
        given = _Handle.from_buffer_copy(handle)
        failed = self._library.cudaSetDevice(index)
        failed = failed or self._library.cudaIpcOpenMemHandle(ctypes.byref(address), given, ctypes.c_uint(_LAZY_PEER_ACCESS))
        if failed or address.value is None:
            self._library.cudaGetLastError()  # or the next call of anybody's would report it
            raise InvalidInput(f"cuda:{index}: the handle opens no memory of another process: CUDA error {failed}")
        # A size that a client only claims would have the device read what is not there, which ends it for everybody.
        range_of = ctypes.CDLL(_DRIVER).cuMemGetAddressRange_v2
        if failed := range_of(ctypes.byref(begins), ctypes.byref(size), ctypes.c_uint64(address.value)):
            self.close_region(index, address.value)
            raise InvalidInput(f"cuda:{index}: the driver does not tell the size of the memory: CUDA error {failed}")
        return address.value, begins.value + size.value - address.value

    def close_region(self, index: int, address: int) -> None:
        self._library.cudaSetDevice(index)
        self._library.cudaIpcCloseMemHandle(ctypes.c_void_p(address))

    def copy(self, index: int, copies: Sequence[Copy]) -> None:
        stream = ctypes.c_void_p(_STREAM)
        failed = self._library.cudaSetDevice(index)
        for to, source, size in copies:
            given = (ctypes.c_void_p(to), ctypes.c_void_p(source), ctypes.c_size_t(size), _EITHER_WAY, stream)
            failed = failed or self._library.cudaMemcpyAsync(*given)
        # One device copies to itself behind the host's back: ONNX Runtime's own stream must not read before it is done.
        if failed := failed or self._library.cudaStreamSynchronize(stream):
            raise RuntimeError(f"CUDA failure {failed}: copying {len(copies)} blocks of rows on cuda:{index}")


class _Handle(ctypes.Structure):
    """A cudaIpcMemHandle_t, which goes by value."""

    _fields_ = (("reserved", ctypes.c_char * HANDLE_BYTES),)


def pinned(runtime: Runtime, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
    """Memory from which a copy to the device is four times as fast; ordinary where the system lets nobody lock so much."""
    dtype = np.dtype(dtype)
    size = dtype.itemsize * int(np.prod(shape))
    if dtype.hasobject or not size:
        return np.empty(shape, dtype)
    pages = _Pages(-1, size)
    array = np.frombuffer(pages, dtype).reshape(shape)
    if runtime.pin(address := array.ctypes.data, size):
        pages.unpin = partial(runtime.unpin, address)
    return array


class _Pages(mmap.mmap):
    """With nobody else's memory on any of them; unpinned while they are still mapped, for which a weakref comes too late."""

    unpin: Callable[[], None] | None = None

    def __del__(self) -> None:
        if self.unpin is not None:
            self.unpin()


class Sessions:
    """A session for each batch size, the fastest of several; cuDNN plans every convolution anew when the size changes.

    ResNet-18 on an H100, batches of 8 and 16 in turn: 40 ms in one session, 2 ms in two (benchmarks/gpu/ceilings.py).

    opens: each opens one for a batch, with settings of its own; place: the device as ONNX Runtime names it, and which; graphs:
    its runs are captured once and replayed, which wants inputs and outputs that stay where they are.
    """

    def __init__(self, opens: Sequence[Callable[[Arrays], Any]], place: tuple[str, int], *, graphs: bool = False) -> None:
        self._opens, self._place, self._graphs = opens, place, graphs
        self._sessions: dict[int, Any] = {}
        self._free: dict[tuple[Any, ...], list[_Buffers]] = {}  # by the kind of batch, of lanes that are not running now
        self._numbers = itertools.count(1)

    def warm(self, batch: Arrays) -> None:
        """Opens them for that many rows, and keeps the fastest."""
        rows = _rows(batch)
        if rows not in self._sessions:
            first, *others = [make(batch) for make in self._opens]
            plain = first.run(None, batch)
            tried = [
                (self._timed(session, batch), session) for session in (first, *others) if self._agrees(session, batch, plain)
            ]
            if not tried:
                raise EngineError(f"a batch of {rows} rows has other answers in buffers on the device than without")
            self._sessions[rows] = min(tried, key=lambda one: one[0])[1]
        self._free.setdefault(_kind(batch), [])

    def holds(self, batch: Arrays) -> bool:
        """Whether a batch of those shapes was warmed; others run as arrays."""
        return _kind(batch) in self._free

    def run(self, batch: Arrays) -> list[npt.NDArray[Any]]:
        """From any number of lanes at once."""
        session, free = self._sessions[_rows(batch)], self._free[_kind(batch)]
        try:
            buffers = free.pop()
        except IndexError:
            buffers = self._buffers(session, batch)
        answers = buffers.run(batch)
        free.append(buffers)  # not after an error, which leaves them in an unknown state
        return answers

    def once(self, session: Any, batch: Arrays) -> list[npt.NDArray[Any]]:
        """A batch of a shape that was not warmed, in buffers that do not stay."""
        return _Buffers(session, self._place, batch, 0).run(batch)

    def _buffers(self, session: Any, batch: Arrays) -> _Buffers:
        return _Buffers(session, self._place, batch, next(self._numbers) if self._graphs else 0)

    def _agrees(self, session: Any, batch: Arrays, plain: list[npt.NDArray[Any]]) -> bool:
        """Whether settings and buffers leave the answers as they are, but for the order of sums."""
        answers = self._buffers(session, batch).run(batch)
        return all(
            np.allclose(answer, wanted, rtol=_ALIKE, atol=_ALIKE * max(np.abs(wanted).max(initial=0), 1e-30), equal_nan=True)
            if wanted.dtype.kind == "f"
            else np.array_equal(answer, wanted)
            for answer, wanted in zip(answers, plain, strict=True)
        )

    def _timed(self, session: Any, batch: Arrays) -> float:
        buffers = self._buffers(session, batch)
        took = []
        for _ in range(_RUNS):
            began = time.perf_counter()
            buffers.run(batch)
            took.append(time.perf_counter() - began)
        return min(took)


class _Buffers:
    """A lane's memory on the device for one kind of batch. graph: the number of its captured run, 0 for none."""

    def __init__(self, session: Any, place: tuple[str, int], batch: Arrays, graph: int) -> None:
        import onnxruntime

        self._session, self._options = session, onnxruntime.RunOptions()
        self._binding = session.io_binding()
        self._outputs: list[Any] = []
        self._inputs = {name: _value(array, place) for name, array in batch.items()}
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for output in session.get_outputs():
            self._binding.bind_output(output.name, "cpu")
        if graph:
            self._options.add_run_config_entry("gpu_graph_id", "-1")  # this once without
            self._fill(batch)
            session.run_with_iobinding(self._binding, self._options)
            self._outputs = [_value(array, place) for array in self._binding.copy_outputs_to_cpu()]
            for output, value in zip(session.get_outputs(), self._outputs, strict=True):
                self._binding.bind_ortvalue_output(output.name, value)
            self._options.add_run_config_entry("gpu_graph_id", str(graph))

    def run(self, batch: Arrays) -> list[npt.NDArray[Any]]:
        self._fill(batch)
        self._session.run_with_iobinding(self._binding, self._options)
        if self._outputs:
            return [value.numpy() for value in self._outputs]
        return list(self._binding.copy_outputs_to_cpu())

    def _fill(self, batch: Arrays) -> None:
        for name, array in batch.items():
            if isinstance(array, DeviceArray):
                array.copy_to(self._inputs[name].data_ptr())
            else:
                self._inputs[name].update_inplace(array)


def _value(array: npt.NDArray[Any], place: tuple[str, int]) -> Any:
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(array.shape), array.dtype, *place)


def _rows(batch: Arrays) -> int:
    return len(next(iter(batch.values())))


def _kind(batch: Arrays) -> tuple[Any, ...]:
    return tuple((name, array.dtype, array.shape) for name, array in batch.items())
