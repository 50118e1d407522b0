"""ModelPlan: all that an MLmodel directory tells without loading the network. `inspect` shows it, `Model` follows it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tensign.errors import UnsupportedModel
from tensign.mlmodel import ModelManifest, read_mlmodel
from tensign.preprocess import PreprocessSpec
from tensign.signature import Signature, TensorSpec

ACTIVATIONS = ("softmax", "sigmoid", "none")
TASKS = ("classification", "multilabel", "segmentation", "regression")
SERVED_FLAVORS = {"tensign": "model", "onnx": "data"}  # flavor -> the key that names its ONNX file, the preferred first


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """All that can be told of an MLmodel without loading it: what `inspect` shows and `Model` follows.

    image: the input that takes encoded images, None where no preprocessing is declared; activation: "softmax",
    "sigmoid" or "none", applied inside the network; threshold: above it a label of a multi-label model counts; task: one of
    TASKS, "" where the model does not say.
    """

    manifest: ModelManifest
    signature: Signature
    flavor: str
    file: Path
    preprocess: PreprocessSpec | None
    image: str | None
    labels: tuple[str, ...]
    activation: str
    threshold: float | None
    task: str

    @classmethod
    def of(cls, path: Path | str) -> ModelPlan:
        """Reads an MLmodel directory. Raises ModelNotFound or UnsupportedModel."""
        manifest = read_mlmodel(path)
        signature = Signature.parse(manifest.signature)
        flavor = next((flavor for flavor in SERVED_FLAVORS if flavor in manifest.flavors), None)
        if flavor is None:
            raise UnsupportedModel(refusal(manifest) or "a fastai model is converted first: tensign convert SRC DST")
        declared = manifest.flavors[flavor]
        activation, threshold = declared.get("activation", "none"), declared.get("threshold")
        if activation not in ACTIVATIONS or not (threshold is None or _is_number(threshold)):
            raise UnsupportedModel(f"activation {activation!r} or threshold {threshold!r} is none that a converter writes")
        task = declared.get("task", "")
        if task not in ("", *TASKS):
            raise UnsupportedModel(f"task {str(task)[:60]!r} is none of {', '.join(TASKS)}")
        preprocess = _declared_preprocess(manifest)
        labels = _read_labels(_inside(manifest, declared["labels"])) if "labels" in declared else ()
        return cls(
            manifest,
            signature,
            flavor,
            _inside(manifest, declared.get(SERVED_FLAVORS[flavor])),
            preprocess,
            _image_input(signature, preprocess.mode).name if preprocess else None,
            labels,
            activation,
            threshold,
            task,
        )


def refusal(manifest: ModelManifest) -> str:
    """Why a model that is not served as it is cannot be converted either, and what to do; empty where it can."""
    if "fastai" in manifest.flavors:
        return ""
    return (
        f"flavors {', '.join(map(str, manifest.flavors))}: this version serves {' and '.join(SERVED_FLAVORS)}, and converts"
        " fastai; a PyTorch model is served after torch.onnx.export and mlflow.onnx.log_model"
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -math.inf < value < math.inf


def _declared_preprocess(manifest: ModelManifest) -> PreprocessSpec | None:
    declared = manifest.metadata.get("tensign")
    document = declared.get("preprocess") if isinstance(declared, Mapping) else None
    return PreprocessSpec.parse(document) if document is not None else None


def _image_input(signature: Signature, mode: str) -> TensorSpec:
    channels = (3,) if mode == "RGB" else ()
    images = [s for s in signature.inputs if s.dtype == np.uint8 and len(s.shape) >= 3 and s.shape[3:] == channels]
    if len(images) != 1:
        wanted = "[-1,H,W,3]" if mode == "RGB" else "[-1,H,W]"
        raise UnsupportedModel(
            f"the model declares preprocessing, which needs one uint8 {wanted} input; its signature is {signature}"
        )
    return images[0]


def _read_labels(file: Path) -> tuple[str, ...]:
    """A JSON list of class names, in the order of the scores."""
    try:
        labels = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        labels = None
    if not isinstance(labels, list) or not all(isinstance(label, str) and _is_text(label) for label in labels):
        raise UnsupportedModel(f"{file.name}: wanted a JSON list of names")
    return tuple(labels)


def _is_text(label: str) -> bool:
    """False where JSON's escapes left half a surrogate pair, which no message can carry."""
    return not any("\ud800" <= letter <= "\udfff" for letter in label)


def _inside(manifest: ModelManifest, name: Any) -> Path:
    """A file of the model directory; a name, or a link, that leads out of it is refused."""
    file = manifest.path / str(name)
    try:
        inside = file.is_file() and file.resolve().is_relative_to(manifest.path.resolve())
        inside = inside and ".." not in Path(str(name)).parts
    except (OSError, ValueError, RuntimeError):  # no name that a file could have, or links in a circle
        inside = False
    if not inside:
        raise UnsupportedModel(f'{manifest.path}: the MLmodel names "{str(name)[:100]}", which is no file of the directory')
    return file
