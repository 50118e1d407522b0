"""A request's rows on their way through the batcher, whole or in parts."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.devicememory import DeviceArray
from tensign.errors import EngineError
from tensign.form import Form
from tensign.signature import Arrays

Outputs = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Ran:
    """One batch: its rows and the bucket they filled; when it began, when its input was gathered, computed, and split again."""

    rows: int
    bucket: int
    began_ns: int
    gathered_ns: int
    computed_ns: int
    split_ns: int


class Formed(dict[str, npt.NDArray[Any]]):
    """{output: [n,...]}, and the form in which the model itself returned them, None where nobody knows.

    ran: the batches that it comes from; reserved_ns, enqueued_ns: of its request.
    """

    ran: tuple[Ran, ...] = ()
    reserved_ns = enqueued_ns = 0

    def __init__(self, arrays: Arrays, form: Form | None) -> None:
        super().__init__(arrays)
        self.form = form


class Enforced(dict[str, npt.NDArray[Any]]):
    """{input: [n,...]} that a signature has let through, with the params beside them."""

    def __init__(self, arrays: Arrays, params: Mapping[str, Any]) -> None:
        super().__init__(arrays)
        self.params = params

    @property
    def rows(self) -> int:
        return len(next(iter(self.values())))

    def part(self, start: int, stop: int) -> Enforced:
        """Some of the rows, uncopied."""
        return Enforced({name: array[start:stop] for name, array in self.items()}, self.params)


def joined(pieces: Sequence[Outputs]) -> Outputs:
    """The rows of several answers as one, in the first one's form.

    Raises EngineError where an axis behind the rows differs from batch to batch.
    """
    if len(pieces) == 1:
        return pieces[0]
    for name, first in pieces[0].items():
        if any(piece[name].shape[1:] != first.shape[1:] for piece in pieces):
            raise EngineError(f'output "{name}": its shape differs from batch to batch, so a split request has no one answer')
    arrays = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    if not isinstance(pieces[0], Formed):
        return arrays
    whole = Formed(arrays, pieces[0].form)
    whole.reserved_ns, whole.enqueued_ns = pieces[0].reserved_ns, pieces[0].enqueued_ns
    whole.ran = tuple(ran for piece in pieces if isinstance(piece, Formed) for ran in piece.ran)
    return whole


@dataclass(slots=True, eq=False)
class Request:
    """Rows on their way: reserved, enqueued, taken in one or more parts, settled.

    deadline: on the batcher's clock, in seconds; None is never. arrays: {name: [rows,...]}. kind: requests of one kind
    may share a batch, having equal dtypes, equal axes behind the rows and equal params. again: it was in a batch whose worker
    died, or whose device was lost, and is run once more. answered: by the first row of each part that ran; ran: rows of them.
    client: whoever it is that the queue is fair to; number: of its place in the queue, 0 outside.
    """

    rows: int
    deadline: float | None
    future: Future[Outputs]
    reserved_ns: int
    arrays: Arrays = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    kind: tuple[Any, ...] = ()
    enqueued_ns: int = 0
    taken: int = 0
    again: bool = False
    answered: dict[int, Outputs] = field(default_factory=dict)
    ran: int = 0
    client: str = ""
    number: int = 0

    @classmethod
    def of(cls, arrays: Arrays, deadline: float | None = None) -> Request:
        """A request of its own, outside any queue."""
        rows = len(next(iter(arrays.values())))
        return cls(rows, deadline, Future(), time.perf_counter_ns(), arrays, kind=kind_of(arrays))

    @property
    def remaining(self) -> int:
        return self.rows - self.taken

    def expired(self, now: float) -> bool:
        return self.deadline is not None and self.deadline <= now


@dataclass(frozen=True, slots=True)
class Part:
    """Rows start to stop of one request, inside one batch."""

    request: Request
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


def kind_of(arrays: Arrays, params: Mapping[str, Any] | None = None) -> tuple[Any, ...]:
    """Names, dtypes, all axes but the rows, and whether they lie on a device; params, where there are any, as text that tells
    unequal ones apart.
    """
    kind = tuple((name, array.dtype, array.shape[1:], isinstance(array, DeviceArray)) for name, array in arrays.items())
    return (*kind, json.dumps(params, sort_keys=True, default=_told_apart)) if params else kind


def _told_apart(value: Any) -> Any:
    return [str(value.dtype), value.tolist()] if isinstance(value, np.ndarray) else [type(value).__name__, repr(value)]
