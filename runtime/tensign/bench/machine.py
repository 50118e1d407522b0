"""What the generator ran on: a figure without it is no figure."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

from tensign.version import __version__


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory in bytes, kernel."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Of the generator's own side."""
    others = {name: version(name) for name in ("grpcio", "protobuf", "numpy")}
    return {"tensign": __version__, "python": platform.python_version(), **others}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
            return next(names, platform.machine())
    except OSError:
        return platform.machine()
