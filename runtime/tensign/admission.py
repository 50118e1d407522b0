"""What both faces of a server share: whether it takes requests, how many are on their way, and how many bytes they hold."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from tensign.budget import Budget
from tensign.errors import ModelNotReady

Counts = tuple[int, int, int]


class Admitted:
    """What `Admission.admitted` gives. A class of its own: a generator in its place takes 2 us of every request."""

    __slots__ = ("_admission", "_size")

    def __init__(self, admission: Admission, size: int) -> None:
        self._admission, self._size = admission, size

    def __enter__(self) -> None:
        self._admission.enter(self._size)

    def __exit__(self, *raised: object) -> None:
        self._admission.leave(self._size)


class Admission:
    """Of one event loop."""

    def __init__(self, max_inflight_bytes: int) -> None:
        self.budget = Budget(max_inflight_bytes)
        self.ready = True
        self.active = 0
        self.beside: Callable[[], Counts] = lambda: (0, 0, 0)  # of front ends, where there are any
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def counts(self) -> Counts:
        """Calls on their way, bytes of requests, bytes of answers that nobody has read; in front ends too."""
        active, held, kept = self.beside()
        return self.active + active, self.budget.held + held, self.budget.kept + kept

    def admitted(self, size: int = 0) -> Admitted:
        """One request, or one stream of them, on its way; size: bytes of the budget that it holds meanwhile.

        Entering raises ModelNotReady while draining, and QueueFull where the bytes are not to be had.
        """
        return Admitted(self, size)

    def enter(self, size: int) -> None:
        """Begins what `admitted` does."""
        if not self.ready:
            raise ModelNotReady("the server is draining and takes no new requests")
        if size:
            self.budget.grab(size)
        self.active += 1
        self._idle.clear()

    def leave(self, size: int) -> None:
        """Ends what `enter` began."""
        if size:
            self.budget.give_back(size)
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
