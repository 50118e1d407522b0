"""What the figures of a run belong to: the GPU, its driver, the versions of everything between it and us."""

from __future__ import annotations

import csv
import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gpu.step import Absent
from tensign.bench.machine import machine
from tensign.version import __version__

_PACKAGES = """onnxruntime-gpu onnxruntime torch torchvision triton onnx onnxscript numpy grpcio protobuf simplejpeg
pillow nvidia-cudnn-cu13 nvidia-cudnn-cu12 tensorrt nvidia-nvimgcodec-cu13 nvidia-ml-py matplotlib""".split()
_GPU = """name driver_version compute_cap memory.total power.limit clocks.max.sm clocks.max.memory pcie.link.gen.max
pcie.link.width.max mig.mode.current""".split()


def described() -> dict[str, Any]:
    """{gpus, versions, machine}; `gpus` is empty where nvidia-smi finds none."""
    found = {"tensign": __version__, "python": platform.python_version()} | {
        name: number for name in _PACKAGES if (number := _version(name))
    }
    return {"gpus": _gpus(), "versions": found | {"h2load": _h2load()}, "machine": machine()}


def headline(document: dict[str, Any]) -> str:
    gpu = document["gpus"][0] if document["gpus"] else {"name": "no GPU", "driver_version": "none"}
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    return f"{gpu['name']}, driver {gpu['driver_version']}, {document['machine']['cores']} cores\n{versions}"


def name(document: dict[str, Any], where: str) -> str:
    """What files about it are called after: "cpu", "nvidia-h100-80gb-hbm3"."""
    index = int(where.partition(":")[2] or 0)
    if where == "cpu" or index >= len(document["gpus"]):
        return re.sub(r"\W+", "-", where)
    return re.sub(r"[^a-z0-9]+", "-", document["gpus"][index]["name"].lower()).strip("-")


def _gpus() -> list[dict[str, str]]:
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={','.join(_GPU)}", "--format=csv,noheader"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = csv.reader(said.stdout.splitlines(), skipinitialspace=True) if said.returncode == 0 else ()
    return [dict(zip(_GPU, row, strict=False)) for row in rows]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _h2load() -> str:
    if shutil.which("h2load") is None:
        return "none"
    said = subprocess.run(["h2load", "--version"], capture_output=True, text=True, check=False).stdout
    return said.strip().rpartition("/")[2] or "unknown"


def taken_bytes(where: str) -> int:
    """Of the device's memory, by whomever; for "cpu" of the machine's. Raises Absent."""
    if where == "cpu":
        told = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return (int(told["MemTotal"].split()[0]) - int(told["MemAvailable"].split()[0])) * 1024
    if shutil.which("nvidia-smi") is None:
        raise Absent("nvidia-smi is not there, which tells how much of the device's memory is taken")
    command = ["nvidia-smi", f"--id={where.partition(':')[2] or 0}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) << 20


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))
