"""A converted model, run here and now, against the answers that its original gave when it was converted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.config import ModelConfig
from tensign.errors import ParityFailed
from tensign.example import saved_example
from tensign.model import Model
from tensign.plan import ModelPlan
from tensign.proof.parity import Answers, Differences, Parity
from tensign.proof.record import Record, digest, padded, thinned
from tensign.proof.rows import read_rows
from tensign.proof.samples import Sample, Samples, samples


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of it; device: where it ran."""

    record: Record
    parity: Parity
    device: str


def verify(path: Path | str, config: ModelConfig | None = None) -> Verified:
    """Runs what is served, host preprocessing included, on the rows that the conversion was proved with.

    Raises ParityFailed where a file was changed since or an answer is beyond the tolerance, UnsupportedModel where the
    directory carries no proof, and what loading raises.
    """
    directory = Path(path)
    record, expected = Record.read(directory)
    changed = [name for name, known in record.files.items() if not _unchanged(directory / name, known)]
    if changed:
        raise ParityFailed(f"{directory}: not what was proved: {', '.join(changed)} changed since or missing")
    model = Model.load(directory, config or ModelConfig())
    try:
        parity = _compared(model, tried(model.plan, record.crops), record, expected)
    finally:
        model.close(5)
    proof = record.proofs["fp32"]
    if not proof.tolerance.holds(parity, model.plan.activation):
        raise ParityFailed(f"{directory}: on this machine it does not predict as its original did: {parity}")
    return Verified(record, parity, model.device)


def tried(plan: ModelPlan, crops: int) -> Samples:
    """The rows that a converted model was proved with: those that were kept, else what its signature is tried with."""
    kept = read_rows(plan.manifest.path, plan.signature)
    return kept or samples(plan.signature, plan.preprocess, saved_example(plan.manifest, plan.signature), crops)


def _unchanged(file: Path, known: str) -> bool:
    return file.is_file() and digest(file) == known


def _compared(model: Model, rows: Samples, record: Record, expected: dict[str, npt.NDArray[Any]]) -> Parity:
    plan, batches = model.plan, record.proofs["fp32"].parity.batches
    if {len(answers) for answers in expected.values()} != {len(rows)} or set(expected) != {
        out.name for out in plan.signature.outputs
    }:
        raise ParityFailed("the answers that were kept are not of the rows that this tensign tries; convert the model again")
    whole = all(len(out.shape) == 2 and 0 <= out.shape[1] <= expected[out.name].shape[1] for out in plan.signature.outputs)
    differences, at = Differences(plan.task if whole else "", plan.threshold), 0
    for chunk in rows.chunks(batches):
        given = model.infer(stacked(chunk))
        wanted = {name: answers[at : at + len(chunk)] for name, answers in expected.items()}
        thin = {name: padded(thinned(np.asarray(given[name])), answers.shape[1]) for name, answers in wanted.items()}
        differences.add(Answers(thin), Answers(wanted))
        at += len(chunk)
    return differences.parity(rows.told, batches)


def stacked(chunk: list[Sample]) -> dict[str, npt.NDArray[Any]]:
    """Rows -> what `Model.infer` takes: [n,...] of each input, files as their bytes."""
    batch: dict[str, npt.NDArray[Any]] = {}
    for name, first in chunk[0].items():
        if isinstance(first, Path):
            column = np.empty(len(chunk), object)
            column[:] = [sample[name].read_bytes() for sample in chunk]
            batch[name] = column
        else:
            batch[name] = np.stack([np.asarray(sample[name]) for sample in chunk])
    return batch
