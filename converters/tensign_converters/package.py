"""Writes the converted model as an MLmodel directory: a `tensign` flavor, and a `python_function` flavor that MLflow opens."""

from __future__ import annotations

import json
import platform
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from tensign.preprocess import PreprocessSpec
from tensign.version import __version__

MODEL_FILE, LABELS_FILE = "model.onnx", "labels.json"
_KEPT = ("artifact_path", "run_id", "signature")  # what stays true of the model when its files change


def write_package(
    target: Path,
    *,
    source: Mapping[str, Any],
    labels: tuple[str, ...],
    activation: str,
    threshold: float | None,
    weights: str,
    preprocess: PreprocessSpec,
    proof: Mapping[str, Any],
) -> None:
    """Writes everything but the graph, which is there. source: the original MLmodel document; proof: its metadata."""
    flavor: dict[str, Any] = {"tensign_version": __version__, "model": MODEL_FILE, "weights": weights, "activation": activation}
    if labels:
        (target / LABELS_FILE).write_text(json.dumps(labels, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
        flavor["labels"] = LABELS_FILE
    if threshold is not None:
        flavor["threshold"] = float(threshold)
    requirement = f"tensign[cpu]=={__version__}"
    (target / "requirements.txt").write_text(f"{requirement}\n")
    python = platform.python_version()
    _write_yaml(target / "python_env.yaml", {"python": python, "dependencies": ["-r requirements.txt"]})
    conda = {
        "name": "tensign-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": [requirement]}],
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
