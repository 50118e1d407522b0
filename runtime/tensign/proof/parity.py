"""How far two models' answers lie apart, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.errors import ParityFailed

_KINDS = {"f": "floats", **dict.fromkeys("iub", "numbers"), **dict.fromkeys("OSU", "text")}
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

    inputs: what was tried, in words; relative_difference: of the logits, and of each output that does not stand on them, row
    by row to the row's largest; where that is less, to what is usual for rows. spread: the least, over these, of the greatest
    difference of a value between two rows; where that is next to nothing nothing is proved. network_input_difference: of what
    the network is given, None where the original does not tell. top1_agreement: of the best
    class of each row or pixel, of a multi-label model of the labels above the threshold, 0 to 1; None where there are no
    classes. equal_values: the share of values that are the same, of outputs that are no floats; None where there are none.
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
    equal_values: float | None

    def document(self) -> dict[str, Any]:
        """As it is kept."""
        return {**asdict(self), "batches": list(self.batches)}

    def __str__(self) -> str:
        agreement = "" if self.top1_agreement is None else f", top-1 agreement {self.top1_agreement:.1%}"
        equal = "" if self.equal_values is None else f", {self.equal_values:.1%} of labels and whole numbers equal"
        return (
            f"greatest difference {self.max_difference:.1e}, relative to the row's largest {self.relative_difference:.1e}"
            f"{agreement}{equal}, on {self.inputs}"
        )


class Differences:
    """Takes both sides' answers chunk by chunk and keeps what the rows differ by.

    task: as in a plan; threshold: of a multi-label model.
    """

    def __init__(self, task: str, threshold: float | None = None) -> None:
        self._task, self._threshold = task, 0.5 if threshold is None else threshold
        self.greatest: list[float] = []  # of each row
        self._means: list[float] = []
        self._scores: dict[str, _Scores] = {}  # by output; of the logits under ""
        self._given: list[float] = []
        self._agreed: list[float] = []
        self._equal: list[float] = []

    def add(self, converted: Answers, original: Answers) -> None:
        """Both sides' answers to the same n rows. Raises ParityFailed where outputs, shapes or kinds are not the same."""
        mine, its = converted.outputs, original.outputs
        for name in its:
            _check_alike(name, mine.get(name), its[name])
        rows, floats = len(next(iter(its.values()))), [name for name in its if its[name].dtype.kind == "f"]
        apart = [_apart(_rows(mine[name]), _rows(its[name])) for name in floats]
        joined = np.concatenate(apart, axis=1) if apart else np.zeros((rows, 1))
        self.greatest += joined.max(axis=1).tolist()
        self._means += joined.mean(axis=1).tolist()
        if converted.logits is not None and original.logits is not None:
            _check_alike("logits", converted.logits, original.logits)
            self._scores.setdefault("", _Scores(1.0)).add(converted.logits, original.logits)
            floats = [name for name in floats if its[name].shape != original.logits.shape]  # an activation keeps the shape
        for name in floats:
            self._scores.setdefault(name, _Scores(0.0)).add(mine[name], its[name])
        if converted.network_input is not None and original.network_input is not None:
            _check_alike("the network's input", converted.network_input, original.network_input)
            self._given.append(float(np.abs(converted.network_input - original.network_input).max()))
        for name in its:
            self._agree(mine[name], its[name])

    def _agree(self, mine: npt.NDArray[Any], its: npt.NDArray[Any]) -> None:
        if its.dtype.kind != "f":
            self._equal += (_rows(mine) == _rows(its)).mean(axis=1).tolist()
        elif self._task == "multilabel":
            self._agreed += ((_rows(mine) > self._threshold) == (_rows(its) > self._threshold)).all(axis=1).tolist()
        elif self._task in ("classification", "segmentation"):
            self._agreed += _rows(mine.argmax(1) == its.argmax(1)).mean(axis=1).tolist()

    def parity(self, inputs: str, batches: tuple[int, ...]) -> Parity:
        """Of all rows so far."""
        return Parity(
            inputs,
            len(self.greatest),
            batches,
            _greatest(self.greatest),
            float(np.mean(self._means)),
            _greatest([scores.relative() for scores in self._scores.values()]),
            min((scores.spread for scores in self._scores.values()), default=0.0),
            _greatest(self._given) if self._given else None,
            float(np.mean(self._agreed)) if self._agreed else None,
            float(np.mean(self._equal)) if self._equal else None,
        )


class _Scores:
    """Of one output: how far its rows are apart, and how large they are. least: what counts as no less than usual."""

    def __init__(self, least: float) -> None:
        self._least = least
        self._apart: list[float] = []
        self._largest: list[float] = []
        self._low = self._high = np.zeros(0)
        self.spread = 0.0

    def add(self, converted: npt.NDArray[Any], original: npt.NDArray[Any]) -> None:
        mine, its = _rows(converted), _rows(original)
        self._apart += _apart(mine, its).max(axis=1).tolist()
        self._largest += np.abs(its).max(axis=1).tolist()
        low, high = its.min(axis=0), its.max(axis=0)
        if self._low.shape == low.shape:  # not so where pictures of two sizes are mapped
            low, high = np.minimum(self._low, low), np.maximum(self._high, high)
        self._low, self._high = low, high
        self.spread = max(self.spread, float((high - low).max()))

    def relative(self) -> float:
        usual = max(self._least, float(np.median(self._largest)))
        scale = np.maximum(self._largest, usual)
        return _greatest((np.array(self._apart) / np.where(scale > 0, scale, 1)).tolist())


def _check_alike(name: str, mine: npt.NDArray[Any] | None, its: npt.NDArray[Any]) -> None:
    if mine is None or mine.shape != its.shape or _KINDS.get(mine.dtype.kind) != _KINDS.get(its.dtype.kind):
        came = "nothing" if mine is None else f"{mine.dtype} {list(mine.shape)}"
        raise ParityFailed(f'"{name}": the original gives {its.dtype} {list(its.shape)}, the converted model {came}')


def _apart(mine: npt.NDArray[Any], its: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Absolute differences; of the same infinity on both sides none."""
    with np.errstate(invalid="ignore"):
        return np.where(mine == its, 0.0, np.abs(mine - its))


def _greatest(values: list[float]) -> float:
    return float(np.max(values, initial=0))  # NaN stays NaN, which is within no tolerance


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
        alike = parity.relative_difference <= self.relative and parity.equal_values in (None, 1.0)  # NaN is not alike
        alike = alike and (parity.top1_agreement is None or parity.top1_agreement >= self.agreement)
        return alike and (activation == "none" or parity.max_difference <= self.difference)

    def __str__(self) -> str:
        agreement = f", and agreement from {self.agreement:.0%} on" if self.agreement else ""
        return f"a difference to {self.difference:g}, relative to {self.relative:g}{agreement}"


FULL_PRECISION = Tolerance(1e-4, 1e-4)
