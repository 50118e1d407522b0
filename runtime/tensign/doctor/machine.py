"""What the kernel grants this process: cores, memory, shared memory, a folder to write to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tensign.doctor.lookup import Lookup

_UNLIMITED = 1 << 60  # version 1 of control groups says "no limit" by a number near 2 ** 63


def cores() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0))


def core_quota(lookup: Lookup) -> float | None:
    """Cores' worth of time that the control groups grant; None is as much as there is."""
    found = [float(quota) / float(period) for quota, period in _quotas(lookup) if float(quota) > 0]
    return min(found, default=None)


def memory_limit(lookup: Lookup) -> int | None:
    """Bytes that the control groups grant; None is as many as there are."""
    texts = [*_of_groups(lookup, "", "memory.max"), *_of_groups(lookup, "memory", "memory.limit_in_bytes")]
    return min((int(text) for text in texts if text.isdecimal() and int(text) < _UNLIMITED), default=None)


def memory_total(lookup: Lookup) -> int | None:
    """Bytes of the machine."""
    for line in lookup.text("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def shared_memory(lookup: Lookup) -> int | None:
    """Bytes that /dev/shm may hold; None where there is none."""
    try:
        room = os.statvfs(lookup.root / "dev/shm")
    except OSError:
        return None
    return room.f_frsize * room.f_blocks


def writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or in one that has to be made for it."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _quotas(lookup: Lookup) -> Iterator[tuple[str, str]]:
    for text in _of_groups(lookup, "", "cpu.max"):
        quota, _, period = text.partition(" ")
        if quota != "max":
            yield quota, period
    quotas = _of_groups(lookup, "cpu", "cpu.cfs_quota_us")
    yield from zip(quotas, _of_groups(lookup, "cpu", "cpu.cfs_period_us"), strict=False)


def _of_groups(lookup: Lookup, controller: str, file: str) -> Iterator[str]:
    """What a file says in this process's control group and in those above, which bind it too; controller is "" in version 2."""
    for line in lookup.text("/proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        path = Path(group.lstrip("/"))
        for part in (path, *path.parents):
            for mount in [controller] if controller else ["", "unified"]:
                if text := lookup.text(f"/sys/fs/cgroup/{mount}/{part}/{file}").strip():
                    yield text
