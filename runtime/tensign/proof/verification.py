"""A converted model, run here and now, against the answers that its original gave when it was converted."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.choice import inside
from tensign.config import ModelConfig
from tensign.errors import ModelNotFound, ParityFailed, UnsupportedModel
from tensign.example import saved_example
from tensign.mlmodel import ModelManifest, read_mlmodel
from tensign.model import Model
from tensign.plan import ModelPlan
from tensign.proof.parity import Answers, Differences, Parity, Tolerance
from tensign.proof.record import (
    ANSWERS_FILE,
    CALIBRATED,
    RECORD_FILE,
    Proof,
    Record,
    allowed,
    declared,
    digest,
    padded,
    thinned,
)
from tensign.proof.rows import read_rows
from tensign.proof.samples import Sample, Samples, samples

_WIDER, _LESS = 1.5, 0.02  # other processors round otherwise: of differences, and of the labels' agreement
_FURTHER, _NOTHING = 2.0, 1e-6  # of the mean difference, which no single row moves; no less than that


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of it; device: where it ran."""

    record: Record
    parity: Parity
    device: str


def verify(path: Path | str, config: ModelConfig | None = None) -> Verified:
    """Runs what is served, host preprocessing included, on the rows that the conversion was proved with.

    A calibrated variant that was judged on others is to differ on those rows no more than it did then, or than it may.
    Raises ParityFailed where a file was changed since or an answer is beyond the tolerance, UnsupportedModel where the
    directory carries no proof, or one that proves less than a conversion must, and what loading raises.
    """
    directory = Path(path)
    if not directory.exists():
        raise ModelNotFound(f"{directory}: no such directory; give one that tensign convert wrote")
    record, expected = Record.read(directory)
    manifest = read_mlmodel(directory)
    changed = [name for name, known in record.files.items() if not _unchanged(manifest, name, known)]
    changed += ["what the MLmodel declares"] * (declared(directory) != record.declared)
    if changed:
        raise ParityFailed(f"{directory}: not what was proved: {', '.join(changed)} changed since or missing")
    config = config or ModelConfig()
    model = Model.load(directory, config)
    try:
        _check(model.plan, record)
        proof = record.proofs.get(config.variant)
        if proof is None:
            raise UnsupportedModel(f"{directory}: variant {config.variant}: {RECORD_FILE} has no proof of it")
        parity = _compared(model, tried(model.plan, record.crops), proof.parity.batches, expected)
    finally:
        model.close(5)
    alike = _tolerance(proof, config.variant, model.plan.activation).holds(parity, model.plan.activation)
    if not (alike and _as_far(proof, parity)):
        which = "it" if config.variant == "fp32" else f"its {config.variant} variant"
        raise ParityFailed(f"{directory}: on this machine {which} does not predict as its original did: {parity}")
    return Verified(record, parity, model.device)


def _tolerance(proof: Proof, variant: str, activation: str) -> Tolerance:
    """Of rows that are made again here: what it was judged by, or, where it was not judged on them, what it was then.

    A variant was measured on its logits, which are not kept: below an activation its relative difference is another.
    """
    most, then = proof.tolerance, proof.parity
    if variant != "fp32" and activation != "none":
        most = replace(most, relative=math.inf)
    if proof.held is None or variant not in CALIBRATED:
        return most
    return Tolerance(
        max(most.difference, _WIDER * then.max_difference),
        max(most.relative, _WIDER * then.relative_difference),
        min(most.agreement, (then.top1_agreement or 0.0) - _LESS),
    )


def _as_far(proof: Proof, parity: Parity) -> bool:
    """Whether answers that labels alone were to judge, by labels that nobody can count here or that were wrong then too, are on
    the mean about as far off as then."""
    if not proof.tolerance.agreement or (parity.top1_agreement is not None and proof.held is None):
        return True
    return parity.mean_difference <= _FURTHER * proof.parity.mean_difference + _NOTHING


def tried(plan: ModelPlan, crops: int) -> Samples:
    """The rows that a converted model was proved with: those that were kept, else what its signature is tried with."""
    kept = read_rows(plan.manifest.path, plan.signature)
    return kept or samples(plan.signature, plan.preprocess, saved_example(plan.manifest, plan.signature), crops)


def _unchanged(manifest: ModelManifest, name: str, known: str) -> bool:
    try:
        return digest(inside(manifest, name)) == known
    except UnsupportedModel:  # no such file
        return False


def _check(plan: ModelPlan, record: Record) -> None:
    """That the record is of all that is run, and allows no more than a conversion may."""
    labels = plan.manifest.flavors[plan.flavor].get("labels")
    wanted = {plan.file.relative_to(plan.manifest.path).as_posix(), *[str(labels)] * (labels is not None)}
    if not wanted | {proof.file for proof in record.proofs.values()} <= record.files.keys():
        known = ", ".join(record.files) or "none"
        raise UnsupportedModel(f"{RECORD_FILE}: files: wanted {', '.join(sorted(wanted))} and what was proved, got {known}")
    for name, proof in record.proofs.items():
        most = asdict(allowed(name, plan.task))
        for key, value in asdict(proof.tolerance).items():
            if value < most[key] if key == "agreement" else value > most[key]:
                bound = "least" if key == "agreement" else "most"
                told = f"wanted at {bound} {most[key]:g}, got {value:g}"
                raise UnsupportedModel(f"{RECORD_FILE}: proofs.{name}.tolerance.{key}: {told}")
        uncounted = proof.held is not None and proof.held.top1_agreement is None
        if uncounted and proof.tolerance.agreement and record.proofs["fp32"].parity.top1_agreement is not None:
            raise UnsupportedModel(f"{RECORD_FILE}: proofs.{name}.held.top1_agreement: wanted a share, as of fp32, got none")
        if proof.held and (name == "fp32" or not proof.tolerance.holds(proof.held, plan.activation)):
            raise UnsupportedModel(f"{RECORD_FILE}: proofs.{name}.held: wanted what its tolerance allows, and none of fp32")


def _compared(model: Model, rows: Samples, batches: tuple[int, ...], expected: dict[str, npt.NDArray[Any]]) -> Parity:
    plan = model.plan
    outputs = {out.name: out for out in plan.signature.outputs}
    if {len(answers) for answers in expected.values()} != {len(rows)} or expected.keys() != outputs.keys():
        raise ParityFailed("the answers that were kept are not of the rows that this tensign tries; convert the model again")
    whole = all(len(out.shape) == 2 and 0 <= out.shape[1] <= expected[out.name].shape[1] for out in plan.signature.outputs)
    differences, at = Differences(plan.task if whole else "", plan.threshold), 0
    with np.errstate(all="ignore"):  # what overflows is beyond any tolerance
        for chunk in rows.chunks(batches):
            given = model.infer(stacked(chunk))
            wanted = {name: answers[at : at + len(chunk)] for name, answers in expected.items()}
            thin = {name: _like(answers, thinned(np.asarray(given[name])), name) for name, answers in wanted.items()}
            differences.add(Answers(thin), Answers(wanted))
            at += len(chunk)
        return differences.parity(rows.told, batches)


def _like(kept: npt.NDArray[Any], given: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """What is given, as wide as what was kept."""
    if given.shape[1] > kept.shape[1] or (given.dtype.kind == "U") != (kept.dtype.kind == "U"):
        told = [f"{array.dtype.name} [rows,{array.shape[1]}]" for array in (kept, given)]
        raise ParityFailed(f"{ANSWERS_FILE}: {name}: the original answered {told[0]}, the model answers {told[1]}")
    return padded(given, kept.shape[1])


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
