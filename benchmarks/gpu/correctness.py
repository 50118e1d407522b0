"""The step `correctness`: every method at every batch size beside the CPU in single precision, on pieces of photographs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np

from gpu import networks
from gpu.loops import Array, Engine, Loop, Torch
from gpu.methods import METHODS, Method
from gpu.step import Absent, Cell, Task
from tensign.buckets import powers_of_two

ROWS, LARGEST = 200, 64  # so that 99.5 % is one row
_FEW_ROWS, _FEW_LARGEST = 4, 2  # on the CPU


def cells(task: Task) -> Iterator[Cell]:
    rows, largest = (ROWS, LARGEST) if task.on_gpu else (_FEW_ROWS, _FEW_LARGEST)
    wanted = {network: cache(partial(_wanted, task, network, rows)) for network in networks.names(task)}
    for method in METHODS:
        sizes = (method.only,) if method.only else powers_of_two(largest)
        for network in wanted:
            yield f"{network}, {method.name}", partial(_compared, task, network, method, sizes, wanted[network])


def compared(pixels: Array, reference: Array, loop: Loop, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Greatest difference and agreement on the best class, by batch size; the last batch overlaps the one before it."""
    buckets = {}
    for size in sizes:
        answers = np.full_like(reference, np.nan)
        for start in range(0, len(pixels), size):
            start = min(start, len(pixels) - size)
            loop.stage(pixels[start : start + size])
            answers[start : start + size] = loop.whole()
        difference = np.abs(answers - reference).max()
        alike = (answers.argmax(1) == reference.argmax(1)).mean()
        buckets[size] = {"difference": float(difference), "top1_agreement": float(alike)}
    return {
        "buckets": buckets,
        "difference": float(np.max([each["difference"] for each in buckets.values()])),  # NaN stays NaN
        "top1_agreement": min(each["top1_agreement"] for each in buckets.values()),
        "classes": len(set(reference.argmax(1).tolist())),
        "rows": len(pixels),
    }


def _wanted(task: Task, network: str, rows: int) -> tuple[Array, Array]:
    """Pieces of photographs, and what the CPU answers to them one by one: by ONNX Runtime, where that lacks by torch."""
    pixels, here = networks.pieces(networks.spec(task, network), rows), replace(task, device="cpu")
    on_cpu: Loop
    try:
        on_cpu = Engine(here, network, "fp32")
    except Absent as reason:
        try:
            on_cpu = Torch(here, network)
        except Absent as other:
            raise Absent(f"nothing to compare with: {reason}; {other}") from None
    answers = []
    for row in range(rows):
        on_cpu.stage(pixels[row : row + 1])
        answers.append(on_cpu.whole())
    return pixels, np.concatenate(answers)


def _compared(task: Task, network: str, method: Method, sizes: tuple[int, ...], wanted: Any) -> dict[str, Any]:
    pixels, reference = wanted()
    known = {"network": network, "method": method.name, "arithmetic": method.arithmetic}
    return {**known, **compared(pixels, reference, method.opened(task, network), sizes)}
