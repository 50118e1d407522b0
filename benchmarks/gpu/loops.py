"""Loops over one network on one device, bare and tensign's own: from host memory to host memory, some on the device alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gpu import networks, resnets
from gpu.step import Absent, Task
from tensign.engines.onnx import OnnxEngine, session_options
from tensign.errors import ProviderUnavailable

Array = npt.NDArray[Any]

_CUDA, _TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_BASE = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
_PROFILE = {"min": 1, "opt": 64, "max": 256}  # rows


class Loop(Protocol):
    """lanes: from so many threads at once `whole` may run, one batch being copied while another computes."""

    lanes: int

    def stage(self, rows: Array) -> None:
        """Puts uint8 [B,H,W,3] where the loop takes its input from in host memory; what that costs is the caller's."""

    def whole(self) -> Array:
        """What is staged, through the device: float32 [B,n] in host memory."""

    def alone(self) -> None:
        """The computation once more on what `whole` left on the device, until it is done. Raises Absent where it leaves
        nothing there."""


class Engine:
    """tensign's own, warmed for each batch size as `tensign serve` does it."""

    def __init__(self, task: Task, network: str, precision: str, **options: Any) -> None:
        kept = task.models / "engine" / f"{network}-{precision}"
        kept.mkdir(parents=True, exist_ok=True)
        file = networks.onnx_file(task, network, precision)
        self._engine = OnnxEngine(file, task.device, cache=str(kept), **options)
        try:
            self._engine.load()
        except ProviderUnavailable as reason:
            raise Absent(str(reason)) from None
        self.lanes = self._engine.lanes
        self._name = self._engine.inputs[0].name

    def stage(self, rows: Array) -> None:
        staged = self._engine.empty(rows.shape, rows.dtype)
        staged[...] = rows
        self._batch = {self._name: staged}
        self._engine.warmup(self._batch)

    def whole(self) -> Array:
        return next(iter(self._engine.run(self._batch).values()))

    def alone(self) -> None:
        raise Absent("the engine leaves nothing on the device")


class Session:
    """ONNX Runtime, arrays in and out."""

    lanes = 1

    def __init__(
        self, task: Task, network: str, precision: str, provider: str = _CUDA, settings: Mapping[str, str] | None = None
    ) -> None:
        file = networks.onnx_file(task, network, precision)
        self._open: Callable[..., Any] = partial(_session, task, file, provider, settings or {})
        self.session = self._open()
        self.name = self.session.get_inputs()[0].name

    def stage(self, rows: Array) -> None:
        self._rows = rows

    def whole(self) -> Array:
        answer: Array = self.session.run(None, {self.name: self._rows})[0]
        return answer

    def alone(self) -> None:
        raise Absent("arrays: nothing stays on the device")


class Bound(Session):
    """ONNX Runtime with input and output at fixed places on the device; graph: a session for each batch size, captured at its
    first run and replayed."""

    def __init__(self, task: Task, network: str, precision: str, *, graph: bool = False, **given: Any) -> None:
        super().__init__(task, network, precision, **given)
        self._graph, self._where = graph, ("cuda" if task.on_gpu else "cpu", task.index)
        self._sessions: dict[int, Any] = {}

    def stage(self, rows: Array) -> None:
        from onnxruntime import OrtValue

        self._staging = _pinned(rows, self._where[0])
        self._source = OrtValue.ortvalue_from_numpy(self._staging, *self._where)
        output = self.session.get_outputs()[0]
        shape = [len(rows), *output.shape[1:]]
        self._target = OrtValue.ortvalue_from_shape_and_type(shape, np.float32, *self._where)
        if self._graph and len(rows) not in self._sessions:
            self._sessions[len(rows)] = self._open(len(rows))
        self._running = self._sessions.get(len(rows), self.session)
        self._binding = self._running.io_binding()
        self._binding.bind_ortvalue_input(self.name, self._source)
        self._binding.bind_ortvalue_output(output.name, self._target)
        self.alone()

    def whole(self) -> Array:
        self._source.update_inplace(self._staging)
        self.alone()
        answer: Array = self._target.numpy()
        return answer

    def alone(self) -> None:
        self._running.run_with_iobinding(self._binding)


