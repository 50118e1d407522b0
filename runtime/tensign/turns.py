"""Turns on a device that several models share: whoever has used it least is next, so that a flood to one starves no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_STUCK_S = 2.0  # where nothing has ended for so long, a run is perhaps stuck: what waits runs beside it, as without turns


class Share:
    """One model's part of one device; alone on it, until `Turns.add` makes it one of several."""

    def __init__(self, runs: int = 1) -> None:
        self.runs = runs
        self.turns: Turns | None = None
        self.used = 0.0  # seconds on the device
        self.wanted = 0  # turns that its lanes hold or wait for

    @property
    def alone(self) -> bool:
        """Whether nobody else wants the device."""
        return self.turns is None or not self.turns.shared

    def end(self) -> None:
        """Leaves the device to the others, as a model does that is closed."""
        turns, self.turns = self.turns, None
        if turns is not None:
            turns.remove(self)


class Turns:
    """Of one device. Nobody waits while fewer batches run on it than the model of the most lanes would run alone.

    A model that comes back from a rest begins level with the others: of what it did not use nothing is kept. clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._shares: list[Share] = []
        self._waiting: list[Turn] = []
        self._running: set[Turn] = set()
        self._level = 0.0  # what the model that was let in last had used
        self._moved = clock()

    @property
    def shared(self) -> bool:
        """Whether there is anybody to wait for."""
        return len(self._shares) > 1

    def add(self, share: Share) -> None:
        with self._lock:
            share.turns, share.used = self, self._level
            self._shares.append(share)

    def remove(self, share: Share) -> None:
        """A model less, which is being closed; what it runs, or waits to run, ends as it would have."""
        with self._lock:
            self._shares.remove(share)
            self._admit()

    def ask(self, turn: Turn) -> None:
        """Puts it behind those that wait already."""
        with self._lock:
            share = turn.share
            if not share.wanted:
                share.used = max(share.used, self._level)
            share.wanted += 1
            self._waiting.append(turn)
            self._admit()

    def wait(self, turn: Turn) -> None:
        """Until the device is that turn's, which was asked for."""
        while not turn.admitted.wait(_STUCK_S):
            with self._lock:
                if self._waiting and self._clock() - self._moved >= _STUCK_S:
                    self._admit_one()

    def leave(self, turn: Turn, *, again: bool) -> None:
        """Ends what `ask` began, held or not, and lets the next one in; again: asks anew, before that one is chosen."""
        with self._lock:
            if turn.admitted.is_set():
                turn.admitted.clear()
                self._moved = self._clock()
                turn.share.used += self._moved - turn.began
                self._running.remove(turn)
            else:
                self._waiting.remove(turn)
            if again:
                self._waiting.append(turn)
            else:
                turn.share.wanted -= 1
            self._admit()

    # Under the lock

    def _admit(self) -> None:
        runs = max((share.runs for share in self._shares), default=1)
        while self._waiting and (self._at_work() < runs or not self.shared):
            self._admit_one()

    def _at_work(self) -> int:
        """Without those that are stuck: past them everybody else goes on at once, batch after batch."""
        now = self._clock()
        return sum(now - turn.began < _STUCK_S for turn in self._running)

    def _admit_one(self) -> None:
        turn = min(self._waiting, key=lambda one: one.share.used)  # of equals, who has waited longest
        self._waiting.remove(turn)
        self._running.add(turn)
        self._level = turn.share.used
        turn.began = self._moved = self._clock()
        turn.admitted.set()


class Turn:
    """One lane's, again and again: entered before it takes a batch, left when the batch has run."""

    def __init__(self, share: Share) -> None:
        self.share = share
        self.began = 0.0
        self.admitted = threading.Event()
        self._turns: Turns | None = None  # that it is held of, or asked for

    @property
    def needed(self) -> bool:
        """Whether the lane has to enter before it runs anything."""
        if self._turns is not None:
            return not self.admitted.is_set()
        turns = self.share.turns
        return turns is not None and turns.shared

    def enter(self) -> None:
        """Waits for the turn, where it is needed."""
        turns = self._turns or self.share.turns
        if turns is None or not self.needed:
            return
        if self._turns is None:
            self._turns = turns
            turns.ask(self)
        turns.wait(self)

    def leave(self, *, again: bool = False) -> None:
        """Gives it on, where there is one; again: wants the next one, which nobody gets only because he came in between."""
        if self._turns is not None:
            turns = self._turns
            if not (again and turns.shared):
                self._turns = None
            turns.leave(self, again=self._turns is not None)
