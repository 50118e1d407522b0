"""Everything that `tensign doctor` tells, as values that JSON has."""

from __future__ import annotations

import platform
import re
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from tensign.doctor import machine
from tensign.doctor.driver import Gpu, find_driver
from tensign.doctor.lacks import Lack, lacks
from tensign.doctor.lookup import Lookup
from tensign.doctor.runtime import cuda_libraries, find_runtime, tensorrt_libraries
from tensign.version import __version__

NEVER_RUN = (  # options there are that no GPU has seen; a committed report takes one out
    "buffers bound to the device, pinned memory and the choice of layout at warm-up, which every GPU gets unasked",
    "--device cuda:0,1 and cuda:1 (several GPUs), and what follows the loss of one",
    "--device cuda:GPU-... and cuda:MIG-... (GPUs and MIG instances by name)",
    "--accelerator cuda-graphs and --accelerator tensorrt",
    "--gpu-decoding",
    "--cuda-shared-memory",
    "the sums of several models on one GPU, and --device-memory",
    "--engine torch and --engine fastai on a GPU, with their choice of layout and their --variant tf32, fp16 and bf16",
    "--accelerator compile on a GPU (on a CPU it runs)",
)


def examine(device: str, cache: Path, lookup: Lookup | None = None) -> dict[str, Any]:
    """device: as of `--device`; cache: the folder of converted models.

    "missing" lists what keeps the device from running, "runs" is the device that would, None where "missing" has an entry;
    "remarks" lists what is in the way of something else.
    """
    lookup = lookup or Lookup()
    driver, missing = find_driver(lookup), lacks(device, lookup)
    gpus = driver.gpus if driver else ()
    runs = {"auto": "cuda:0" if gpus else "cpu", "cuda": "cuda:0"}.get(device, device)
    return {
        "asked": device,
        "runs": None if missing else runs,
        "missing": [asdict(lack) for lack in missing],
        "remarks": [asdict(lack) for lack in _remarks(cache)],
        "experimental": list(NEVER_RUN),
        "tensign": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        **{package: lookup.version(package) for package in ("numpy", "grpcio", "pillow", "numba")},
        "onnxruntime": _runtime(lookup),
        "driver": {"version": driver.version, "cuda": _dotted(driver.cuda), "error": driver.error} if driver else None,
        "gpus": list(map(_gpu, gpus)),
        "named": list(map(_gpu, driver.named if driver else ())),
        "tensorrt": tensorrt_libraries(lookup),
        "gpu_decoding": {package: lookup.version(package) for package in ("nvidia-nvimgcodec-cu13", "nvidia-nvjpeg")},
        "torch": _torch(lookup),
        **{package: lookup.version(package) for package in ("fastai", "mlflow")},
        "converters": {package: lookup.version(package) for package in _of_extra("convert")},
        "cores": machine.cores(),
        "core_quota": machine.core_quota(lookup),
        "memory_bytes": machine.memory_total(lookup),
        "memory_limit_bytes": machine.memory_limit(lookup),
        "shared_memory_bytes": machine.shared_memory(lookup),
        "cache": {"folder": str(cache), "writable": machine.writable(cache)},
    }


def _remarks(cache: Path) -> list[Lack]:
    if machine.writable(cache):
        return []
    return [Lack(f"{cache} cannot be written, where converted models are kept", "--cache-dir or TENSIGN_CACHE_DIR")]


def _runtime(lookup: Lookup) -> dict[str, Any] | None:
    runtime = find_runtime(lookup)
    if runtime is None:
        return None
    return {
        "packages": runtime.packages,
        "version": runtime.version,
        "providers": list(runtime.providers),
        "cuda": _dotted(runtime.cuda) if runtime.cuda else None,
        "libraries": cuda_libraries(runtime, lookup),
    }


def _gpu(gpu: Gpu) -> dict[str, Any]:
    return {**asdict(gpu), "capability": _dotted(gpu.capability), "mig": gpu.mig}


def _torch(lookup: Lookup) -> dict[str, str | None] | None:
    """cuda is None for a torch that runs on CPU alone."""
    version, folder = lookup.version("torch"), lookup.folder("torch")
    if version is None or folder is None:
        return None
    try:
        cuda = re.search(r"^cuda\b[^=]*= *'([\d.]+)'", (folder / "version.py").read_text(), re.MULTILINE)
    except OSError:
        cuda = None
    return {"version": version, "cuda": cuda[1] if cuda else None}


def _of_extra(extra: str) -> list[str]:
    """Names of the packages that one of tensign's own extras installs."""
    wanted = re.compile(rf"([\w.-]+).*;.*\bextra == ['\"]{extra}['\"]")
    return [found[1] for line in metadata.requires("tensign") or () if (found := wanted.match(line))]


def _dotted(version: tuple[int, int]) -> str:
    return "{}.{}".format(*version)
