"""Subject: a model, taken apart so far that it can be written as ONNX and held against what it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from tensign.preprocess import PreprocessSpec
from tensign_converters.heads import Head

Sample = Mapping[str, Any]  # one row for the model's inputs: input -> array without the row axis, a picture's file, or a scalar


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, taken apart so far that it can be written as ONNX and held against what it was."""

    signature: Mapping[str, str]
    write: Callable[[Path], None]
    answers: Callable[[Sequence[Sample]], dict[str, npt.NDArray[Any]]]
    preprocess: PreprocessSpec | None
    head: Head
    versions: Mapping[str, str]
    against: str
