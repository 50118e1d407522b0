"""An MLmodel of scikit-learn -> Subject, with rows to prove it on: columns in, and out what its signature promises."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import is_classifier

from tensign.example import example_rows
from tensign.mlmodel import ModelManifest
from tensign.values import is_missing
from tensign_converters.agreement import Agreement, agree, answered
from tensign_converters.columns import exported
from tensign_converters.heads import Head
from tensign_converters.original import Original, read_original
from tensign_converters.rows import Rows, rows
from tensign_converters.sklearngraph import named
from tensign_converters.subject import Sample, Subject

_EXAMPLE = "input_example.json"


@dataclass(frozen=True, slots=True)
class Tabular:
    """model: the serialized graph; asked: the rows that it is proved on; notes: what is to be known of how it was read and
    converted."""

    subject: Subject
    original: Original
    model: bytes
    asked: Rows
    notes: tuple[str, ...]

    @property
    def samples(self) -> list[Sample]:
        """The rows one by one."""
        count = len(next(iter(self.asked.table.values())))
        return [{name: array[row] for name, array in self.asked.table.items()} for row in range(count)]

    def prove(self) -> Agreement:
        """Raises ParityFailed."""
        return agree(self.original, self.model, self.asked)

    def save_example(self, folder: Path) -> dict[str, Any] | None:
        """Writes a row that the original answers, and gives what the MLmodel says of it: a model that refuses what it does not
        know cannot be warmed up with zeros. None for tensors."""
        if not self.original.signature.columnar:
            return None
        row = next(one for one in self.samples if not any(map(is_missing, one.values())))
        data = [value.item() if isinstance(value, np.generic) else value for value in row.values()]
        (folder / _EXAMPLE).write_text(json.dumps({"columns": list(row), "data": [data]}), encoding="utf-8")
        return {"artifact_path": _EXAMPLE, "pandas_orient": "split", "type": "dataframe"}


def read_tabular(manifest: ModelManifest, *, trust: bool) -> Tabular:
    """Raises UntrustedModel where reading it would run its code and `trust` is False, UnsupportedModel for what has no
    counterpart, which it names."""
    original = read_original(manifest, trust=trust)
    estimator, method = original.estimator, original.engine.method
    example = example_rows(manifest, original.signature)
    whole = example if example is not None and len(example) == len(original.signature.inputs) else None
    asked = rows(original, whole)
    model, precision = exported(estimator, original.signature, method, asked.refused)
    notes = [*original.notes]
    if precision == "float":
        notes.append("the last step runs in float32: ONNX Runtime has it in no other precision")

    def write(target: Path) -> None:
        target.write_bytes(model)

    def answers(samples: Sequence[Sample]) -> dict[str, npt.NDArray[Any]]:
        specs = original.signature.inputs
        return answered(original, {spec.name: np.array([one[spec.name] for one in samples], spec.dtype) for spec in specs})

    signature = {part: text for part, text in manifest.document["signature"].items() if text is not None}
    classes = tuple(map(str, estimator.classes_)) if method == "predict_proba" else ()
    head = Head("classification" if is_classifier(estimator) else "regression", "none", -1, classes, None)
    against = f"the original {named(estimator)} in scikit-learn {original.versions['scikit-learn']}"
    subject = Subject(signature, write, answers, None, head, original.versions, against)
    return Tabular(subject, original, model, asked, tuple(notes))