class Torch:
    """torch, channels-last; half: in float16."""

    lanes = 1

    def __init__(self, task: Task, network: str, *, half: bool = False, tf32: bool = False, compiled: bool = False) -> None:
        plain = resnets.network(task, network)
        import torch

        if task.on_gpu and not torch.cuda.is_available():
            raise Absent(f"torch {torch.__version__} finds no GPU")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        self._torch, self._device = torch, task.device
        placed = plain.to(task.device, memory_format=torch.channels_last)
        mean, deviation = (
            torch.tensor(values, device=task.device).view(1, 3, 1, 1) for values in (resnets.MEAN, resnets.DEVIATION)
        )
        if half:
            placed = placed.half()

        def forward(pixels: Any) -> Any:
            given = (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / deviation
            return placed(given.half() if half else given).float().softmax(-1)

        self._forward = torch.compile(forward, mode="reduce-overhead") if compiled else forward

    def stage(self, rows: Array) -> None:
        self._staging = self._torch.from_numpy(_pinned(rows, self._device))
        self._there = self._staging.to(self._device, copy=True)

    def whole(self) -> Array:
        with self._inference():
            self._there.copy_(self._staging, non_blocking=True)
            answer: Array = self._forward(self._there).cpu().numpy()
            return answer

    def alone(self) -> None:
        with self._inference():
            self._forward(self._there)
            if self._device != "cpu":
                self._torch.cuda.synchronize()

    def _inference(self) -> AbstractContextManager[Any]:
        mode: AbstractContextManager[Any] = self._torch.inference_mode()
        return mode


def _session(task: Task, file: Path, provider: str, settings: Mapping[str, str], rows: int = 0) -> Any:
    """rows: of the one batch size it is for, 0 where it is for any. Raises Absent."""
    try:
        import onnxruntime
    except ImportError:
        raise Absent("onnxruntime is not installed: pip install 'tensign[gpu]'") from None
    if not task.on_gpu:
        if settings or provider != _CUDA:
            raise Absent("needs a GPU")
        provider, given = "CPUExecutionProvider", {}
    else:
        given = {"device_id": str(task.index), **(_tensorrt(task, file) if provider == _TENSORRT else _BASE), **settings}
        onnxruntime.preload_dlls()
    if provider not in onnxruntime.get_available_providers():
        raise Absent(f"onnxruntime {onnxruntime.__version__} here has no {provider}: pip install 'tensign[gpu]'")
    options = session_options()
    if rows:
        options.add_free_dimension_override_by_name("rows", rows)
    session = onnxruntime.InferenceSession(str(file), options, providers=[(provider, given)])
    if (first := session.get_providers()[0]) != provider:
        raise Absent(f"{provider} does not start, {first} took its place: its libraries are missing or too old")
    return session


def _tensorrt(task: Task, file: Path) -> dict[str, str]:
    """One engine for every batch size up to the largest, kept for later runs."""
    from onnxruntime import InferenceSession

    image = InferenceSession(str(file), providers=["CPUExecutionProvider"]).get_inputs()[0]
    kept = task.models / "tensorrt"
    kept.mkdir(exist_ok=True)
    row = "x".join(map(str, image.shape[1:]))
    shapes = {f"trt_profile_{end}_shapes": f"{image.name}:{rows}x{row}" for end, rows in _PROFILE.items()}
    caches = {f"trt_{cache}_cache_{key}": value for cache in ("engine", "timing") for key, value in _kept(kept).items()}
    return {"trt_fp16_enable": "1", **shapes, **caches}


def _kept(folder: Path) -> dict[str, str]:
    return {"enable": "1", "path": str(folder)}


def _pinned(rows: Array, device: str) -> Array:
    """A copy in memory that the bus reads by itself, where torch can give it; else as it is."""
    if device == "cpu":
        return rows
    try:
        import torch
    except ImportError:
        return rows
    if not torch.cuda.is_available():
        return rows
    pinned: Array = torch.from_numpy(np.ascontiguousarray(rows)).pin_memory().numpy()
    return pinned
