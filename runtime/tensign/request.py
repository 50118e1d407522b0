"""A request's rows on their way through the batcher, whole or in parts."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from tensign.signature import Arrays

Outputs = dict[str, npt.NDArray[Any]]


@dataclass(slots=True, eq=False)
class Request:
    """Rows on their way: reserved, enqueued, taken in one or more parts, settled.

    deadline: on the batcher's clock, in seconds; None is never. arrays: {name: [rows,...]}. kind: requests of one kind
    may share a batch, having equal dtypes and equal axes behind the rows.
    """

    rows: int
    deadline: float | None
    future: Future[Outputs]
    reserved_ns: int
    arrays: Arrays = field(default_factory=dict)
    kind: tuple[Any, ...] = ()
    enqueued_ns: int = 0
    taken: int = 0
    answered: list[Outputs] = field(default_factory=list)

    @classmethod
    def of(cls, arrays: Arrays, deadline: float | None = None) -> Request:
        """A request of its own, outside any queue."""
        rows = len(next(iter(arrays.values())))
        return cls(rows, deadline, Future(), time.perf_counter_ns(), arrays, kind_of(arrays))

    @property
    def remaining(self) -> int:
        return self.rows - self.taken


@dataclass(frozen=True, slots=True)
class Part:
    """Rows start to stop of one request, inside one batch."""

    request: Request
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


def kind_of(arrays: Arrays) -> tuple[Any, ...]:
    """Names, dtypes and all axes but the rows."""
    return tuple((name, array.dtype, array.shape[1:]) for name, array in arrays.items())
