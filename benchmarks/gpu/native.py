"""tensign's torch engine on an exported network: by itself, or in the process of its own that `tensign serve` gives it."""

from __future__ import annotations

import importlib.util
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from gpu import networks
from gpu.loops import Array
from gpu.step import Absent, Task
from tensign.config import ModelConfig
from tensign.engines import Engine
from tensign.engines.torch import TorchEngine
from tensign.errors import ProviderUnavailable
from tensign.placement import engines_of
from tensign.plan import ModelPlan
from tensign.specs import described


class Native:
    """Warmed for each batch size: of plain and channels-last weights the faster is kept, answers are held against fp32."""

    lanes = 1

    def __init__(self, task: Task, network: str, *, variant: str = "fp32", accelerator: str = "", apart: bool = False) -> None:
        if importlib.util.find_spec("torch") is None:
            raise Absent("torch is not installed: pip install torch")
        plan = ModelPlan.of(networks.directory(task, network, networks.ARCHIVE), "torch", variant)
        self._engine = (_apart if apart else _alone)(plan, task, variant, accelerator)
        weakref.finalize(self, self._engine.close)
        try:
            self._engine.load()
        except ProviderUnavailable as reason:
            raise Absent(str(reason)) from None
        self._name = plan.signature.inputs[0].name
        self._warmed: set[int] = set()

    def stage(self, rows: Array) -> None:
        self._batch = {self._name: np.array(rows)}
        if len(rows) not in self._warmed:  # it would try all its ways again
            self._engine.warmup(self._batch)
            self._warmed.add(len(rows))

    def whole(self) -> Array:
        return next(iter(self._engine.run(self._batch).values()))

    def alone(self) -> None:
        raise Absent("the engine leaves nothing on the device")


def _alone(plan: ModelPlan, task: Task, variant: str, accelerator: str) -> Engine:
    outputs = list(map(described, plan.signature.outputs))
    kept = str(_kept(task) / f"{plan.manifest.path.name}-{variant}")
    return TorchEngine(
        str(plan.manifest.path), str(plan.file), task.device, {}, outputs, variant, accelerator, kept if accelerator else ""
    )


def _apart(plan: ModelPlan, task: Task, variant: str, accelerator: str) -> Engine:
    options: dict[str, Any] = {"variant": variant, "accelerator": accelerator, "cache_dir": str(_kept(task))}
    config = ModelConfig(device=task.device, engine="torch", trust=True, **options)
    (worker,) = engines_of(plan, config, plan.manifest.path.name, lambda device: None)
    return worker


def _kept(task: Task) -> Path:
    folder = task.models / "engine"
    folder.mkdir(exist_ok=True)
    return folder
