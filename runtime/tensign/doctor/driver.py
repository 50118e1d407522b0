"""NVIDIA's driver and the GPUs it shows this process, asked of the driver's own libraries; no context is made on a GPU."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from tensign.doctor.lookup import Lookup

_MAJOR, _MINOR = 75, 76  # attributes of a device: its compute capability


@dataclass(frozen=True, slots=True)
class Gpu:
    """device is what --device calls it; capability is NVIDIA's, (9, 0) of an H100."""

    device: str
    name: str
    memory_bytes: int
    capability: tuple[int, int]

    @property
    def mig(self) -> bool:
        """Whether it is a part of a GPU: the driver puts that into its name."""
        return " MIG " in f"{self.name} "


@dataclass(frozen=True, slots=True)
class Driver:
    """version: "580.159.04", "" where nothing tells; cuda: the newest CUDA it runs; error: why it shows no GPU."""

    version: str
    cuda: tuple[int, int]
    gpus: tuple[Gpu, ...] = ()
    error: str = ""


def find_driver(lookup: Lookup) -> Driver | None:
    """None where the driver's library is not to be had."""
    try:
        cuda = lookup.library("libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int(0)
    cuda.cuDriverGetVersion(ctypes.byref(number))
    version, newest = _version(lookup), (number.value // 1000, number.value % 1000 // 10)
    if status := cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(number)):
        return Driver(version, newest, error=_said(cuda, status))
    gpus = tuple(_gpu(cuda, index) for index in range(number.value))
    return Driver(version, newest, gpus, "" if gpus else "it shows this process none")


def _gpu(cuda: Any, index: int) -> Gpu:
    handle, size, value = ctypes.c_int(0), ctypes.c_size_t(0), ctypes.c_int(0)
    name = ctypes.create_string_buffer(128)
    capability = []
    cuda.cuDeviceGet(ctypes.byref(handle), index)
    cuda.cuDeviceGetName(name, len(name), handle)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(size), handle)
    for attribute in (_MAJOR, _MINOR):
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
        capability.append(value.value)
    return Gpu(f"cuda:{index}", name.value.decode(errors="replace"), size.value, (capability[0], capability[1]))


def _said(cuda: Any, status: int) -> str:
    text = ctypes.c_char_p()
    cuda.cuGetErrorString(status, ctypes.byref(text))
    return f"{(text.value or b'unknown error').decode(errors='replace')} ({status})"


def _version(lookup: Lookup) -> str:
    try:
        management = lookup.library("libnvidia-ml.so.1")
    except OSError:
        return ""
    text = ctypes.create_string_buffer(96)
    if management.nvmlInit_v2():
        return ""
    management.nvmlSystemGetDriverVersion(text, len(text))
    management.nvmlShutdown()
    return text.value.decode(errors="replace")
