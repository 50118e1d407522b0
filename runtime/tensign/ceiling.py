"""How much memory what waits for the engine may take."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any


class Ceiling:
    """Bytes of pictures that were decoded and not yet answered.

    Rows are counted before they are decoded; what a picture takes is known only afterwards, up to 192 MB of it where a model
    takes any size. Who would go beyond the limit waits; what is larger than all of it is held alone.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._freed = threading.Condition()

    @property
    def held(self) -> int:
        """Bytes held now."""
        return self._held

    def hold(self, size: int, until: Future[Any], timeout_s: float | None = None) -> None:
        """Waits for room, then holds `size` bytes until the future is done. At the timeout it holds them all the same."""
        with self._freed:
            self._freed.wait_for(lambda: not self._held or self._held + size <= self._limit, timeout_s)
            self._held += size
        until.add_done_callback(lambda _: self._free(size))

    def _free(self, size: int) -> None:
        with self._freed:
            self._held -= size
            self._freed.notify_all()
