"""Which parts of a shared memory are in use."""

from __future__ import annotations

import threading
from bisect import bisect_left

from tensign.errors import QueueFull, TooLarge

_PAGE = 4096


class Places:
    """Of a memory of `limit` bytes, counted from 0; the lowest that fit are taken, so that little of it is ever touched."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._free = [(0, limit)]  # (start, bytes), ascending, never two that touch
        self._taken: dict[int, int] = {}

    @property
    def taken(self) -> int:
        """Bytes in use."""
        with self._lock:
            return sum(self._taken.values())

    def take(self, size: int) -> int:
        """Where `size` bytes begin that nobody else has. Raises QueueFull, or TooLarge where it never could."""
        if size > self._limit:
            raise TooLarge(f"{size} bytes in one request, {self._limit} may cross between processes")
        size = -(-size // _PAGE) * _PAGE
        with self._lock:
            for number, (start, there) in enumerate(self._free):
                if there >= size:
                    self._free[number : number + 1] = [(start + size, there - size)] if there > size else []
                    self._taken[start] = size
                    return start
        raise QueueFull(f"no {size} bytes of the {self._limit} are free that cross between processes; try again later")

    def give_back(self, start: int) -> None:
        """What `take` gave; anything else is ignored."""
        with self._lock:
            size = self._taken.pop(start, 0)
            if not size:
                return
            number = bisect_left(self._free, (start, 0))
            first, last = number, number
            if number and sum(self._free[number - 1]) == start:
                first, (start, before) = number - 1, self._free[number - 1]
                size += before
            if number < len(self._free) and self._free[number][0] == start + size:
                last, size = number + 1, size + self._free[number][1]
            self._free[first:last] = [(start, size)]
