"""Rows that know who they are: each element tells client, request, row and column, and its answer tells them too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FACTOR = 5
WIDTHS = (4, 8, 16)  # requests of different widths are of different kinds, and share no batch
MAX_ROWS = 1 << 16

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an element was sent: client below 2^8, request below 2^32, row below 2^16, column below 2^4."""

    client: int
    request: int
    row: int
    column: int

    def __str__(self) -> str:
        return f"client {self.client}, request {self.request}, row {self.row}, column {self.column}"


def rows_of(client: int, request: int, rows: int, width: int, *, first: int = 0) -> Rows:
    """int64 [rows,width], all elements different from each other and from those of every other request."""
    row = np.arange(first, first + rows, dtype=np.int64)[:, None]
    column = np.arange(width, dtype=np.int64)[None, :]
    return (column << 56) | (client << 48) | (request << 16) | row


def answer_to(rows: Rows, work: int) -> Rows:
    """What the model answers: injective, and without overflow below 2^60."""
    return rows * FACTOR + work


def blame(element: Any, work: int) -> Origin | None:
    """Whose element an answer is; None where it is nobody's."""
    sent, rest = divmod(int(element) - work, FACTOR)
    if rest or not 0 <= sent < 1 << 60:
        return None
    return Origin((sent >> 48) & 0xFF, (sent >> 16) & 0xFFFFFFFF, sent & 0xFFFF, sent >> 56)
