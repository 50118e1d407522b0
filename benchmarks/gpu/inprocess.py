"""The step `inprocess`: images/s and latency of every method at rising batch sizes, in one process with nothing around it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from gpu import networks
from gpu.methods import METHODS, Method
from gpu.step import Absent, Cell, Task
from gpu.timing import median_s, rate_per_s

BATCHES, BATCHES_ON_CPU = (1, 8, 64, 256), (1, 2)
_SECONDS = 0.25


def cells(task: Task) -> Iterator[Cell]:
    for network in networks.names(task):
        if network in networks.RESNETS:
            yield f"{network}, operations", partial(_work, task, network)
    for method in METHODS:
        for network in reversed(networks.names(task)):
            if network in networks.RESNETS:
                yield f"{network}, {method.name}", partial(_timed, task, network, method)


def _work(task: Task, network: str) -> dict[str, Any]:
    try:
        from gpu import roofline
    except ImportError as error:
        raise Absent(f"{error.name} is not installed: pip install onnx") from None
    return {"network": network, **roofline.read(networks.onnx_file(task, network, "fp32"))}


def _timed(task: Task, network: str, method: Method) -> dict[str, Any]:
    began = time.perf_counter()
    loop = method.opened(task, network)
    known = {"network": network, "method": method.name, "arithmetic": method.arithmetic, "own": method.own}
    found: dict[str, Any] = {**known, "load_s": time.perf_counter() - began, "batches": {}}
    sizes = BATCHES if task.on_gpu else BATCHES_ON_CPU
    pixels = networks.pieces(networks.SPEC, min(max(sizes), 16)).repeat(max(1, max(sizes) // 16), axis=0)
    for size in (method.only,) if method.only else sizes:
        began = time.perf_counter()
        loop.stage(pixels[:size])
        loop.whole()
        first_ms = (time.perf_counter() - began) * 1000
        took = {"whole": median_s(loop.whole, _SECONDS)}
        try:
            took["alone"] = median_s(loop.alone, _SECONDS)
        except Absent:
            pass
        figures = {name: {"ms": seconds * 1000, "images_per_s": size / seconds} for name, seconds in took.items()}
        if loop.lanes > 1:
            rate_per_s(loop.whole, loop.lanes, 0.1)  # each has buffers of its own
            figures["lanes"] = {"images_per_s": size * rate_per_s(loop.whole, loop.lanes, 2 * _SECONDS)}
        found["batches"][str(size)] = {"first_ms": first_ms, **figures}
    return found
