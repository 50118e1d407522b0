"""How many front ends a machine is served best by."""

from __future__ import annotations

from collections.abc import Iterable

# All of them hand their rows to one interpreter. A request takes 4 times (raw pictures) to 12 times (JPEG files) as much
# processor time in a front end as it then takes there (benchmarks/frontends.py).
_MOST = 8


def fitting(devices: Iterable[str], cores: int) -> int:
    """For models on these devices, "cpu" or "cuda:N"; 0 where one process does it all.

    Where the CPU runs a model, all cores compute already, and a hop between processes only costs. Where GPUs run them all, half
    of the cores are there to decode with, the others for the threads of the models, the driver and the kernel's network.
    Reasoned, not measured: no machine with a GPU has run it yet.
    """
    number = min(cores // 2, _MOST)
    return number if number > 1 and all(device.startswith("cuda") for device in devices) else 0
