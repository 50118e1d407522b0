"""The step `memory`: what a served model takes of the device, from the end of its warm-up through minutes of full load."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from gpu import device, networks
from gpu.load import Generators
from gpu.served import KINDS, PRECISION, messages
from gpu.step import Absent, Cell, Task
from tensign.bench.load import Load
from tensign.child import served
from tensign.config import ModelConfig
from tensign.model import Model

_EVERY_S, _SPARED_S, _WARMUP_S = 1.0, 40.0, 5.0  # spared: for the start of the server and its end
_ON_CPU_S = 4.0


def cells(task: Task) -> Iterator[Cell]:
    network = networks.names(task)[-1]
    yield f"{network}, by the ledger", partial(_held, task, network)
    yield f"{network}, full load", partial(_watched, task, network)


def growth(readings: list[int]) -> int:
    """Bytes by which the most of the last third exceeds the most of the first."""
    third = max(1, len(readings) // 3)
    return max(readings[-third:]) - max(readings[:third])


def _held(task: Task, network: str) -> dict[str, Any]:
    """What tensign holds a loaded model to have, beside what the driver tells that the device has lost to this process."""
    if not task.on_gpu:
        raise Absent("needs a GPU: a CPU's memory is in no ledger")
    before = device.taken_bytes(task.device)
    config = ModelConfig(device=task.device)
    with contextlib.closing(Model.load(networks.directory(task, network, PRECISION), config)) as model:
        taken = device.taken_bytes(task.device) - before
        if not model.memory:
            raise Absent("nothing tells the ledger what the device has: libnvidia-ml.so.1 is missing")
        return {"network": network, "bytes": sum(model.memory.values()), "taken_bytes": taken}


def _watched(task: Task, network: str) -> dict[str, Any]:
    path = networks.directory(task, network, PRECISION)
    kind = next(kind for kind in KINDS if kind.rows > 1)
    seconds = max(task.left_s - _SPARED_S, _ON_CPU_S) if task.on_gpu else _ON_CPU_S
    load = Load(
        concurrency=kind.levels[-1] if task.on_gpu else 1,
        streams=kind.streams,
        rows=kind.rows,
        duration_s=seconds,
        warmup_s=_WARMUP_S,
    )
    readings: list[int] = []
    over = threading.Event()
    with Generators() as generators, served(path, "--device", task.device) as address:
        begun = time.monotonic() + _WARMUP_S

        def watch() -> None:
            while not over.wait(_EVERY_S):
                if time.monotonic() > begun:
                    readings.append(device.taken_bytes(task.device))

        device.taken_bytes(task.device)  # raises here, not in the thread
        watching = threading.Thread(target=watch)
        watching.start()
        try:
            found = generators.measure(address, messages(f"{network}-{PRECISION}", kind), load)
        finally:
            over.set()
            watching.join()
    return {"network": network, "seconds": seconds, "growth_bytes": growth(readings), "readings_bytes": readings, **found}
