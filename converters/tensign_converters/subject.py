"""Subject: any model, taken apart so far that it can be written as ONNX and held against what it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tensign.preprocess import PreprocessSpec
from tensign.proof.parity import FULL_PRECISION, Answers, Tolerance
from tensign.proof.samples import Sample, Samples
from tensign.signature import Signature


@dataclass(frozen=True, slots=True)
class Head:
    """activation: "softmax", "sigmoid" or "none", along `axis` where that matters.

    task: "classification", "multilabel", "segmentation" (classes on axis 1 of [n,C,H,W]), "regression" (labels are empty) or,
    where nobody says, ""; threshold: of a multi-label model, above it a label counts.
    """

    task: str = ""
    activation: str = "none"
    axis: int = -1
    labels: tuple[str, ...] = ()
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, and what there is to hold its conversion against.

    signature: of the converted model; write: writes one ONNX file, the same bytes every time;
    answers: what the original says to n rows; preprocess: what the host does before the graph, None where rows reach it as they
    are; against: whose answers those are; unchecked: what no comparison with them can show; rows: what is tried, None for what
    any model of that signature is tried with; tolerance: beyond which it is refused.
    """

    signature: Signature
    write: Callable[[Path], None]
    answers: Callable[[Sequence[Sample]], Answers]
    preprocess: PreprocessSpec | None
    head: Head
    versions: Mapping[str, str]
    against: str
    unchecked: tuple[str, ...] = ()
    rows: Samples | None = None
    tolerance: Tolerance = FULL_PRECISION
