"""What `serve` asks of each of its processes: descriptors, the interpreter's lock, the allocator."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys

# Python lets a thread compute for 5 ms before another may, so long the engine's thread waits to gather a batch. On an H100,
# ResNet-18, 64 in flight: 1.3k images/s became 1.5k to 1.9k (benchmarks/gpu/README.md).
_SWITCH_S = 1e-4

# Of glibc's mallopt(3). By default a buffer of a raw picture's size goes back to the kernel with each request, and the next one
# faults in its pages again: 0.3 ms for a message of 270 kB (benchmarks/wire.py).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 64 << 20
_MAPPED_BYTES = 32 << 20  # the most that glibc takes


def tune() -> None:
    """As far as the system grants it."""
    with contextlib.suppress(OSError, ValueError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection each; shells often grant only 1024
    sys.setswitchinterval(_SWITCH_S)
    with contextlib.suppress(OSError, AttributeError):  # musl has none
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
