"""Subject -> an MLmodel directory, proof included: a `tensign` flavor, and a `python_function` flavor that MLflow opens."""

from __future__ import annotations

import json
import platform
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx
import yaml

from tensign.choice import inside
from tensign.conversion import CROPS
from tensign.errors import InvalidConfig, UnsupportedModel
from tensign.example import saved_example
from tensign.mlmodel import ModelManifest
from tensign.proof.record import CALIBRATED, Proof, Record, digest
from tensign.proof.rows import example, write_rows
from tensign.proof.samples import samples
from tensign.proof.verdict import remarks
from tensign.version import __version__
from tensign_converters.precision.speed import speeds
from tensign_converters.precision.variants import write_variants
from tensign_converters.prove import FULL, Converted, prove_all
from tensign_converters.subject import Subject

EXAMPLE_FILE = "input_example.json"
MODEL_FILE, LABELS_FILE = "model.onnx", "labels.json"
_KEPT = ("artifact_path", "run_id", "saved_input_example_info")  # what stays true of the model when its files change
_ALIKE = 0.1  # of how far answers to photographs lie apart: of pictures like each other a variant is judged by next to nothing
_EXAMPLE_FILES = ("artifact_path", "serving_input_path")


def write_model(
    subject: Subject,
    target: Path,
    *,
    origin: Mapping[str, Any],
    source: ModelManifest | None = None,
    crops: int = CROPS,
    requirements: Sequence[str] = ("mlflow",),
    variants: Sequence[str] = (),
    calibrate: Path | None = None,
) -> str:
    """Writes, proves and records into the directory `target`; gives a report of a few lines.

    origin: where the model came from, kept with the versions; source: the MLmodel that it was, whose input example is tried and
    comes along; crops: how many pieces of photographs are tried; requirements: what MLflow has to install besides tensign;
    variants: "fp16", "int8", written and proved beside fp32; calibrate: pictures that the latter is calibrated on and both are
    judged on, each on its part of them.
    Raises UnsupportedModel or ParityFailed, InvalidConfig where there is nothing to calibrate on, or to try.
    """
    model = target / MODEL_FILE
    subject.write(model)
    signature = subject.signature
    saved = saved_example(source, signature) if source else None
    rows = subject.rows or samples(signature, subject.preprocess, saved, crops)
    if not len(rows):
        raise InvalidConfig("--crops 0: the model takes no pictures and was saved with no input example, so nothing is tried")
    varied = write_variants(subject, model, variants, calibrate, saved, rows)
    written = {FULL: model, **varied.files}
    proofs, answers = prove_all(subject, written, rows, varied.held)
    if varied.files:
        ratios = speeds(written, Converted(model, subject).feeds([rows[len(rows) - 1]]))
        proofs = {name: replace(proof, speed=ratios[name]) for name, proof in proofs.items()}
    proved = proofs[FULL]
    versions = {"tensign": __version__, **subject.versions, **_format(model)}
    made: dict[str, Any] = {"source": {**origin, "versions": versions}}
    if varied.calibrated:
        made["source"]["calibrated"] = varied.calibrated
    made["parity"] = {**proved.parity.document(), "against": subject.against}
    if varied.files:
        made["variants"] = {name: _told(proof) for name, proof in proofs.items() if name != FULL}
    _write_files(target, subject, source, made, [*requirements, f"tensign[cpu]=={__version__}"])
    names = [*(file.name for file in written.values()), LABELS_FILE]
    files = {name: digest(target / name) for name in names if (target / name).is_file()}
    unchecked = (*subject.unchecked, *_unproved(alike=subject.rows is None and _alike(proved)), *_unjudged(proofs))
    if subject.rows:
        write_rows(subject.rows, target)
    Record(made["source"], subject.against, unchecked, crops, files, proofs).write(target, answers)
    return "\n".join([*_report(subject, proved, unchecked), *_varied(proofs, varied.calibrated)])


def _format(model: Path) -> dict[str, int]:
    written = onnx.load(model, load_external_data=False)
    opset = next(each.version for each in written.opset_import if each.domain in ("", "ai.onnx"))
    return {"opset": opset, "ir": written.ir_version}


def _unproved(*, alike: bool) -> tuple[str, ...]:
    return ("other execution providers than the CPU's", *["much: answers hardly differ from row to row"] * alike)


def _alike(proved: Proof) -> bool:
    return proved.parity.spread < 100 * max(proved.tolerance.relative, proved.parity.relative_difference)


def _unjudged(proofs: Mapping[str, Proof]) -> Iterator[str]:
    for name, proof in proofs.items():
        if proof.held and proof.held.spread < _ALIKE * proofs[FULL].parity.spread:
            yield f"much of {name}: answers hardly differ from row to row of {proof.held.inputs}"


