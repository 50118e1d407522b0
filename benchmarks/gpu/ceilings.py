"""The step `ceilings`: what the bus, the memory and the arithmetic of the device allow; what a change of batch size costs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from gpu import networks
from gpu.loops import Session
from gpu.step import Absent, Cell, Task
from gpu.timing import median_s

_SECONDS = 0.5
_COPIED, _COPIED_ON_CPU = 256 << 20, 16 << 20  # bytes
_SIDE, _SIDE_ON_CPU = 8192, 512  # of the square matrices


def cells(task: Task) -> Iterator[Cell]:
    for memory in ("pinned", "pageable"):
        for way in ("to the device", "from the device"):
            yield f"copy {way}, {memory}", partial(_across, task, way, memory == "pinned")
    yield "copy on the device", partial(_within, task)
    for arithmetic in ("fp32", "tf32", "fp16", "bf16"):
        yield f"matrix product, {arithmetic}", partial(_product, task, arithmetic)
    yield "kernel launch", partial(_launch, task)
    yield "batches of 8 and 16 in turn", partial(_changes, task)


def _torch(task: Task) -> Any:
    try:
        import torch
    except ImportError:
        raise Absent("torch is not installed: pip install torch") from None
    if task.on_gpu and not torch.cuda.is_available():
        raise Absent(f"torch {torch.__version__} finds no GPU")
    return torch


def _seconds(task: Task, torch: Any, call: Any) -> float:
    def done() -> None:
        call()
        if task.on_gpu:
            torch.cuda.synchronize()

    return median_s(done, _SECONDS)


def _across(task: Task, way: str, pinned: bool) -> dict[str, Any]:
    torch = _torch(task)
    if not task.on_gpu:
        raise Absent("needs a GPU: there is no bus")
    host = torch.zeros(_COPIED, dtype=torch.uint8, pin_memory=pinned)
    there = torch.zeros(_COPIED, dtype=torch.uint8, device=task.device)
    target, source = (there, host) if way == "to the device" else (host, there)
    took = _seconds(task, torch, partial(target.copy_, source, non_blocking=pinned))
    return {"bytes_per_s": _COPIED / took, "bytes": _COPIED}


def _within(task: Task) -> dict[str, Any]:
    """Bytes read and bytes written, together."""
    torch = _torch(task)
    size = _COPIED if task.on_gpu else _COPIED_ON_CPU
    source = torch.zeros(size, dtype=torch.uint8, device=task.device)
    took = _seconds(task, torch, partial(torch.empty_like(source).copy_, source))
    return {"bytes_per_s": 2 * size / took, "bytes": size}


def _product(task: Task, arithmetic: str) -> dict[str, Any]:
    """Square matrices of random numbers; a multiplication with its addition counts as two."""
    torch = _torch(task)
    if not task.on_gpu and arithmetic != "fp32":
        raise Absent("needs a GPU")
    side = _SIDE if task.on_gpu else _SIDE_ON_CPU
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(arithmetic, torch.float32)
    torch.backends.cuda.matmul.allow_tf32 = arithmetic == "tf32"
    one, other = (torch.randn(side, side, device=task.device).to(dtype) for _ in range(2))
    target = torch.empty_like(one)
    took = _seconds(task, torch, lambda: torch.matmul(one, other, out=target))
    return {"flop_per_s": 2 * side**3 / took, "side": side}


def _launch(task: Task) -> dict[str, Any]:
    """Of an operation on one number: with waiting for it, and of a thousand that are waited for together."""
    torch = _torch(task)
    number = torch.zeros(1, device=task.device)

    def thousand() -> None:
        for _ in range(1000):
            number.add_(1)

    alone, together = _seconds(task, torch, partial(number.add_, 1)), _seconds(task, torch, thousand) / 1000
    return {"waited_for_us": alone * 1e6, "in_a_row_us": together * 1e6}


def _changes(task: Task) -> dict[str, Any]:
    """cuDNN plans its convolutions for the shape it sees, and forgets the plan for the one it saw before."""
    one, other = (Session(task, "resnet18", "fp32") for _ in range(2))
    rows = np.zeros((16 if task.on_gpu else 2, networks.SIDE, networks.SIDE, 3), np.uint8)
    sizes = len(rows) // 2, len(rows)

    def took_ms(sessions: tuple[Session, Session]) -> float:
        turns = itertools.cycle(zip(sizes, sessions, strict=True))

        def run() -> None:
            size, session = next(turns)
            session.stage(rows[:size])
            session.whole()

        return median_s(run, _SECONDS) * 1000

    return {"one_session_ms": took_ms((one, one)), "a_session_each_ms": took_ms((one, other))}
