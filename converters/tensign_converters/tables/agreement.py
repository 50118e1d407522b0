"""The proof for columns: the converted model and the original on the same rows, labels exactly, numbers closely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tensign.engines.onnx import text
from tensign.errors import ParityFailed
from tensign_converters.tables.columns import PROBABILITIES
from tensign_converters.tables.original import Original, Table, single_threaded
from tensign_converters.tables.rows import Rows

TOLERANCE = 1e-5  # of probabilities; of other numbers times their size
BATCHES = (1, 3, 16, 64)  # rows at a time, in turn
_MOST_AT_THRESHOLD = 0.05  # of the rows
_TIE = 1e-9

Differences = npt.NDArray[np.float64]  # row by row; infinite where labels are not the same


@dataclass(frozen=True, slots=True)
class Agreement:
    """compared: which of the rows asked were; rows: how many; answers: how many different ones the original gave;
    at_threshold: rows left out, at which the original itself answers otherwise where a number is one float32 step higher or
    lower, or at which two classes tie; refusals: rows that the original refuses, and the converted model with it.

    top1_agreement: of the rows whose labels are the same, 0 to 1; None where no labels are predicted.
    max_difference, mean_difference: of probabilities, or of the numbers that are predicted, relative to their size.
    """

    inputs: str
    rows: int
    batches: tuple[int, ...]
    tolerance: float
    max_difference: float
    mean_difference: float
    top1_agreement: float | None
    answers: int
    at_threshold: int
    refusals: int
    compared: tuple[int, ...]

    def __str__(self) -> str:
        labels = "" if self.top1_agreement is None else f", labels equal {self.top1_agreement:.0%}"
        left_out = f", {self.at_threshold} more at a threshold" * bool(self.at_threshold)
        refusals = f", {self.refusals} refused by both" * bool(self.refusals)
        return (
            f"greatest difference {self.max_difference:.1e} (tolerance {self.tolerance:g}){labels}, on {self.rows} rows of"
            f" {self.answers} answers{left_out}{refusals}: {self.inputs}"
        )


@single_threaded()
def agree(original: Original, model: bytes, asked: Rows) -> Agreement:
    """model: the serialized graph. Raises ParityFailed where it answers otherwise, or answers what the original refuses."""
    session = _session(model)
    got = _in_batches(session, asked.table)
    too_many = sum(_answers(session, row) for row in asked.refusals)
    if too_many:
        raise ParityFailed(f"the original refuses {len(asked.refusals)} rows, of which the converted one answers {too_many}")
    want = answered(original, asked.table)
    differences = {name: _difference(original, name, want[name], got[name]) for name in want}
    worst = np.max(list(differences.values()), axis=0)
    wrong = np.flatnonzero(worst > TOLERANCE).tolist()
    few = len(wrong) <= len(worst) * _MOST_AT_THRESHOLD
    at_threshold = [row for row in wrong if _turns(original, asked.table, row)] if few else []
    if at_threshold != wrong:
        raise ParityFailed(
            f"the converted model does not predict as the original: {len(wrong)} of {len(worst)} rows differ by more than"
            f" {TOLERANCE:g} or have another label, {len(at_threshold)} of them at a threshold: {asked.said}"
        )
    kept = np.setdiff1d(np.arange(len(worst)), at_threshold)
    labelled = [name for name in want if want[name].dtype.kind != "f"]
    numbers = [differences[name][kept] for name in want if name not in labelled] or [np.zeros(1)]
    return Agreement(
        asked.said,
        len(kept),
        BATCHES,
        TOLERANCE,
        float(np.max(numbers)),
        float(np.mean(numbers)),
        1.0 if labelled else None,
        len({str([array[row] for array in want.values()]) for row in kept}),
        len(at_threshold),
        len(asked.refusals),
        tuple(kept.tolist()),
    )


def _session(model: bytes) -> Any:
    """With what the graph keeps inside as an output, and silent where it refuses a row."""
    import onnxruntime

    opened, options = onnx.load_from_string(model), onnxruntime.SessionOptions()
    opened.graph.output.extend(opened.graph.value_info)
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(opened.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _in_batches(session: Any, table: Table) -> Table:
    count, at = len(next(iter(table.values()))), 0
    parts: list[list[npt.NDArray[Any]]] = []
    while at < count:
        size = BATCHES[len(parts) % len(BATCHES)]
        parts.append(session.run(None, _fed({name: array[at : at + size] for name, array in table.items()})))
        at += size
    pieces = zip(*parts, strict=True)
    return {node.name: np.concatenate(piece) for node, piece in zip(session.get_outputs(), pieces, strict=True)}


def _fed(table: Table) -> Table:
    """As the graph takes them: a column as [n,1]."""
    shaped = {name: array[:, None] if array.ndim == 1 else array for name, array in table.items()}
    return {name: text(array) if array.dtype.kind == "O" else array for name, array in shaped.items()}


def _answers(session: Any, table: Table) -> bool:
    try:
        session.run(None, _fed(table))
    except Exception:  # of onnxruntime, which have no base of their own
        return False
    return True


def answered(original: Original, table: Table) -> Table:
    """{output: [n,...]}, with PROBABILITIES besides where the original has them. Raises whatever the model raises."""
    answers = original.answers(table)
    return {**answers, PROBABILITIES: original.probabilities(table)} if original.gives_probabilities else answers


def _difference(original: Original, name: str, want: npt.NDArray[Any], got: npt.NDArray[Any]) -> Differences:
    if want.shape != got.shape:
        raise ParityFailed(f'"{name}": the original answers {list(want.shape)}, the converted model {list(got.shape)}')
    if want.dtype.kind != "f":
        return np.where((want == got).reshape(len(want), -1).all(axis=1), 0.0, np.inf)
    want, got = want.reshape(len(want), -1), got.reshape(len(got), -1)
    size = np.ones(1)
    if name != PROBABILITIES and original.engine.method == "predict":
        size = np.maximum(np.abs(want), max(float(np.median(np.abs(want))), 1e-9))
    with np.errstate(invalid="ignore"):
        apart = np.abs(want - got) / size
    alike = (want == got) | (np.isnan(want) & np.isnan(got))
    found: Differences = np.where(alike, 0.0, np.where(np.isnan(apart), np.inf, apart)).max(axis=1)
    return found


def _turns(original: Original, table: Table, row: int) -> bool:
    """Whether the original itself answers a row otherwise a float32 step beside it, or hardly knows which class it is."""
    one = {name: array[row : row + 1] for name, array in table.items()}
    want = answered(original, one)
    if original.gives_probabilities:
        best = np.sort(want[PROBABILITIES][0])[-2:]
        if len(best) == 2 and best[1] - best[0] < _TIE:
            return True
    beside = []
    for name, array in one.items():
        for place in np.ndindex(array.shape if array.dtype.kind == "f" else (0,)):
            for step in (-1, 1):
                changed = array.copy()
                changed[place] += step * np.spacing(np.abs(np.float32(array[place])))
                beside.append({**one, name: changed})
    for near in beside:
        found = answered(original, near)
        if any(_difference(original, name, want[name], found[name]).max() > TOLERANCE for name in want):
            return True
    return False
