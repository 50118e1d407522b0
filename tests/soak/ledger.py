"""The book of every row: what was sent, and the one fate that each row had."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .identity import Rows, answer_to, blame, rows_of

# Each row that was sent has exactly one of these fates.
RIGHT, WRONG, LOST, REFUSED, CANCELLED, EXPIRED, FAILED = FATES = (
    "right",
    "wrong",
    "lost",
    "refused",
    "cancelled",
    "expired",
    "failed",
)
# Answers beyond that: rows answered again, rows that nobody asked for, answers of a stream before an older request's,
# bad requests that were answered as if they were good.
DOUBLED, STRAY, MISPLACED, BAD_ANSWERED = EXTRAS = ("doubled", "stray", "misplaced", "bad answered")
FAULTS = (WRONG, LOST, FAILED, *EXTRAS)


@dataclass(slots=True, eq=False)
class Entry:
    """One request in the book. answered: bool [rows]; settled: its remaining rows have their fate."""

    client: int
    number: int
    rows: int
    width: int
    answered: npt.NDArray[np.bool_]
    parts: int = 0
    settled: bool = False

    @property
    def id(self) -> str:
        return f"{self.client}/{self.number}"

    @property
    def array(self) -> Rows:
        """int64 [rows,width]."""
        return rows_of(self.client, self.number, self.rows, self.width)


@dataclass(slots=True)
class Ledger:
    """Counts in rows; `requests` counts requests by what happened to them. Ledgers of several clients add up."""

    work: int
    rows: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    first_faults: dict[str, str] = field(default_factory=dict)

    def send(self, client: int, number: int, rows: int, width: int) -> Entry:
        self.rows["sent"] += rows
        self.requests["sent"] += 1
        return Entry(client, number, rows, width, np.zeros(rows, bool))

    def answer(self, entry: Entry, answer: Rows, *, first: int = 0, last: bool = True) -> None:
        """Rows `first` and following of a request are answered; after the last part, what is missing is lost."""
        expected = answer_to(
            rows_of(entry.client, entry.number, max(entry.rows - first, 0), entry.width, first=first), self.work
        )
        inside = min(len(answer), len(expected))
        if len(answer) > inside:
            self._fault(
                STRAY, len(answer) - inside, f"request {entry.id} of {entry.rows} rows got {len(answer)} from {first} on"
            )
        if answer.ndim != 2 or answer.shape[1] != entry.width:
            right = np.zeros(inside, bool)
        else:
            right = (answer[:inside] == expected[:inside]).all(axis=1)
        window = entry.answered[first : first + inside]
        again = window | entry.settled
        if again.any():
            self._fault(DOUBLED, int(again.sum()), f"request {entry.id}: rows from {first} on had their fate before")
        self.rows[RIGHT] += int((right & ~again).sum())
        if wrong := np.flatnonzero(~right & ~again).tolist():
            at = wrong[0]
            told = self._told(answer[at].ravel(), expected[at])
            self._fault(WRONG, len(wrong), f"request {entry.id}, row {first + at} of {entry.rows}: {told}")
        if entry.settled:
            return
        window[:] = True
        entry.parts += 1
        self.requests["in parts"] += entry.parts == 2
        if last:
            self.settle(entry, LOST if not entry.answered.all() else "answered", "the last answer has come")

    def settle(self, entry: Entry, fate: str, why: str = "") -> None:
        """The rows of a request that have no answer yet have this fate instead; nothing where it is settled already."""
        if entry.settled:
            return
        entry.settled = True
        self.requests[fate] += 1
        if left := entry.rows - int(entry.answered.sum()):
            if fate in FAULTS:
                self._fault(fate, left, f"request {entry.id}: {left} of {entry.rows} rows: {why}")
            else:
                self.rows[fate] += left

    def stray(self, rows: int, told: str) -> None:
        """An answer to nothing that was asked."""
        self._fault(STRAY, rows, told)

    def misplaced(self, told: str) -> None:
        """An answer of a stream that came before that of an older request."""
        self._fault(MISPLACED, 1, told)

    def bad(self, told: str, *, refused: bool) -> None:
        """A bad request has been refused as it should be, or not."""
        self.requests["bad"] += 1
        if not refused:
            self._fault(BAD_ANSWERED, 1, told)

    def add(self, other: Ledger) -> None:
        self.rows += other.rows
        self.requests += other.requests
        self.first_faults = other.first_faults | self.first_faults

    @property
    def faulty(self) -> bool:
        return any(self.rows[fault] for fault in FAULTS)

    def troubles(self) -> list[str]:
        """What must not be: empty where every row has its one fate, and none is a fault."""
        found = [f"{self.rows[fault]} {fault}; first: {self.first_faults[fault]}" for fault in FAULTS if self.rows[fault]]
        fates = sum(self.rows[fate] for fate in FATES)
        if fates != self.rows["sent"]:
            found.append(f"{self.rows['sent']} rows were sent, {fates} have a fate")
        return found

    def _fault(self, fault: str, rows: int, told: str) -> None:
        self.rows[fault] += rows
        self.first_faults.setdefault(fault, told)

    def _told(self, got: Rows, expected: Rows) -> str:
        """Whose row this answer is."""
        if len(got) != len(expected):
            return f"{len(got)} columns in place of {len(expected)}"
        column = int(np.flatnonzero(got != expected)[0])
        return f"in column {column} stands the answer to {blame(got[column], self.work) or 'nothing that was sent'}"
