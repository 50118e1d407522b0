"""Which engines run a model, one for each of its devices, and where: in this process, or in one of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tensign.config import ACCELERATORS, TF32, ModelConfig
from tensign.engines import Engine
from tensign.engines.onnx import OnnxEngine
from tensign.engines.worker import ENGINE_CLASSES, Worker
from tensign.errors import InvalidConfig
from tensign.plan import ModelPlan
from tensign.specs import described


def engines_of(plan: ModelPlan, config: ModelConfig, name: str) -> list[Engine]:
    """One a device. Several are processes of their own: what a lost one leaves behind is its own, and it may come back.

    Raises InvalidConfig for an accelerator that the model's engine does not know.
    """
    choice = plan.choice
    _check_accelerator(config.accelerator, choice.engine)
    cuda: dict[str, Any] = {"tf32": config.variant == TF32, "accelerator": config.accelerator, "cache": _cache(plan, config)}
    if choice.engine == "onnx" and len(config.devices) == 1:
        return [OnnxEngine(plan.file, config.device, **cuda)]
    flavors = plan.manifest.flavors
    settings = {
        "path": str(plan.manifest.path.resolve()),
        "file": str(plan.file.resolve()),
        "trust": config.trust,
        "flavor": dict(flavors[choice.flavor]),
        "pyfunc": dict(flavors.get("python_function", {})),
        "inputs": list(map(described, plan.signature.inputs)),
        "outputs": list(map(described, plan.signature.outputs)),
        **cuda,
        "variant": config.variant,
    }
    plain = json.loads(json.dumps(settings, default=str))  # YAML knows dates
    kind, python, growth = ENGINE_CLASSES[choice.engine], config.python, config.max_growth_bytes
    return [Worker(kind, {**plain, "device": device}, name=name, python=python, growth=growth) for device in config.devices]


def _check_accelerator(name: str, engine: str) -> None:
    if name and engine not in ACCELERATORS[name]:
        known = [other for other, engines in ACCELERATORS.items() if engine in engines]
        own = f"which knows {' and '.join(known)}" if known else "which knows none"
        raise InvalidConfig(
            f"accelerator {name}: is of engine {' and '.join(ACCELERATORS[name])}, and this model runs on {engine}, {own}"
        )


def _cache(plan: ModelPlan, config: ModelConfig) -> str:
    """Of this model's files alone; what it builds there names device and versions itself."""
    if not config.cache_dir or not config.accelerator:
        return ""
    folder = Path(config.cache_dir, config.accelerator, f"{plan.manifest.digest}-{config.variant}")
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)
