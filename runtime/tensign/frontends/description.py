"""What a front end is told of the server's models, so that it can check and decode their requests; JSON both ways."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from tensign.buckets import Buckets
from tensign.config import ModelConfig
from tensign.errors import UnsupportedModel
from tensign.frontends.remote import Calls, RemoteBatcher, RemoteEngine
from tensign.model import Model
from tensign.plan import ModelPlan
from tensign.specs import TensorSpec


def description(model: Model) -> dict[str, Any]:
    """Of a loaded model, its configuration and its state among it."""
    return {
        "path": str(model.plan.manifest.path.resolve()),
        "text": model.plan.manifest.text,
        "digest": model.digest,
        "name": model.name,
        "version": model.version,
        "config": asdict(model.config),
        "inputs": [[spec.name, spec.dtype.str, list(spec.shape)] for spec in model.engines[0].inputs],
        "labels": list(model.plan.labels),
        "threshold": model.plan.threshold,
        **state(model),
    }


def state(model: Model) -> dict[str, Any]:
    """What of a model may change while it is served."""
    return {"ready": model.ready, "lost": model.lost, "device": model.device, "buckets": asdict(model.buckets)}


def described(said: dict[str, Any], calls: Calls, number: int, front_ends: int) -> Model:
    """A model whose batches run in the server's process, where it is the one of that number.

    front_ends: among how many its memory for decoded pictures is divided. Raises UnsupportedModel where what the server loaded
    does not lie there any more.
    """
    config = ModelConfig(**said["config"])
    plan = ModelPlan.of(said["path"], config.engine, config.variant)
    if plan.manifest.text != said["text"]:
        raise UnsupportedModel(f"{said['path']}: is not what the server loaded; start the server again")
    vars(plan.manifest)["digest"] = said["digest"]  # of gigabytes, perhaps: taken once
    inputs = tuple(TensorSpec(name, np.dtype(dtype), tuple(shape)) for name, dtype, shape in said["inputs"])
    engine = RemoteEngine(inputs, tuple(said["labels"]), said["threshold"])
    batcher = RemoteBatcher(calls, number, _buckets(said))
    share = replace(config, max_decoded_bytes=max(config.max_decoded_bytes // front_ends, 1))
    model = Model(plan, [engine], name=said["name"], version=said["version"], config=share, batcher=batcher)
    follow(model, said)
    return model


def follow(model: Model, said: dict[str, Any]) -> None:
    """Takes over what `state` told."""
    (engine,) = model.engines
    assert isinstance(engine, RemoteEngine)
    engine.up, engine.lost, engine.device = said["ready"], said["lost"], said["device"]
    model.batcher.buckets = _buckets(said)


def _buckets(said: dict[str, Any]) -> Buckets:
    rows, seconds = (tuple(said["buckets"][each]) for each in ("rows", "seconds"))
    return Buckets(**{**said["buckets"], "rows": rows, "seconds": seconds})
