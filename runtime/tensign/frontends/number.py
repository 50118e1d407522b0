"""How many front ends a machine is served best by."""

from __future__ import annotations

from collections.abc import Iterable

_MOST = 8  # the server's own process gathers batches for all of them on one interpreter


def fitting(devices: Iterable[str], cores: int) -> int:
    """For models on these devices, "cpu" or "cuda:N"; 0 where one process does it all.

    Where the CPU runs a model, all cores compute already, and a hop between processes only costs. Where GPUs run them all, half
    of the cores are left to decode with, the others to the threads of the models, the driver and the kernel's network.
    Reasoned, not measured: no GPU machine has run it yet.
    """
    number = min(cores // 2, _MOST)
    return number if number > 1 and all(device.startswith("cuda") for device in devices) else 0
