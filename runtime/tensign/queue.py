"""The requests that wait for a batch, in the order in which they are served, and the room that each client may take."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, field

from tensign.request import Part, Request

_SHARES = 4
_FEW = 64  # clients, of whom looking for some to forget is not worth the while


@dataclass(slots=True, eq=False)
class _Line:
    """One client's requests, each behind its deadline and the number of its arrival.

    start: when its next row is due, in virtual time; rows: reserved or in line; entry: the number of its place in the heap.
    """

    start: float = 0.0
    rows: int = 0
    entry: int = 0
    requests: list[tuple[float, int, Request]] = field(default_factory=list)


class Queue:
    """Fairness decides among clients, the deadline among the requests of one client. Not safe for threads.

    Fair is that clients who want more than there is get equally many rows: next is whose row is due first, a row behind which
    that client's next is due one later. Who comes, or comes back from a rest, is due at the virtual time, in which rows pass
    as fast as each client gets them, and not before what it had is over; so that a thousand rows of one client keep a single
    one of another waiting for about one. Of one client's requests the earliest deadline is first, none is last, equals go by
    arrival; so nobody gets before others by a short deadline of his own.

    Room: a client with rows in the queue may have at most four times as many there as are then left free, whoever has none
    may have all that is free: one that floods leaves a fifth, n of them leave one part in 4 n + 1.
    """

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self.rows = 0  # reserved or in line
        self._lines: dict[str, _Line] = {}
        self._heap: list[tuple[float, int, _Line]] = []  # with places that lines have left
        self._numbers = 0
        self._now = 0.0  # virtual
        self._length = 0
        self._busy = 0  # lines with requests
        self._enough = _FEW

    def __len__(self) -> int:
        return self._length

    def rows_of(self, client: str) -> int:
        return line.rows if (line := self._lines.get(client)) else 0

    def admits(self, rows: int, client: str, *, own: int = 0, all_: int = 0) -> bool:
        """Whether so many rows more may come; own, all_: those promised beside, to that client and to everybody."""
        own, free = own + self.rows_of(client), self.max_rows - self.rows - all_ - rows
        return free >= 0 and (not own or own + rows <= _SHARES * free)

    def refusal(self, rows: int, client: str) -> str:
        """Why they may not."""
        if self.rows + rows > self.max_rows:
            return f"{self.rows} rows are waiting and {self.max_rows} may; try again later"
        return (
            f"{self.rows} rows are waiting, {self.max_rows} may, and {self.rows_of(client)} of them are this client's;"
            f" with {rows} more it would have over {_SHARES} times what is left free; try again later"
        )

    def reserve(self, rows: int, client: str) -> None:
        line = self._lines.get(client)
        if line is None:
            line = self._lines[client] = _Line(self._now)
        line.rows += rows
        self.rows += rows

    def give_back(self, rows: int, client: str) -> None:
        """Ends what `reserve` began, for rows that are taken, or will never be."""
        line = self._lines[client]
        line.rows -= rows
        self.rows -= rows
        if not self.rows:
            self._rest()
        elif not line.rows and line.start <= self._now:
            del self._lines[client]

    def add(self, request: Request) -> None:
        """Puts a request, whose rows are reserved, in line."""
        line = self._lines[request.client]
        self._numbers += 1
        request.number = self._numbers
        insort(line.requests, (_due(request), request.number, request))
        self._length += 1
        if len(line.requests) == 1:
            line.start = max(line.start, self._now)
            self._busy += 1
            self._place(line)

    def remove(self, request: Request) -> None:
        """Takes it out of its line, if it is in one; its rows stay reserved."""
        if not request.number:
            return
        line = self._lines[request.client]
        del line.requests[bisect_left(line.requests, (_due(request), request.number))]
        request.number = 0
        self._length -= 1
        if not line.requests:
            line.entry = 0
            self._busy -= 1

    def alike(self, most: int, over: Callable[[Request], bool], *, single: bool = False) -> tuple[list[Request], list[Request]]:
        """(who is next and those of its kind behind it, `most` rows or just above, who is over and met on the way).

        single: one request alone. Nobody is taken out.
        """
        found: list[Request] = []
        gone: list[Request] = []
        seen: list[tuple[float, int, _Line]] = []
        going_on: list[tuple[float, int, int, _Line]] = []  # lines with requests that were not looked at
        rows = 0
        while rows < most:
            first = self._first()
            if going_on and (first is None or going_on[0][:2] <= first[:2]):
                start, number, at, line = heapq.heappop(going_on)
            elif first is not None:
                seen.append(heapq.heappop(self._heap))
                (start, number, line), at = first, 0
                first = self._first()
            else:
                break
            until = min(first[0] if first else math.inf, going_on[0][0] if going_on else math.inf)
            going = True
            while going:
                request = line.requests[at][2]
                at += 1
                if over(request):
                    gone.append(request)
                elif not found or request.kind == found[0].kind:
                    found.append(request)
                    rows += request.remaining if not single else most
                    start += request.remaining
                going = at < len(line.requests) and rows < most and start < until
            if at < len(line.requests):
                heapq.heappush(going_on, (start, number, at, line))
        for entry in seen:
            heapq.heappush(self._heap, entry)
        return found, gone

    def take(self, alike: list[Request], rows: int) -> list[Part]:
        """So many rows of these requests, in their order; who is taken whole leaves the queue."""
        parts: list[Part] = []
        lines: dict[str, _Line] = {}
        for request in alike:
            if not rows:
                break
            line = lines[request.client] = self._lines[request.client]
            part = Part(request, request.taken, request.taken + min(rows, request.remaining))
            parts.append(part)
            rows -= part.rows
            self._now = max(self._now + part.rows / self._busy, line.start)
            line.start += part.rows
            request.taken = part.stop
            if part.stop == request.rows:
                self.remove(request)
        for line in lines.values():
            if line.requests:
                self._place(line)
        for part in parts:
            self.give_back(part.rows, part.request.client)
        if len(self._lines) > self._enough:
            self._forget()
        return parts

    def sweep(self, over: Callable[[Request], bool]) -> list[Request]:
        """Those in line who are over."""
        return [request for line in self._lines.values() for _, _, request in line.requests if over(request)]

    def _place(self, line: _Line) -> None:
        self._numbers += 1
        line.entry = self._numbers
        heapq.heappush(self._heap, (line.start, line.entry, line))

    def _first(self) -> tuple[float, int, _Line] | None:
        while self._heap and self._heap[0][1] != self._heap[0][2].entry:
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None

    def _rest(self) -> None:
        """Everybody is level where nobody waits."""
        self._heap.clear()
        if len(self._lines) == 1:
            for line in self._lines.values():
                line.start = 0.0
        else:
            self._lines.clear()
        self._now, self._enough = 0.0, _FEW

    def _forget(self) -> None:
        """Clients who have nothing here and would begin anew where they are."""
        self._lines = {name: line for name, line in self._lines.items() if line.rows or line.start > self._now}
        self._enough = 2 * len(self._lines) + _FEW


def _due(request: Request) -> float:
    return math.inf if request.deadline is None else request.deadline