def _report(subject: Subject, proved: Proof, unchecked: tuple[str, ...]) -> list[str]:
    lines = [f"parity: {proved.parity}", f"against: {subject.against}", f"not checked: {'; '.join(unchecked)}"]
    if subject.preprocess is None:
        return lines
    return [f"preprocess: {'; '.join(map(str, (*subject.preprocess.steps, *subject.preprocess.graph)))}", *lines]


def _varied(proofs: Mapping[str, Proof], calibrated: str) -> Iterator[str]:
    for name, proof in proofs.items():
        if name != FULL:
            judged = proof.held or proof.parity
            told = f"{name}: {proof.bytes / 1e6:.2f} MB, {proof.speed:.1f} times the images/s of fp32 here, {judged}"
            yield "; ".join([told, *remarks(name, proof, calibrated)])
            if proof.held:
                yield f"{name} on {'rows that it is not judged by' if name in CALIBRATED else 'other rows'}: {proof.parity}"
    if calibrated:
        yield f"calibrated on: {calibrated}"


def _told(proof: Proof) -> dict[str, Any]:
    """A variant, as the MLmodel tells of it."""
    parity = proof.held or proof.parity
    return {
        "bytes": proof.bytes,
        "speed": proof.speed,
        "judged_on": parity.inputs,
        "max_difference": parity.max_difference,
        "top1_agreement": parity.top1_agreement,
    }


def _write_files(
    target: Path,
    subject: Subject,
    source: ModelManifest | None,
    made: Mapping[str, Any],
    requirements: list[str],
) -> None:
    head = subject.head
    flavor: dict[str, Any] = {"tensign_version": __version__, "model": MODEL_FILE, "activation": head.activation}
    if head.task:
        flavor["task"] = head.task
    if head.labels:
        names = json.dumps(head.labels, ensure_ascii=False, indent=0)
        (target / LABELS_FILE).write_text(f"{names}\n", encoding="utf-8")
        flavor["labels"] = LABELS_FILE
    if varied := {name: f"{Path(MODEL_FILE).stem}.{name}.onnx" for name in made.get("variants", ())}:
        flavor["variants"] = varied
    if head.threshold is not None:
        flavor["threshold"] = float(head.threshold)
    (target / "requirements.txt").write_text("".join(f"{each}\n" for each in requirements))
    python = platform.python_version()
    _write_yaml(target / "python_env.yaml", {"python": python, "dependencies": ["-r requirements.txt"]})
    conda = {
        "name": "tensign-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": requirements}],
    }
    _write_yaml(target / "conda.yaml", conda)
    known = source.document if source else {}
    metadata = dict(known.get("metadata") or {})
    metadata["tensign"] = {**({"preprocess": subject.preprocess.document()} if subject.preprocess else {}), **made}
    document = {key: known[key] for key in _KEPT if known.get(key) is not None}
    document |= {
        "signature": {part: specs and json.dumps(specs) for part, specs in subject.signature.document().items()},
        "flavors": {
            "tensign": flavor,
            "python_function": {
                "loader_module": "tensign.pyfunc",
                "python_version": python,
                "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
            },
        },
        "metadata": metadata,
        "model_uuid": uuid.uuid4().hex,
        "utc_time_created": str(datetime.now(UTC).replace(tzinfo=None)),
    }
    _take_example(source, document, target)
    if subject.rows and subject.signature.columnar and "saved_input_example_info" not in document:  # zeros may be refused
        (target / EXAMPLE_FILE).write_text(json.dumps(example(subject.rows)), encoding="utf-8")
        document["saved_input_example_info"] = {"artifact_path": EXAMPLE_FILE, "pandas_orient": "split", "type": "dataframe"}
    _write_yaml(target / "MLmodel", document)


def _take_example(source: ModelManifest | None, document: dict[str, Any], target: Path) -> None:
    """Copies the saved input example; where it is not whole, the document does not mention it."""
    info = document.get("saved_input_example_info")
    if source is None or not isinstance(info, Mapping):
        document.pop("saved_input_example_info", None)
        return
    for key in _EXAMPLE_FILES:
        if key in info:
            try:
                file = inside(source, info[key])
            except UnsupportedModel:
                document.pop("saved_input_example_info", None)
                return
            if file.parent.resolve() == source.path.resolve() and not (target / file.name).exists():
                shutil.copyfile(file, target / file.name)


def _write_yaml(file: Path, document: Mapping[str, Any]) -> None:
    file.write_text(yaml.safe_dump(dict(document), sort_keys=True, allow_unicode=True), encoding="utf-8")
