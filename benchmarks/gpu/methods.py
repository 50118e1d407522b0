"""Every way of running a network that is compared: tensign's own and the bare loops it is judged by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from gpu.loops import Bound, Engine, Loop, Session, Torch
from gpu.native import Native
from gpu.step import Absent, Task

_TENSORRT = "TensorrtExecutionProvider"


@dataclass(frozen=True, slots=True)
class Method:
    """arithmetic: "fp32", "tf32", "fp16", "bf16" or "int8", by which its difference from the CPU is judged; own: tensign's;
    only: the one batch size that it has time for, 0 for all."""

    name: str
    arithmetic: str
    make: Callable[[Task, str], Loop]
    own: bool = False
    needs_gpu: bool = False
    only: int = 0

    def opened(self, task: Task, network: str) -> Loop:
        """Raises Absent, and whatever the library below raises."""
        if self.needs_gpu and not task.on_gpu:
            raise Absent("needs a GPU")
        return self.make(task, network)


def _engine(task: Task, network: str, precision: str, **options: Any) -> Loop:
    return Engine(task, network, precision, **options)


def _session(task: Task, network: str, precision: str, **settings: str) -> Loop:
    return Session(task, network, precision, settings=settings)


def _bound(task: Task, network: str, precision: str, *, graph: bool = False, provider: str = "", **settings: str) -> Loop:
    chosen: dict[str, Any] = {"provider": provider} if provider else {}
    return Bound(task, network, precision, graph=graph, settings=settings, **chosen)


def _native(variant: str, accelerator: str = "", *, apart: bool = False, needs_gpu: bool = True, only: int = 0) -> Method:
    """tensign's torch engine; apart: in the process of its own that `tensign serve` gives it."""
    name = f"tensign torch {variant}{f', {accelerator}' * bool(accelerator)}{', its own process' * apart}"
    make = partial(Native, variant=variant, accelerator=accelerator, apart=apart)
    return Method(name, variant, make, own=True, needs_gpu=needs_gpu, only=only)


# Those that might harm the process, or take long, last.
METHODS = (
    Method("tensign fp32", "fp32", partial(_engine, precision="fp32"), own=True),
    Method("tensign tf32", "tf32", partial(_engine, precision="fp32", tf32=True), own=True, needs_gpu=True),
    Method("tensign fp16", "fp16", partial(_engine, precision="fp16"), own=True),
    Method("tensign int8", "int8", partial(_engine, precision="int8"), own=True),
    _native("fp32", needs_gpu=False),
    _native("tf32"),
    _native("fp16"),
    _native("bf16", needs_gpu=False),
    _native("fp16", apart=True, only=64),
    Method("onnxruntime fp32", "fp32", partial(_session, precision="fp32", use_tf32="0"), needs_gpu=True),
    Method("onnxruntime tf32", "tf32", partial(_session, precision="fp32")),
    Method("onnxruntime fp16", "fp16", partial(_session, precision="fp16")),
    Method("onnxruntime tf32, bound", "tf32", partial(_bound, precision="fp32")),
    Method("onnxruntime fp16, bound", "fp16", partial(_bound, precision="fp16")),
    Method("onnxruntime fp16, bound, NHWC", "fp16", partial(_bound, precision="fp16", prefer_nhwc="1"), needs_gpu=True),
    Method("torch fp32", "fp32", Torch),
    Method("torch tf32", "tf32", partial(Torch, tf32=True), needs_gpu=True),
    Method("torch fp16", "fp16", partial(Torch, half=True), needs_gpu=True),
    Method(
        "onnxruntime fp16, graph", "fp16", partial(_bound, precision="fp16", graph=True, enable_cuda_graph="1"), needs_gpu=True
    ),
    Method(
        "onnxruntime fp16, graph, NHWC",
        "fp16",
        partial(_bound, precision="fp16", graph=True, enable_cuda_graph="1", prefer_nhwc="1"),
        needs_gpu=True,
    ),
    Method(
        "tensign fp16, cuda-graphs",
        "fp16",
        partial(_engine, precision="fp16", accelerator="cuda-graphs"),
        own=True,
        needs_gpu=True,
    ),
    _native("fp32", "cuda-graphs", only=64),
    _native("fp16", "cuda-graphs"),
    _native("fp16", "compile", only=64),
    Method("torch fp16, compiled", "fp16", partial(Torch, half=True, compiled=True), needs_gpu=True, only=64),
    _native("fp32", "compile", only=64),
    Method("tensorrt fp16", "fp16", partial(_bound, precision="fp32", provider=_TENSORRT), needs_gpu=True),
    Method(
        "tensign fp16, tensorrt",
        "fp16",
        partial(_engine, precision="fp16", accelerator="tensorrt", half=True),
        own=True,
        needs_gpu=True,
        only=64,
    ),
)
