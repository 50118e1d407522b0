"""What is to be sent, read lazily from whatever the caller has: iterables in a thread of their own, async ones in place."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from typing import Any

from tensign.client.exchange import Item

_AT_MOST_S = 0.002  # so long is gathered before what there is is sent


class FromIterable:
    """Reads in a thread, since a file or a caller's generator may block; never more than what is asked for.

    make: an element as an Item; it runs in that thread too.
    """

    def __init__(self, values: Iterable[Any], make: Callable[[Any], Item]) -> None:
        self._values, self._make = values, make
        self._asked: queue.SimpleQueue[tuple[int, asyncio.Future[list[Item]]] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        # A daemon: an iterable that blocks for ever must not keep the program from ending.
        threading.Thread(target=self._serve, name="tensign-source", daemon=True).start()

    async def take(self, limit: int) -> list[Item]:
        """1 to `limit` items, none at the end. Raises what the iterable raises."""
        taken: asyncio.Future[list[Item]] = self._loop.create_future()
        self._asked.put((limit, taken))
        return await taken

    def close(self) -> None:
        """Lets the thread end, once the iterable lets it."""
        self._asked.put(None)

    def _serve(self) -> None:
        values: Iterator[Any] | None = None
        late: Exception | None = None
        while (asked := self._asked.get()) is not None:
            limit, taken = asked
            found: list[Item] = []
            error, late = late, None
            try:
                values = values or iter(self._values)
                until = time.perf_counter() + _AT_MOST_S
                while error is None and len(found) < limit and (not found or time.perf_counter() < until):
                    try:
                        found.append(self._make(next(values)))
                    except StopIteration:
                        break
            except Exception as raised:
                error = raised
            if error is not None and found:
                error, late = None, error  # first what was read before it
            try:
                self._loop.call_soon_threadsafe(partial(_settle, taken, found, error))
            except RuntimeError:  # the loop is closed: nobody waits any longer
                return


class FromAsync:
    """Reads where it is awaited; `make` runs in a thread, for it may read a file."""

    def __init__(self, values: AsyncIterable[Any], make: Callable[[Any], Item]) -> None:
        self._values: AsyncIterator[Any] = aiter(values)
        self._make = make

    async def take(self, limit: int) -> list[Item]:
        """One item, none at the end. Raises what the iterable raises."""
        try:
            value = await anext(self._values)
        except StopAsyncIteration:
            return []
        return [await asyncio.to_thread(self._make, value)]

    def close(self) -> None:
        """The iterable belongs to the caller."""


def source_of(values: Iterable[Any] | AsyncIterable[Any], make: Callable[[Any], Item]) -> FromIterable | FromAsync:
    """The source for either kind of iterable."""
    return FromAsync(values, make) if isinstance(values, AsyncIterable) else FromIterable(values, make)


def _settle(taken: asyncio.Future[list[Item]], found: list[Item], error: Exception | None) -> None:
    if taken.done():  # cancelled meanwhile
        return
    if error is None:
        taken.set_result(found)
    else:
        taken.set_exception(error)
