"""Scores -> labels: the best classes of each row, in numbers and in the protocol's own text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class and its score: a probability where the model ends in softmax or sigmoid."""

    label: str
    score: float
    index: int

    @classmethod
    def parse(cls, text: bytes) -> Prediction:
        """Reads "score:index:label", the form of the classification extension; where there is no label its index stands in."""
        score, index, *label = text.decode().split(":", 2)
        return cls(label[0] if label else index, float(score), int(index))


def classified(scores: npt.NDArray[Any], count: int, labels: Sequence[str] = ()) -> npt.NDArray[np.object_]:
    """[n,classes] -> BYTES [n,k], best first, each "score:index" or "score:index:label", as Triton writes it.

    Raises InvalidInput for scores of another rank.
    """
    if scores.ndim != 2:
        raise InvalidInput(f"classification needs an output of rank 2, got shape {list(scores.shape)}")
    if scores.dtype.kind not in "biuf":
        raise InvalidInput(f"classification needs an output of numbers, got {scores.dtype}")
    best = _best(scores, count)
    texts = np.empty(best.shape, object)
    for row, column in np.ndindex(*best.shape):
        index = int(best[row, column])
        label = f":{labels[index]}" if index < len(labels) else ""
        texts[row, column] = f"{scores[row, index]:f}:{index}{label}".encode()
    return texts


def predictions(scores: npt.NDArray[Any], count: int, labels: Sequence[str] = ()) -> list[list[Prediction]]:
    """[n,classes] -> for each row its `count` best classes, best first; where there is no label its index stands in."""
    return [
        [Prediction(labels[i] if i < len(labels) else str(i), float(row[i]), int(i)) for i in best]
        for row, best in zip(scores, _best(scores, count), strict=True)
    ]


def named(
    scores: npt.NDArray[Any], top: int, threshold: float | None = None, labels: Sequence[str] = (), task: str = ""
) -> list[list[Prediction]]:
    """What a user is told of each row.

    Of [n,classes] the `top` best classes, or, with a threshold, all that are above it; of a regression all values, in their
    order; of a segmentation, [n,classes,H,W], the classes that are the best of some pixel, with their share of all pixels.
    Of other shapes, and of no numbers, nothing.
    """
    if scores.dtype.kind not in "biuf":
        return [[] for _ in scores]
    if task == "segmentation" and scores.ndim == 4:
        shares = [[each for each in row if each.score] for row in predictions(_shares(scores), scores.shape[1], labels)]
        return [row[:top] for row in shares]
    if scores.ndim != 2:
        return [[] for _ in scores]
    if task == "regression":
        return [[Prediction(str(i), float(value), i) for i, value in enumerate(row)] for row in scores]
    if threshold is None:
        return predictions(scores, top, labels)
    return [[each for each in row if each.score > threshold] for row in predictions(scores, scores.shape[1], labels)]


def _best(scores: npt.NDArray[Any], count: int) -> npt.NDArray[np.intp]:
    """[n,classes] -> [n,k] indices, best first."""
    descending = -scores if scores.dtype.kind == "f" else ~scores  # of integers `-` wraps, `~` does not
    return np.argsort(descending, axis=1, kind="stable")[:, :count]


def _shares(scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """[n,classes,H,W] -> [n,classes]: of how many pixels, 0 to 1, a class is the best."""
    best = scores.argmax(axis=1)
    return np.stack([(best == index).mean(axis=(1, 2)) for index in range(scores.shape[1])], axis=1)
