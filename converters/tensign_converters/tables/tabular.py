"""An MLmodel of scikit-learn -> Subject, with rows to prove it on: columns in, and out what its signature promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from tensign.example import saved_example
from tensign.mlmodel import ModelManifest
from tensign.proof.parity import Answers, Tolerance
from tensign.proof.samples import Sample, Samples
from tensign_converters.subject import Head, Subject
from tensign_converters.tables.agreement import TOLERANCE, Agreement, agree
from tensign_converters.tables.columns import exported
from tensign_converters.tables.original import Original, Table, read_original
from tensign_converters.tables.rows import Rows, rows
from tensign_converters.tables.sklearngraph import named


@dataclass(frozen=True, slots=True)
class Tabular:
    """model: the serialized graph; asked: the rows that it is proved on; notes: what is to be known of how it was read and
    converted."""

    original: Original
    model: bytes
    asked: Rows
    notes: tuple[str, ...]

    def prove(self) -> Agreement:
        """Raises ParityFailed."""
        return agree(self.original, self.model, self.asked)

    def subject(self) -> Subject:
        """With the rows on which both agree, or could; raises ParityFailed where there are others."""
        agreement = self.prove()
        engine, estimator = self.original.engine, self.original.estimator
        classes = tuple(map(str, estimator.classes_)) if engine.method == "predict_proba" else ()
        table = self.asked.table
        compared = agreement.compared
        kept = [{name: array[row] for name, array in table.items()} for row in compared]
        left_out = f"{agreement.at_threshold} rows at a threshold of the original, where a float32 step decides"
        return Subject(
            self.original.signature,
            self._write,
            partial(self._answers, self.original.answers(table), {id(row): at for row, at in zip(kept, compared, strict=True)}),
            None,
            Head("classification" if classes else "", "none", -1, classes),
            self.original.versions,
            self._against(agreement),
            (*self.notes, *[left_out] * bool(agreement.at_threshold)),
            Samples(
                tuple((f"row {at}", partial(_itself, row)) for at, row in enumerate(kept)),
                f"{len(kept)} rows: {agreement.inputs}",
            ),
            Tolerance(TOLERANCE, TOLERANCE),
            "a model of columns has none: its thresholds and one-hot words do not bear rounding",
        )

    def _against(self, agreement: Agreement) -> str:
        """Whose answers those are, and what was found of them beyond the outputs."""
        probabilities = f"; its probabilities, which stay inside, differed by at most {agreement.max_difference:.1e}"
        refusals = f"; {agreement.refusals} rows that it refuses were refused"
        return (
            f"the original {named(self.original.estimator)} in scikit-learn {self.original.versions['scikit-learn']}"
            f"{probabilities * self.original.gives_probabilities}{refusals * bool(agreement.refusals)}"
        )

    def _write(self, target: Path) -> None:
        target.write_bytes(self.model)

    def _answers(self, known: Table, places: Mapping[int, int], samples: Sequence[Sample]) -> Answers:
        """Of the rows that were compared, as they were answered, all at once: a DataFrame of one row may have other types."""
        found = [places.get(id(sample)) for sample in samples]
        if None not in found:
            return Answers({name: array[np.array(found)] for name, array in known.items()})
        specs = self.original.signature.inputs
        table = {spec.name: np.array([one[spec.name] for one in samples], spec.dtype) for spec in specs}
        return Answers(self.original.answers(table))


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
