"""What is to be sent, read lazily from whatever the caller has: iterables in a thread of their own, async ones in place."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any

from tensign.client.exchange import Item, Unreadable


class FromIterable:
    """Reads in a thread, since a file or a caller's generator may block; never more than there is room for.

    make: an element as an Item; it runs in that thread too.
    """

    def __init__(self, values: Iterable[Any], make: Callable[[Any], Item]) -> None:
        self._values, self._make = values, make
        self._loop = asyncio.get_running_loop()
        self._read = asyncio.Event()
        self._told = False  # the loop is awake, or about to be: waking it for every item would cost more than the item
        self._changed = threading.Condition()
        self._room = 0
        self._items: deque[Item] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self._started = False

    async def take(self, limit: int) -> list[Item]:
        """1 to `limit` items, none at the end. Raises Unreadable, once what was read before it was taken."""
        if not self._started:
            self._started = True
            # A daemon: an iterable that blocks for ever must not keep the program from ending.
            threading.Thread(target=self._serve, name="tensign-source", daemon=True).start()
        with self._changed:
            self._room = limit
            self._changed.notify()
        while True:
            self._read.clear()
            with self._changed:
                self._told = False
                if self._items:
                    found = list(self._items)
                    self._items.clear()
                    self._room = limit - len(found)
                    return found
                if self._ended:
                    break
            await self._read.wait()
        if self._error is not None:
            raise Unreadable(self._error)
        return []

    def close(self) -> None:
        """Lets the thread end, once the iterable lets it."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _serve(self) -> None:
        try:
            values = iter(self._values)
            while self._has_room():
                self._put(self._make(next(values)))
        except StopIteration:
            pass
        except BaseException as error:  # SystemExit, too, belongs to who reads the answers
            self._error = error
        self._put(None)

    def _has_room(self) -> bool:
        """Waits for it; False once nobody reads any longer."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(self._items) < self._room)
            return not self._ended

    def _put(self, item: Item | None) -> None:
        with self._changed:
            if item is None:
                self._ended = True
            else:
                self._items.append(item)
            if self._told:
                return
            self._told = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any longer
            self._loop.call_soon_threadsafe(self._read.set)


class FromAsync:
    """Reads where it is awaited; `make` runs in a thread, for it may read a file, but for bytes that are a message already."""

    def __init__(self, values: AsyncIterable[Any], make: Callable[[Any], Item], *, made: bool) -> None:
        self._values: AsyncIterator[Any] = aiter(values)
        self._make, self._made = make, made

    async def take(self, limit: int) -> list[Item]:
        """One item, none at the end. Raises Unreadable."""
        try:
            value = await anext(self._values)
        except StopAsyncIteration:
            return []
        except Exception as error:
            raise Unreadable(error) from error
        return [self._make(value) if self._made else await asyncio.to_thread(self._make, value)]

    def close(self) -> None:
        """The iterable belongs to the caller."""


def source_of(
    values: Iterable[Any] | AsyncIterable[Any], make: Callable[[Any], Item], *, made: bool = False
) -> FromIterable | FromAsync:
    """The source for either kind of iterable; `made`: its elements are messages, which `make` only wraps."""
    return FromAsync(values, make, made=made) if isinstance(values, AsyncIterable) else FromIterable(values, make)
