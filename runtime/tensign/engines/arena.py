"""Shared memory behind a file descriptor, which one side writes and the other one reads."""

from __future__ import annotations

import mmap
import os
from typing import Any


class BrokenFrame(Exception):
    """What the other side sent is no message of ours; the one after it may be."""


class Arena:
    """It grows and never shrinks."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._map: Any = b""

    def room(self, size: int) -> Any:
        """A writable map of at least `size` bytes."""
        if len(self._map) < size:
            wanted = max(1 << (size - 1).bit_length(), mmap.PAGESIZE)
            if os.fstat(self._fd).st_size < wanted:
                os.ftruncate(self._fd, wanted)
            self._map = mmap.mmap(self._fd, wanted)
        return self._map

    def filled(self, size: int) -> Any:
        """A map of the `size` bytes that the other side wrote. Raises BrokenFrame."""
        if len(self._map) < size:
            there = os.fstat(self._fd).st_size
            if size > there:
                raise BrokenFrame(f"arrays of {size} bytes in a memory of {there}")
            self._map = mmap.mmap(self._fd, there)
        return self._map

    def close(self) -> None:
        self._map = b""
        os.close(self._fd)
