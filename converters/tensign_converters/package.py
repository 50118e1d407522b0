"""Learned -> an MLmodel directory, proof included: a `tensign` flavor, and a `python_function` flavor that MLflow opens."""

from __future__ import annotations

import json
import platform
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from tensign.preprocess import PreprocessSpec
from tensign.version import __version__
from tensign_converters.graph import IR_VERSION, OPSET, export, store_as_fp16
from tensign_converters.learned import Learned
from tensign_converters.parity import prove

MODEL_FILE, LABELS_FILE = "model.onnx", "labels.json"
_KEPT = ("artifact_path", "run_id", "signature")  # what stays true of the model when its files change


def write_model(
    learned: Learned,
    target: Path,
    *,
    size: tuple[int, int],
    weights: str,
    source: Mapping[str, Any],
    origin: Mapping[str, Any],
    requirements: Sequence[str] = (),
) -> str:
    """Exports, proves and writes into the directory `target`; gives a report of three lines.

    size: height and width in the signature; source: the original's MLmodel document, or one that has its signature;
    origin: where the model came from, kept with the versions; requirements: what MLflow has to install besides tensign.
    Raises UnsupportedModel or ParityFailed.
    """
    model = target / MODEL_FILE
    spec = learned.preprocessing.spec()
    export(learned, model)
    if weights == "fp16":
        store_as_fp16(model)
    proved = prove(learned, model, size, weights)
    versions = {"tensign": __version__, **learned.versions, "opset": OPSET, "ir": IR_VERSION}
    proof = {"source": {**origin, "versions": versions}, "parity": {**proved.document(), "against": learned.against}}
    _write_files(target, learned, spec, weights, source, proof, [*requirements, f"tensign[cpu]=={__version__}"])
    return f"preprocess: {'; '.join(map(str, (*spec.steps, *spec.graph)))}\nparity: {proved}\nagainst: {learned.against}"


def _write_files(
    target: Path,
    learned: Learned,
    preprocess: PreprocessSpec,
    weights: str,
    source: Mapping[str, Any],
    proof: Mapping[str, Any],
    requirements: list[str],
) -> None:
    flavor: dict[str, Any] = {"tensign_version": __version__, "model": MODEL_FILE, "weights": weights}
    flavor |= {"task": learned.head.task, "activation": learned.head.activation}
    if learned.head.labels:
        names = json.dumps(learned.head.labels, ensure_ascii=False, indent=0)
        (target / LABELS_FILE).write_text(f"{names}\n", encoding="utf-8")
        flavor["labels"] = LABELS_FILE
    if learned.head.threshold is not None:
        flavor["threshold"] = float(learned.head.threshold)
    (target / "requirements.txt").write_text("".join(f"{each}\n" for each in requirements))
    python = platform.python_version()
    _write_yaml(target / "python_env.yaml", {"python": python, "dependencies": ["-r requirements.txt"]})
    conda = {
        "name": "tensign-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": requirements}],
    }
    _write_yaml(target / "conda.yaml", conda)
    metadata = dict(source.get("metadata") or {})
    metadata["tensign"] = {"preprocess": preprocess.document(), **proof}
    document = {key: source[key] for key in _KEPT if source.get(key) is not None}
    document |= {
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
    _write_yaml(target / "MLmodel", document)


def _write_yaml(file: Path, document: Mapping[str, Any]) -> None:
    file.write_text(yaml.safe_dump(dict(document), sort_keys=True, allow_unicode=True), encoding="utf-8")
