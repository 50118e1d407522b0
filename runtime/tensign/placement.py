"""Which engines run a model, one for each of its devices, and where: in this process, or in one of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensign.config import ACCELERATORS, TF32, ModelConfig
from tensign.doctor.driver import find_driver
from tensign.doctor.lacks import explained, without_gpu
from tensign.doctor.lookup import Lookup
from tensign.engines import Engine
from tensign.engines.environment import VISIBLE
from tensign.engines.onnx import OnnxEngine
from tensign.engines.worker import ENGINE_CLASSES, Worker
from tensign.errors import InvalidConfig, ProviderUnavailable
from tensign.plan import ModelPlan
from tensign.specs import described

_NATIVE = ("torch", "fastai")
_ON_CPU = {
    "sklearn": "runs on the CPU alone; choose --device cpu",
    "pyfunc": "runs where its own code decides; leave --device out",
}
_ANY = ("auto", "cpu", "cuda")  # devices that a process finds by itself


def engines_of(plan: ModelPlan, config: ModelConfig, name: str, headroom: Callable[[str], int | None]) -> list[Engine]:
    """One a device. Several are processes of their own: what a lost one leaves behind is its own, and it may come back.

    headroom: bytes of a device that have to stay free, None where nothing tells. Raises ProviderUnavailable for a name that no
    GPU has and for a GPU that the engine cannot use, InvalidConfig for two of the same, and for an accelerator that the
    engine does not know.
    """
    choice = plan.choice
    _check_accelerator(config.accelerator, choice.engine)
    _check_devices(config.devices, choice.engine)
    cuda: dict[str, Any] = {
        "tf32": config.variant == TF32,
        "half": config.variant == "fp16",
        "accelerator": config.accelerator,
        "cache": _cache(plan, config),
    }
    environments = {device: {**_alone(device), **_exact(config)} for device in config.devices}
    seen = [environment[VISIBLE] for environment in environments.values() if VISIBLE in environment]
    if len(set(seen)) < len(seen):
        raise InvalidConfig(f"device: two of {config.device} are the same GPU")
    in_process = len(config.devices) == 1 and (config.device in _ANY or config.device.partition(":")[2].isdigit())
    if choice.engine == "onnx" and in_process and not _exact(config):
        return [OnnxEngine(plan.file, config.device, headroom=headroom(config.device), **cuda)]
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
    several = len(config.devices) > 1
    return [
        Worker(
            kind,
            {**plain, "device": device, "headroom": headroom(device)},
            name=f"{name} on {device}" if several else name,
            python=python,
            growth=growth,
            more=environment,
        )
        for device, environment in environments.items()
    ]


def _check_devices(devices: tuple[str, ...], engine: str) -> None:
    """Before a process is started that could not use them, or would quietly compute on the CPU."""
    for device in (device for device in devices if device.startswith("cuda")):
        if engine in _ON_CPU:
            raise ProviderUnavailable(f"{device}: engine {engine} {_ON_CPU[engine]}")
        if engine in _NATIVE and (lack := without_gpu(device)):
            raise ProviderUnavailable(f"{device}: {lack}; or choose --device cpu (`tensign doctor` tells more)")


def _alone(device: str) -> dict[str, str]:
    """What makes one GPU the only one that a process sees: no other way leads to a second MIG instance."""
    if device in _ANY:
        return {}
    driver = find_driver(Lookup())
    if gpu := driver.gpu(device) if driver else None:
        return {VISIBLE: gpu.uuid}
    if device.partition(":")[2].isdigit():
        return {}  # the engine tells, which knows what else it lacks
    raise ProviderUnavailable(explained(device))


def _exact(config: ModelConfig) -> dict[str, str]:
    """TensorRT multiplies float32 in 10 bits, and nothing that ONNX Runtime can set keeps it from doing so."""
    tensorrt = config.accelerator == "tensorrt" and config.variant not in (TF32, "fp16")
    return {"NVIDIA_TF32_OVERRIDE": "0"} if tensorrt else {}


def _check_accelerator(name: str, engine: str) -> None:
    if name and engine not in ACCELERATORS[name]:
        known = [other for other, engines in ACCELERATORS.items() if engine in engines]
        own = f"which knows {' and '.join(known)}" if known else "which knows none"
        raise InvalidConfig(
            f"accelerator {name}: is of engine {' and '.join(ACCELERATORS[name])}, and this model runs on {engine}, {own}"
        )


def _cache(plan: ModelPlan, config: ModelConfig) -> str:
    """Of this model's files alone; device and versions have folders in it."""
    if not config.cache_dir or not config.accelerator:
        return ""
    folder = Path(config.cache_dir, config.accelerator, f"{plan.manifest.digest}-{config.variant}")
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)
