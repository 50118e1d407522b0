"""How much of each GPU's memory is free, asked of the driver's own libraries; no context is made on a GPU."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from tensign.doctor.driver import Gpu, find_driver
from tensign.doctor.lookup import Lookup


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes of a device: those that nobody has, and all of them; uuid tells whose it is, by whichever name."""

    free: int
    total: int
    uuid: str = ""


def find_rooms(lookup: Lookup) -> dict[str, Room]:
    """{"cuda:0": its room, "cuda:MIG-...": ...}, by number and by name, without the devices of which nothing tells.

    It tells of none where the management library is missing.
    """
    driver = find_driver(lookup)
    try:
        management = lookup.library("libnvidia-ml.so.1")
    except OSError:
        return {}
    if driver is None or management.nvmlInit_v2():
        return {}
    try:
        rooms = {gpu.device: _room(management, gpu) for gpu in (*driver.gpus, *driver.named)}
    finally:
        management.nvmlShutdown()
    return {device: room for device, room in rooms.items() if room is not None}


class _Memory(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = tuple((name, ctypes.c_ulonglong) for name in ("total", "free", "used"))


def _room(management: Any, gpu: Gpu) -> Room | None:
    """By its own name: CUDA numbers the devices in another order, and shows fewer of them."""
    handle, memory = ctypes.c_void_p(), _Memory()
    if management.nvmlDeviceGetHandleByUUID(gpu.uuid.encode(), ctypes.byref(handle)):
        return None
    if management.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)):
        return None
    return Room(min(memory.free, gpu.memory_bytes), gpu.memory_bytes, gpu.uuid)
