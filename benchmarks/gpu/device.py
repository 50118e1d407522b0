"""What the figures of a run belong to: the GPU, its driver, the versions of everything between it and us."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = (
    "onnxruntime-gpu",
    "onnxruntime",
    "torch",
    "numpy",
    "grpcio",
    "protobuf",
    "simplejpeg",
    "pillow",
    "nvidia-cudnn-cu13",
)
_GPU = (
    "name",
    "driver_version",
    "memory.total",
    "power.limit",
    "clocks.max.sm",
    "pcie.link.gen.current",
    "pcie.link.width.current",
)


def described() -> dict[str, Any]:
    """{gpus, versions, machine}; `gpus` is empty where nvidia-smi finds none."""
    return {
        "gpus": _gpus(),
        "versions": {"python": platform.python_version()} | {name: found for name in PACKAGES if (found := _version(name))},
        "machine": {"cores": len(os.sched_getaffinity(0)), "kernel": platform.release()},
    }


def headline(document: dict[str, Any]) -> str:
    gpu = document["gpus"][0] if document["gpus"] else {"name": "no GPU", "driver_version": "none"}
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    return f"{gpu['name']}, driver {gpu['driver_version']}, {document['machine']['cores']} cores\n{versions}"


def _gpus() -> list[dict[str, str]]:
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={','.join(_GPU)}", "--format=csv,noheader"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return [dict(zip(_GPU, (cell.strip() for cell in line.split(",")), strict=False)) for line in lines]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
