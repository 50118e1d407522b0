"""An MLmodel of scikit-learn -> Subject, with rows to prove it on: columns in, and out what its signature promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tensign.example import saved_example
from tensign.mlmodel import ModelManifest
from tensign.proof.parity import Answers
from tensign.proof.samples import Sample, Samples
from tensign_converters.prove import BATCHES, Converted
from tensign_converters.subject import Head, Subject
from tensign_converters.tables.answers import TOLERANCE, joined, part
from tensign_converters.tables.columns import exported
from tensign_converters.tables.original import Original, read_original, single_threaded
from tensign_converters.tables.refusals import check_refusals
from tensign_converters.tables.rows import Rows, listed, rows
from tensign_converters.tables.sklearngraph import named
from tensign_converters.tables.thresholds import at_threshold


@dataclass(frozen=True, slots=True)
class Tabular:
    """model: the serialized graph; asked: the rows that it is tried on; notes: what is to be known of how it was read and
    converted."""

    original: Original
    model: bytes
    asked: Rows
    notes: tuple[str, ...]

    @single_threaded()
    def subject(self) -> Subject:
        """With the rows that it is to be proved on. Raises ParityFailed where the graph answers what the original refuses."""
        rows = listed(self.asked.table)
        subject = self._of(rows)
        with TemporaryDirectory() as folder:
            subject.write(file := Path(folder) / "model.onnx")
            converted = Converted(file, subject)
        check_refusals(self.model, [converted.feeds(listed(table)) for table in self.asked.refusals])
        names = list(self.asked.answers.outputs)
        mine = joined([converted.answers(chunk, names) for chunk in self._samples(rows).chunks(BATCHES)])
        left_out = at_threshold(self.original, mine, self.asked)
        if not left_out:
            return subject
        kept = self._samples([row for at, row in enumerate(rows) if at not in left_out])
        told = f"{len(left_out)} rows at a threshold of the original, where a float32 step decides"
        return replace(subject, rows=kept, unchecked=(*self.notes, told))

    def _of(self, rows: list[Sample]) -> Subject:
        engine, estimator = self.original.engine, self.original.estimator
        classes = tuple(map(str, estimator.classes_)) if engine.method == "predict_proba" else ()
        return Subject(
            self.original.signature,
            self._write,
            partial(self._answers, rows),
            None,
            Head("classification" if classes else "", "none", -1, classes),
            self.original.versions,
            self._against(),
            self.notes,
            self._samples(rows),
            TOLERANCE,
            "a model of columns has none: its thresholds and one-hot words do not bear rounding",
        )

    def _samples(self, rows: Sequence[Sample]) -> Samples:
        makers = tuple((f"row {at}", partial(_itself, row)) for at, row in enumerate(rows))
        return Samples(makers, f"{len(rows)} rows: {self.asked.said}")

    def _against(self) -> str:
        """Whose answers those are, and what is held against it beyond the outputs."""
        probabilities = ", its probabilities too, which stay inside"
        refusals = f"; {len(self.asked.refusals)} rows that it refuses were refused"
        return (
            f"the original {named(self.original.estimator)} in scikit-learn {self.original.versions['scikit-learn']}"
            f"{probabilities * self.original.gives_probabilities}{refusals * bool(self.asked.refusals)}"
        )

    def _write(self, target: Path) -> None:
        target.write_bytes(self.model)

    def _answers(self, rows: list[Sample], samples: Sequence[Sample]) -> Answers:
        """Of the rows that were asked, as they were answered, many at once: a DataFrame of one row may have other types."""
        places = {id(row): at for at, row in enumerate(rows)}
        found = [places.get(id(sample)) for sample in samples]
        if None not in found:
            return part(self.asked.answers, np.array(found))
        specs = self.original.signature.inputs
        table = {spec.name: np.array([one[spec.name] for one in samples], spec.dtype) for spec in specs}
        return self.original.answered(table)


def _itself(row: Sample) -> Sample:
    return row


def read_tabular(manifest: ModelManifest, *, trust: bool) -> Tabular:
    """Raises UntrustedModel where reading it would run its code and `trust` is False, UnsupportedModel for what has no
    counterpart, which it names."""
    original = read_original(manifest, trust=trust)
    example = saved_example(manifest, original.signature)
    whole = example if example is not None and len(example) == len(original.signature.inputs) else None
    asked = rows(original, whole)
    model, precision = exported(original.estimator, original.signature, original.engine.method, asked.refused)
    notes = [*original.notes]
    if precision == "float":
        notes.append("the last step runs in float32: ONNX Runtime has it in no other precision")
    return Tabular(original, model, asked, tuple(notes))
