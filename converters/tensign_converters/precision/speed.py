"""How fast variants are, to fp32, on one thread of this CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime

from tensign.engines.onnx import session_options

_SECONDS, _ROUNDS = 1.5, 5  # of all together; at least so many in turn


def speeds(files: Mapping[str, Path], feed: Mapping[str, npt.NDArray[Any]], seconds: float = _SECONDS) -> dict[str, float]:
    """Images/s of each to those of "fp32", by medians of runs in turn, so that what else the machine does slows all alike.

    feed: one row, as the graphs take it.
    """
    runs = {name: _run(file, feed) for name, file in files.items()}
    took: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()  # the first pays for memory
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(took["fp32"]) < _ROUNDS:
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            took[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in took.items()}
    return {name: round(medians["fp32"] / median, 2) for name, median in medians.items()}


def _run(file: Path, feed: Mapping[str, npt.NDArray[Any]]) -> Callable[[], Any]:
    session = onnxruntime.InferenceSession(str(file), session_options(threads=1), providers=["CPUExecutionProvider"])
    return lambda: session.run(None, dict(feed))
