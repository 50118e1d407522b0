"""Rows at a threshold of the original, where no graph can be held against it; which they are, only its graph's answers tell."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tensign.proof.parity import Answers
from tensign_converters.tables.answers import alike, joined, part
from tensign_converters.tables.original import Original, Table
from tensign_converters.tables.rows import Rows

_MOST = 0.05  # of the rows
_TIE = 1e-9


def at_threshold(original: Original, mine: Answers, asked: Rows) -> list[int]:
    """Places of the rows that the graph answers otherwise, and that the original itself answers otherwise where a number is one
    float32 step higher or lower, or of which it hardly knows the class.

    mine: the graph's answers. No places where other rows differ too, or more than a few: the proof is to fail on them.
    """
    found: list[int] = []
    if alike(mine, asked.answers):
        return found
    rows = np.arange(len(asked))
    for row in rows.tolist():
        if alike(_at(rows == row, mine, asked.answers), asked.answers):
            continue
        if len(found) + 1 > len(rows) * _MOST or not _turns(original, asked, row):
            return []
        found.append(row)
    return found


def _at(row: npt.NDArray[np.bool_], mine: Answers, its: Answers) -> Answers:
    """Its answers, but for that row's."""
    both, place = joined([its, mine]), np.arange(len(row))
    return part(both, np.where(row, place + len(row), place))


def _turns(original: Original, asked: Rows, row: int) -> bool:
    one = {name: array[row : row + 1] for name, array in asked.table.items()}
    want = original.answered(one)  # by itself, as those beside it: of other rows pandas may make other types
    if want.logits is not None:
        best = np.sort(want.logits[0])[-2:]
        if len(best) == 2 and best[1] - best[0] < _TIE:
            return True
    return any(not alike(original.answered(near), want) for near in _beside(one))


def _beside(one: Table) -> Iterator[Table]:
    """The row with one of its floats a float32 step away."""
    for name, array in one.items():
        for place in np.ndindex(array.shape if array.dtype.kind == "f" else (0,)):
            for step in (-1, 1):
                changed = array.copy()
                changed[place] += step * np.spacing(np.abs(np.float32(array[place])))
                yield {**one, name: changed}
