"""How much of each GPU's memory is free, asked of the driver's own libraries; no context is made on a GPU."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tensign.doctor.lookup import Lookup

_KINDS = ("GPU", "MIG")  # of which NVIDIA's names of devices begin


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes of a device: those that nobody has, and all of them."""

    free: int
    total: int


def find_rooms(lookup: Lookup) -> dict[str, Room]:
    """{"cuda:0": its room, ...}, without the devices of which nothing tells, as where the management library is missing."""
    try:
        cuda, management = lookup.library("libcuda.so.1"), lookup.library("libnvidia-ml.so.1")
    except OSError:
        return {}
    number = ctypes.c_int(0)
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(number)) or management.nvmlInit_v2():
        return {}
    try:
        rooms = {f"cuda:{index}": _room(cuda, management, index) for index in range(number.value)}
    finally:
        management.nvmlShutdown()
    return {device: room for device, room in rooms.items() if room is not None}


class _Memory(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = tuple((name, ctypes.c_ulonglong) for name in ("total", "free", "used"))


def _room(cuda: Any, management: Any, index: int) -> Room | None:
    """By its UUID: CUDA numbers the devices in another order, and shows fewer of them."""
    device, name, memory = ctypes.c_int(0), ctypes.create_string_buffer(16), _Memory()
    handle, total = ctypes.c_void_p(), ctypes.c_size_t(0)
    if (
        cuda.cuDeviceGet(ctypes.byref(device), index)
        or cuda.cuDeviceGetUuid_v2(name, device)
        or cuda.cuDeviceTotalMem_v2(ctypes.byref(total), device)
    ):
        return None
    for kind in _KINDS:
        called = f"{kind}-{UUID(bytes=name.raw)}".encode()
        if not management.nvmlDeviceGetHandleByUUID(called, ctypes.byref(handle)):
            told = not management.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
            return Room(min(memory.free, total.value), total.value) if told else None
    return None
