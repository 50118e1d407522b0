"""ModelPlan: all that an MLmodel directory tells without loading the network. `inspect` shows it, `Model` follows it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tensign.choice import FIRST_CONVERTED, Choice, choices, chosen, inside, variant_files
from tensign.config import ENGINE_VARIANTS, TF32, VARIANTS
from tensign.errors import UnsupportedModel
from tensign.form import Form
from tensign.mlmodel import ModelManifest, read_mlmodel
from tensign.preprocess import PreprocessSpec
from tensign.signature import Signature
from tensign.specs import tensor_specs

ACTIVATIONS = ("softmax", "sigmoid", "none")
TASKS = ("classification", "multilabel", "segmentation", "regression")
_FORMS = {"fastai": Form("dataframe", ("predictions",)), "sklearn": Form("ndarray"), "pytorch": Form("ndarray")}


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """All that can be told of an MLmodel without loading it: what `inspect` shows and `Model` follows.

    image: the input that takes encoded images, None where no preprocessing is declared; preprocess: what is done to them before
    the engine, None where the engine does it all; activation: "softmax", "sigmoid" or "none", applied inside the network;
    threshold: above it a label of a multi-label model counts; task: one of
    TASKS, "" where the model does not say.
    """

    manifest: ModelManifest
    signature: Signature
    choice: Choice
    file: Path
    preprocess: PreprocessSpec | None
    image: str | None
    labels: tuple[str, ...]
    activation: str
    threshold: float | None
    task: str

    @property
    def flavor(self) -> str:
        """Which of the model's flavors is run."""
        return self.choice.flavor

    @property
    def form(self) -> Form:
        """What a converted model returned to MLflow before it was converted, by its flavor of then."""
        flavor: Any = self.manifest.metadata.get("tensign")
        for key in ("source", "flavor"):
            flavor = flavor.get(key) if isinstance(flavor, Mapping) else None
        return _FORMS.get(str(flavor)) or Form("dict" if self.signature.outputs[0].named else "ndarray")

    @classmethod
    def of(cls, path: Path | str, engine: str = "auto", variant: str = "fp32") -> ModelPlan:
        """Reads an MLmodel directory; engine: that of the flavor to run; variant: which of its precisions.

        Raises ModelNotFound or UnsupportedModel.
        """
        manifest = read_mlmodel(path)
        signature = Signature.parse(manifest.signature)
        made = any(variant in known for known in ENGINE_VARIANTS.values())
        varied = None if made else _variant(manifest, variant)
        choice = chosen(manifest, engine)
        assert choice.file is not None
        if made and variant not in ENGINE_VARIANTS.get(choice.engine, ("fp32",)):
            varied = _converted(manifest, variant, choice.engine)
        if varied and choice.flavor != "tensign":
            raise UnsupportedModel(f"variant {variant}: is of flavor tensign, and engine {engine} runs {choice.flavor}")
        declared = manifest.flavors[choice.flavor]
        activation, threshold = declared.get("activation", "none"), declared.get("threshold")
        if activation not in ACTIVATIONS or not (threshold is None or _is_number(threshold)):
            raise UnsupportedModel(f"activation {activation!r} or threshold {threshold!r} is none that a converter writes")
        task = declared.get("task", "")
        if task not in ("", *TASKS):
            raise UnsupportedModel(f"task {str(task)[:60]!r} is none of {', '.join(TASKS)}")
        if choice.engine == "onnx" and not signature.outputs:
            raise UnsupportedModel("the signature declares no outputs; log the model again with an output example")
        preprocess = _declared_preprocess(manifest) if choice.engine == "onnx" else None
        image = _image_input(signature, preprocess.mode if preprocess else "RGB")
        if preprocess and image is None:
            wanted = "[-1,H,W,3]" if preprocess.mode == "RGB" else "[-1,H,W]"
            raise UnsupportedModel(
                f"the model declares preprocessing, which needs one uint8 {wanted} input; its signature is {signature}"
            )
        image = image if preprocess or choice.engine == "fastai" else None
        labels = _read_labels(inside(manifest, declared["labels"])) if "labels" in declared else ()
        return cls(manifest, signature, choice, varied or choice.file, preprocess, image, labels, activation, threshold, task)


def _converted(manifest: ModelManifest, name: str, engine: str) -> Path:
    """The file of a variant that this engine does not make itself, but a conversion may."""
    if name in VARIANTS:
        return _variant(manifest, name)
    makers = ", ".join(maker for maker, made in ENGINE_VARIANTS.items() if name in made)
    raise UnsupportedModel(
        f"variant {name}: is of engine {makers}, and this model runs on {engine}; there is {_there(manifest)}"
    )


def _variant(manifest: ModelManifest, name: str) -> Path:
    files = variant_files(manifest)
    if name not in files:
        mend = f"; tensign convert SRC DST --variant {name} writes it" if name in VARIANTS else ""
        raise UnsupportedModel(f"{manifest.path}: variant {name[:32]!a}: there is {_there(manifest)}{mend}")
    return files[name]


def _there(manifest: ModelManifest) -> str:
    """Every variant that a model has, and what to type for it."""
    engines = {choice.engine for choice in choices(manifest) if not choice.refused}
    if any(flavor in manifest.flavors for flavor in FIRST_CONVERTED):
        engines.add("onnx")
    told = ", ".join(["fp32", *variant_files(manifest)])
    if "onnx" in engines:
        told += f", with --device cuda {TF32}"
    natives = [engine for engine in ENGINE_VARIANTS if engine in engines and engine != "onnx"]
    return "; ".join([told, *(f"of --engine {engine} bf16, with --device cuda {TF32} and fp16" for engine in natives)])


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -math.inf < value < math.inf


def _declared_preprocess(manifest: ModelManifest) -> PreprocessSpec | None:
    declared = manifest.metadata.get("tensign")
    document = declared.get("preprocess") if isinstance(declared, Mapping) else None
    return PreprocessSpec.parse(document) if document is not None else None


def _image_input(signature: Signature, mode: str) -> str | None:
    """The one input that is uint8 [-1,H,W,3] or, grey, [-1,H,W]; None where there is none or several."""
    channels = (3,) if mode == "RGB" else ()
    specs = tensor_specs(signature.inputs)
    images = [spec for spec in specs if spec.dtype == np.uint8 and len(spec.shape) >= 3 and spec.shape[3:] == channels]
    return images[0].name if len(images) == 1 else None


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
