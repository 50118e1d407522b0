"""How far two models' answers lie apart, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LOGITS, NETWORK_INPUT = "logits", "network_input"  # what converters call these two tensors within a graph


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says to n rows: outputs by name, [n,...], and, where it tells them, what stands below the activation and
    what its network was given."""

    outputs: Mapping[str, npt.NDArray[Any]]
    logits: npt.NDArray[Any] | None = None
    network_input: npt.NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class Parity:
    """Greatest and mean absolute differences of the outputs, original to converted.

    inputs: what was tried, in words; relative_difference: of the logits, or of the outputs where nothing stands on them, row by
    row to the row's largest; where that is less, to what is usual for rows, or 1. spread: the greatest difference of such a
    value between two rows; where that is next to nothing nothing is proved. network_input_difference: of what the network is
    given, None where the original does not tell. top1_agreement: of the best class of each row or pixel, of a multi-label
    model of the labels above the threshold, of other outputs than floats of every value, 0 to 1; None where there are none.
    """

    inputs: str
    rows: int
    batches: tuple[int, ...]
    max_difference: float
    mean_difference: float
    relative_difference: float
    spread: float
    network_input_difference: float | None
    top1_agreement: float | None

    def document(self) -> dict[str, Any]:
        """As it is kept."""
        return {**asdict(self), "batches": list(self.batches)}

    def __str__(self) -> str:
        agreement = "" if self.top1_agreement is None else f", top-1 agreement {self.top1_agreement:.1%}"
        return (
            f"greatest difference {self.max_difference:.1e}, relative to the row's logits {self.relative_difference:.1e}"
            f"{agreement}, on {self.inputs}"
        )


class Differences:
    """Takes both sides' answers chunk by chunk and keeps what the rows differ by.

    task: as in a plan; threshold: of a multi-label model.
    """

    def __init__(self, task: str, threshold: float | None = None) -> None:
        self._task, self._threshold = task, 0.5 if threshold is None else threshold
        self.greatest: list[float] = []  # of each row
        self._sums: list[float] = []
        self._apart: list[float] = []
        self._largest: list[float] = []
        self._lowest: npt.NDArray[Any] | None = None
        self._highest: npt.NDArray[Any] | None = None
        self._given: list[float] = []
        self._agreed: list[float] = []

    def add(self, converted: Answers, original: Answers) -> None:
        """Both sides' answers to the same n rows, with the same outputs."""
        mine, its = converted.outputs, original.outputs
        floats = [name for name in its if its[name].dtype.kind == "f"]
        rows = len(next(iter(its.values())))
        apart = [_rows(mine[name]) - _rows(its[name]) for name in floats]
        joined = np.abs(np.concatenate(apart, axis=1)) if apart else np.zeros((rows, 1))
        self.greatest += joined.max(axis=1).tolist()
        self._sums += joined.mean(axis=1).tolist()
        if converted.logits is not None and original.logits is not None:
            self._score(_rows(converted.logits), _rows(original.logits))
        elif floats:
            self._score(_rows(mine[floats[0]]), _rows(its[floats[0]]))
        if converted.network_input is not None and original.network_input is not None:
            self._given.append(float(np.abs(converted.network_input - original.network_input).max()))
        for name in its:
            if name not in floats:
                self._agreed += (_rows(mine[name]) == _rows(its[name])).mean(axis=1).tolist()
            elif self._task == "multilabel":
                same = (_rows(mine[name]) > self._threshold) == (_rows(its[name]) > self._threshold)
                self._agreed += same.all(axis=1).tolist()
            elif self._task in ("classification", "segmentation"):
                self._agreed += _rows(mine[name].argmax(1) == its[name].argmax(1)).mean(axis=1).tolist()

    def _score(self, converted: npt.NDArray[Any], original: npt.NDArray[Any]) -> None:
        self._apart += np.abs(converted - original).max(axis=1).tolist()
        self._largest += np.abs(original).max(axis=1).tolist()
        low, high = original.min(axis=0), original.max(axis=0)
        same = self._lowest is not None and self._lowest.shape == low.shape  # not so where pictures of two sizes are mapped
        self._lowest = np.minimum(self._lowest, low) if same and self._lowest is not None else low
        self._highest = np.maximum(self._highest, high) if same and self._highest is not None else high

    def parity(self, inputs: str, batches: tuple[int, ...]) -> Parity:
        """Of all rows so far."""
        largest = np.array(self._largest)
        scale = np.maximum(largest, max(1.0, float(np.median(largest)))) if self._largest else np.ones(1)
        spread = 0.0 if self._highest is None or self._lowest is None else float((self._highest - self._lowest).max())
        return Parity(
            inputs,
            len(self.greatest),
            batches,
            _greatest(self.greatest),
            float(np.mean(self._sums)),
            _greatest((np.array(self._apart) / scale).tolist()) if self._apart else 0.0,
            spread,
            _greatest(self._given) if self._given else None,
            float(np.mean(self._agreed)) if self._agreed else None,
        )


def _greatest(values: list[float]) -> float:
    return float(np.max(values))  # NaN stays NaN, which is within no tolerance


def _rows(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[n,...] -> [n,values], floats in double precision."""
    flat = array.reshape(len(array), -1)
    return flat.astype(np.float64) if flat.dtype.kind == "f" else flat


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What is refused beyond: difference, of probabilities; relative, of logits (see Parity); below agreement, of the best
    classes. Probabilities saturate, and a wrong preprocessing hides behind 1.000; logits do not."""

    difference: float
    relative: float
    agreement: float = 0.0

    def holds(self, parity: Parity, activation: str) -> bool:
        """activation: of the model; without one, outputs have no fixed scale, and only the relative difference counts."""
        alike = parity.relative_difference <= self.relative  # NaN is not alike
        alike = alike and (parity.top1_agreement is None or parity.top1_agreement >= self.agreement)
        return alike and (activation == "none" or parity.max_difference <= self.difference)

    def __str__(self) -> str:
        agreement = f", and agreement from {self.agreement:.0%} on" if self.agreement else ""
        return f"a difference to {self.difference:g}, relative to {self.relative:g}{agreement}"


FULL_PRECISION = Tolerance(1e-4, 1e-4)
