"""What both faces of a server share: whether it takes requests, how many are on their way, and how many bytes they hold."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from tensign.budget import Budget
from tensign.errors import ModelNotReady


class Admission:
    """Of one event loop."""

    def __init__(self, max_inflight_bytes: int) -> None:
        self.budget = Budget(max_inflight_bytes)
        self.ready = True
        self.active = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """One request, or one stream of them, on its way. Raises ModelNotReady while draining."""
        if not self.ready:
            raise ModelNotReady("the server is draining and takes no new requests")
        self.active += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.active -= 1
            if not self.active:
                self._idle.set()

    def close(self) -> None:
        """Admits nobody from now on."""
        self.ready = False

    async def drained(self, timeout_s: float) -> None:
        """Waits until what was admitted is answered, for at most timeout_s."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)
