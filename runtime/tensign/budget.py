"""Bytes that the server holds at once: of requests on their way, and of answers that streams have yet to read."""

from __future__ import annotations

import asyncio
from collections import deque

from tensign.errors import QueueFull

_SHARES = 4


class Budget:
    """Of one event loop. What is too large for it ever may still have it alone; who waits is served in turn.

    Answers may take up to half of it, and what they take is missing for requests; the other half is never theirs, so that
    readers who are slow do not stop those who read.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._kept = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def held(self) -> int:
        """Bytes taken and not yet given back."""
        return self._held

    @property
    def kept(self) -> int:
        """Bytes of answers, made or expected, that nobody has read yet."""
        return self._kept

    @property
    def share(self) -> int:
        """Bytes of answers that one stream may let wait: a fixed part of what is free, so that there is always some left."""
        return max(self._limit // 2 - self._kept, 0) // _SHARES

    def keep(self, size: int) -> None:
        """Counts answers that wait, at once and whatever `share` is: it binds whoever asks for more of them."""
        self._kept += size

    def drop(self, size: int) -> None:
        """Ends what `keep` began."""
        self._kept -= size
        self._wake()

    def grab(self, size: int) -> None:
        """Takes `size` bytes, or raises QueueFull at once; whoever took them gives them back."""
        if not self._fits(size):
            raise QueueFull(
                f"{self._held} bytes of requests are on their way, {self._limit} may be, this one has {size}; try again later"
            )
        self._held += size

    async def take(self, size: int) -> None:
        """Waits until `size` bytes are to be had; whoever took them gives them back."""
        if self._waiting or not self._fits(size):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.give_back(size)
                else:
                    if (size, turn) in self._waiting:  # else it was passed over already
                        self._waiting.remove((size, turn))
                    self._wake()
                raise
            return
        self._held += size

    def give_back(self, size: int) -> None:
        """Ends what `take` began."""
        self._held -= size
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._held += size
                turn.set_result(None)

    def _fits(self, size: int) -> bool:
        return not self._held or self._held + size <= self._limit - min(self._kept, self._limit // 2)
