"""Who waits for room in the queue: woken as soon as there is room for him, each client's in turn."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from concurrent.futures import Future

from tensign.queue import Queue


class Room:
    """Waiters of one queue, each client's oldest first. Not safe for threads."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._waiting: OrderedDict[str, deque[tuple[int, Future[None]]]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def wait(self, rows: int, client: str) -> Future[None]:
        """Done as soon as that client may have so many rows more."""
        room: Future[None] = Future()
        if self._queue.admits(rows, client):
            room.set_result(None)
        else:
            self._waiting.setdefault(client, deque()).append((rows, room))
        return room

    def made(self) -> None:
        """Wakes as many as may come; all where nothing is left that would wake them later.

        Who takes no more than his share, and has to wait for more than is free, lets nobody pass.
        """
        if not self._waiting:
            return
        if not self._queue.rows:
            for waiting in tuple(self._waiting.values()):
                for _, room in waiting:
                    _wake(room)
            self._waiting.clear()
            return
        promised: Counter[str] = Counter()
        in_vain = 0
        while in_vain < len(self._waiting):
            client, waiting = next(iter(self._waiting.items()))
            rows, room = waiting[0]
            if room.cancelled():
                waiting.popleft()
            elif self._queue.admits(rows, client, own=promised[client], all_=promised.total()):
                waiting.popleft()
                if _wake(room):
                    promised[client] += rows
                    in_vain = 0
                    self._waiting.move_to_end(client)
            elif not (promised[client] or self._queue.rows_of(client)):
                break
            else:
                in_vain += 1
                self._waiting.move_to_end(client)
            if not waiting:
                del self._waiting[client]


def _wake(room: Future[None]) -> bool:
    if not room.set_running_or_notify_cancel():
        return False
    room.set_result(None)
    return True
