"""What `tensign inspect` tells of an MLmodel directory: what MLflow wrote, and what is derived from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensign.errors import UnsupportedModel
from tensign.mlmodel import read_mlmodel
from tensign.plan import ModelPlan
from tensign.signature import Signature

_MLFLOW_KEYS = ("artifact_path", "run_id", "model_uuid", "model_id", "mlflow_version", "utc_time_created")


def inspected(path: Path) -> dict[str, Any]:
    """Plain facts, in the order to show them; what cannot be served says why under "served". Raises ModelNotFound."""
    manifest = read_mlmodel(path)
    facts: dict[str, Any] = {"model": str(path), "flavors": {name: dict(flavor) for name, flavor in manifest.flavors.items()}}
    facts |= {key: manifest.document[key] for key in _MLFLOW_KEYS if manifest.document.get(key)}
    try:
        facts["signature"] = str(Signature.parse(manifest.signature))
        plan = ModelPlan.of(path)
    except UnsupportedModel as error:
        return {**facts, "served": f"no: {error}"}
    facts["served"] = f"as {plan.flavor}, {plan.file.name} on ONNX Runtime"
    facts["inputs"] = [{"name": spec.name, "tensor": str(spec)} for spec in plan.signature.inputs]
    facts["outputs"] = [{"name": spec.name, "tensor": str(spec)} for spec in plan.signature.outputs]
    if plan.task:
        facts["task"] = plan.task
    facts["activation"] = plan.activation if plan.activation != "none" else "none: the numbers are the network's own"
    facts["encoded images"] = f"as {plan.image}" if plan.image else "none: the model declares no preprocessing"
    if plan.preprocess:
        facts["preprocess"] = plan.preprocess.document()
    if plan.labels:
        facts["labels"] = f"{len(plan.labels)}: {', '.join(plan.labels[:8])}{', ...' if len(plan.labels) > 8 else ''}"
    if plan.threshold is not None:
        facts["threshold"] = plan.threshold
    made = manifest.metadata.get("tensign")
    if isinstance(made, dict):
        facts |= {key: made[key] for key in ("source", "parity") if key in made}
    return facts
