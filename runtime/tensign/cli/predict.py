"""tensign predict: pictures in, labels out."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from tensign import conversion
from tensign.classification import predictions
from tensign.cli.options import CACHE, CacheDir, Device, ModelPath, Trust, load
from tensign.config import ModelConfig
from tensign.errors import TensignError, UnsupportedModel
from tensign.plan import ModelPlan


def predict(
    model: ModelPath,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures: JPEG, PNG, WebP, BMP.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    top: Annotated[int, typer.Option(min=1, help="Classes of each picture; a multi-label model: all above its threshold.")] = 3,
    device: Device = "auto",
    trust: Trust = False,
    cache_dir: CacheDir = CACHE,
) -> None:
    """Classify pictures in this process, without a server."""
    directory = conversion.servable(model, trust=trust, cache=cache_dir)
    plan = ModelPlan.of(directory)
    if plan.image is None:
        raise UnsupportedModel(f"{model}: declares no preprocessing, so pictures cannot become its input {plan.signature}")
    loaded = load(directory, "", ModelConfig(device=device, max_batch_size=1), trust=False, cache=cache_dir)
    failed = 0
    for image in images:
        try:
            pixels = np.array([image.read_bytes()], object)
            scores = loaded.infer({plan.image: pixels})[plan.signature.outputs[0].name]
            found = predictions(scores, scores.shape[-1] if plan.threshold is not None else top, plan.labels)[0]
        except (TensignError, OSError) as error:
            failed += 1
            text = error.strerror if isinstance(error, OSError) else str(error)
            print(json.dumps({"image": str(image), "error": text}) if as_json else f"{image}: error: {text}")
            continue
        if plan.threshold is not None:  # several labels may hold, or none
            found = [prediction for prediction in found if prediction.score > plan.threshold]
        if as_json:
            print(json.dumps({"image": str(image), "predictions": [asdict(prediction) for prediction in found]}))
        else:
            labels = ", ".join(f"{prediction.label} {prediction.score:.4f}" for prediction in found)
            print(f"{image}: {labels or f'no label above {plan.threshold}'}")
    loaded.close()
    if failed:
        raise typer.Exit(1)
