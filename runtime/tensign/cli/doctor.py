"""tensign doctor: what runs here, what is missing, and how to get it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console

from tensign.cli.options import CACHE, CacheDir, Device
from tensign.config import MIB, ModelConfig
from tensign.doctor.facts import examine
from tensign.doctor.runtime import FROM


def doctor(
    device: Device = "auto",
    cache_dir: CacheDir = CACHE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what runs here, what is missing and how to get it; ends with status 2 where the device cannot run a model."""
    facts = examine(ModelConfig(device=device).device, cache_dir)
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        console = Console(soft_wrap=True, highlight=False, markup=False)
        for name, said in _lines(facts):
            console.print(f"{name:16}{said}")
    raise typer.Exit(2 if facts["missing"] else 0)


def _lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("tensign", "python", "numpy", "grpcio", "pillow"):
        yield name, facts[name] or "not installed"
    slowly = "by Pillow; pip install 'tensign[fast-resize]' makes it three times as fast"
    yield "resizing", f"numba {facts['numba']} is installed" if facts["numba"] else slowly
    yield from _of_runtime(facts["onnxruntime"])
    yield "NVIDIA driver", _driver(facts["driver"])
    for gpu in facts["gpus"]:
        yield gpu["device"], _gpu(gpu)
    for gpu in facts["named"]:
        yield "by name", f"--device {gpu['device']} is {_gpu(gpu)}"
    absent = [name for name, place in facts["tensorrt"].items() if place is None]
    yield "TensorRT", f"not installed ({', '.join(absent)}); {FROM}" if absent else "installed; --accelerator tensorrt uses it"
    absent = [package for package, version in facts["gpu_decoding"].items() if version is None]
    brought = f"pip install 'tensign[gpu-decode]' brings {', '.join(absent)}"
    useless = "" if facts["gpus"] else " (only of use on a GPU)"
    yield "GPU decoding", f"{brought}{useless}" if absent else "installed; --gpu-decoding uses it"
    torch = facts["torch"]
    yield "torch", f"{torch['version']}, {_built(torch['cuda'])}" if torch else "not installed"
    for name in ("fastai", "mlflow"):
        yield name, facts[name] or "not installed"
    absent = [package for package, version in facts["converters"].items() if version is None]
    yield "converters", f"pip install 'tensign[convert]' brings {', '.join(absent)}" if absent else "all they need is installed"
    quota = facts["core_quota"]
    yield "cores", f"{facts['cores']}, of which control groups grant {quota:g}" if quota else str(facts["cores"])
    limit = facts["memory_limit_bytes"]
    bound = f", of which control groups grant {_size(limit)}" if limit else ""
    yield "memory", f"{_size(facts['memory_bytes'])}{bound}"
    yield "/dev/shm", _size(facts["shared_memory_bytes"])
    cache = facts["cache"]
    yield "cache", f"{cache['folder']}, {'writable' if cache['writable'] else 'not writable'}"
    for lack in facts["missing"]:
        yield "missing", f"{lack['what']}: {lack['mend']}"
    for remark in facts["remarks"]:
        yield "remark", f"{remark['what']}: {remark['mend']}"
    if facts["experimental"]:
        yield "experimental", f"never run on a GPU yet: {'; '.join(facts['experimental'])}"
    yield "device", f"{facts['asked']} runs on {facts['runs']}" if facts["runs"] else f"{facts['asked']} cannot run here"


def _of_runtime(runtime: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    if runtime is None:
        yield "onnxruntime", "not installed"
        return
    packages = " and ".join(f"{name} {version}" for name, version in runtime["packages"].items()) or runtime["version"]
    yield "onnxruntime", f"{packages}, {_built(runtime['cuda'])}; {', '.join(runtime['providers'])}"
    if runtime["libraries"]:
        yield "CUDA libraries", _libraries(runtime["libraries"])


def _driver(driver: dict[str, str] | None) -> str:
    if driver is None:
        return "none (libcuda.so.1)"
    shows_none = f"; no GPU: {driver['error']}" if driver["error"] else ""
    return f"{driver['version'] or 'of unknown version'}, runs CUDA up to {driver['cuda']}{shows_none}"


def _gpu(gpu: dict[str, Any]) -> str:
    kind = ", a MIG instance" if gpu["mig"] else ""
    return f"{gpu['name']}, {_size(gpu['memory_bytes'])}, compute capability {gpu['capability']}{kind}"


def _built(cuda: str | None) -> str:
    return f"for CUDA {cuda}" if cuda else "without CUDA"


def _libraries(places: dict[str, str | None]) -> str:
    return ", ".join(name if place else f"{name} MISSING" for name, place in places.items())


def _size(size: int | None) -> str:
    return "none" if size is None else f"{size / MIB / 1024:.1f} GiB"
