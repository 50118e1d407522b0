"""NVIDIA's driver and the GPUs it shows this process, asked of the driver's own libraries; no context is made on a GPU."""

from __future__ import annotations

import ctypes
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tensign.doctor.lookup import Lookup

_MAJOR, _MINOR = 75, 76  # attributes of a device: its compute capability
_TEXT = 96  # bytes of the longest text that NVIDIA's management library gives


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, or a MIG instance of one. device is what --device calls it, by its number here or by its own name, which is uuid:
    "GPU-..." or "MIG-..."; capability is NVIDIA's, (9, 0) of an H100."""

    device: str
    name: str
    memory_bytes: int
    capability: tuple[int, int]
    uuid: str

    @property
    def mig(self) -> bool:
        """Whether it is a part of a GPU: the driver puts that into its name."""
        return _is_part(self.name)


@dataclass(frozen=True, slots=True)
class Driver:
    """version: "580.159.04", "" where nothing tells; cuda: the newest CUDA it runs; gpus: those CUDA shows to this process, by
    number; named: all that are on the machine, or in the container, by their own names; error: why CUDA shows none."""

    version: str
    cuda: tuple[int, int]
    gpus: tuple[Gpu, ...] = ()
    named: tuple[Gpu, ...] = ()
    error: str = ""

    def gpu(self, device: str) -> Gpu | None:
        """What "cuda", "cuda:N" or "cuda:NAME" means to this process, of a name its beginning; None where that is not one."""
        which = device.partition(":")[2] or "0"
        if which.isdigit():
            return self.gpus[int(which)] if int(which) < len(self.gpus) else None
        found = [gpu for gpu in self.named if gpu.uuid.startswith(which)]
        return found[0] if len(found) == 1 else None


def find_driver(lookup: Lookup) -> Driver | None:
    """None where the driver's library is not to be had."""
    try:
        cuda = lookup.library("libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int(0)
    cuda.cuDriverGetVersion(ctypes.byref(number))
    newest = number.value // 1000, number.value % 1000 // 10
    version, named = _managed(lookup)
    if status := cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(number)):
        return Driver(version, newest, (), named, _said(cuda, status))
    gpus = tuple(_gpu(cuda, index) for index in range(number.value))
    by_name = named or tuple(replace(gpu, device=f"cuda:{gpu.uuid}") for gpu in gpus)
    return Driver(version, newest, gpus, by_name, "" if gpus else "it shows this process none")


def _gpu(cuda: Any, index: int) -> Gpu:
    handle, size, value = ctypes.c_int(0), ctypes.c_size_t(0), ctypes.c_int(0)
    text, number = ctypes.create_string_buffer(128), ctypes.create_string_buffer(16)
    capability = []
    cuda.cuDeviceGet(ctypes.byref(handle), index)
    cuda.cuDeviceGetName(text, len(text), handle)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(size), handle)
    for attribute in (_MAJOR, _MINOR):
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
        capability.append(value.value)
    identify = cuda.cuDeviceGetUuid_v2 if hasattr(cuda, "cuDeviceGetUuid_v2") else cuda.cuDeviceGetUuid  # before CUDA 11.4
    identify(number, handle)
    name = text.value.decode(errors="replace")
    kind = "MIG" if _is_part(name) else "GPU"
    return Gpu(f"cuda:{index}", name, size.value, (capability[0], capability[1]), f"{kind}-{uuid.UUID(bytes=number.raw)}")


def _is_part(name: str) -> bool:
    return " MIG " in f"{name} "


def _said(cuda: Any, status: int) -> str:
    text = ctypes.c_char_p()
    cuda.cuGetErrorString(status, ctypes.byref(text))
    return f"{(text.value or b'unknown error').decode(errors='replace')} ({status})"


def _managed(lookup: Lookup) -> tuple[str, tuple[Gpu, ...]]:
    """The driver's version, and every GPU by its own name; a container may lack the library that tells."""
    try:
        management = lookup.library("libnvidia-ml.so.1")
    except OSError:
        return "", ()
    text = ctypes.create_string_buffer(_TEXT)
    if management.nvmlInit_v2():
        return "", ()
    try:
        management.nvmlSystemGetDriverVersion(text, len(text))
        return text.value.decode(errors="replace"), tuple(_named(management))
    finally:
        management.nvmlShutdown()


def _named(management: Any) -> Iterator[Gpu]:
    """A GPU that is divided runs nothing itself: its MIG instances stand in its place."""
    count, instances = ctypes.c_uint(0), ctypes.c_uint(0)
    management.nvmlDeviceGetCount_v2(ctypes.byref(count))
    for index in range(count.value):
        whole, major, minor = ctypes.c_void_p(), ctypes.c_int(0), ctypes.c_int(0)
        if management.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(whole)):
            continue  # one that this process may not use
        management.nvmlDeviceGetCudaComputeCapability(whole, ctypes.byref(major), ctypes.byref(minor))
        capability = (major.value, minor.value)
        instances.value = 0
        management.nvmlDeviceGetMaxMigDeviceCount(whole, ctypes.byref(instances))
        if not instances.value:
            yield _described(management, whole, capability)
        for place in range(instances.value):
            part = ctypes.c_void_p()
            if not management.nvmlDeviceGetMigDeviceHandleByIndex(whole, place, ctypes.byref(part)):
                yield _described(management, part, capability)


def _described(management: Any, handle: ctypes.c_void_p, capability: tuple[int, int]) -> Gpu:
    name, identity = ctypes.create_string_buffer(_TEXT), ctypes.create_string_buffer(_TEXT)
    memory = (ctypes.c_ulonglong * 3)()  # in all, free, used
    management.nvmlDeviceGetName(handle, name, len(name))
    management.nvmlDeviceGetUUID(handle, identity, len(identity))
    management.nvmlDeviceGetMemoryInfo(handle, memory)
    own = identity.value.decode(errors="replace")
    return Gpu(f"cuda:{own}", name.value.decode(errors="replace"), memory[0], capability, own)
