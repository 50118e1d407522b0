"""Answers of tables, put together and taken apart, and when they are alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.proof.parity import Answers, Differences, Tolerance

TOLERANCE = Tolerance(1e-5, 1e-5)  # of probabilities; of other numbers relative to their size; labels are exact


def joined(pieces: Sequence[Answers]) -> Answers:
    """To the rows of all of them, one piece behind the other."""
    outputs = {name: np.concatenate([piece.outputs[name] for piece in pieces]) for name in pieces[0].outputs}
    logits = [piece.logits for piece in pieces if piece.logits is not None]
    return Answers(outputs, np.concatenate(logits) if logits else None)


def part(answers: Answers, rows: slice | npt.NDArray[Any]) -> Answers:
    """To these rows alone."""
    outputs = {name: array[rows] for name, array in answers.outputs.items()}
    return Answers(outputs, None if answers.logits is None else answers.logits[rows])


def alike(mine: Answers, its: Answers) -> bool:
    """As the proof judges them. Raises ParityFailed where they are not of one form."""
    differences = Differences("")
    differences.add(mine, its)
    return TOLERANCE.holds(differences.parity("", ()), "none")
