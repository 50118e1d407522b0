"""What `tensign inspect` tells of an MLmodel directory: what MLflow wrote, and what is derived from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensign.choice import FIRST_CONVERTED, SERVED_FLAVORS, Choice, choices
from tensign.errors import UnsupportedModel
from tensign.mlmodel import ModelManifest, read_mlmodel
from tensign.plan import ModelPlan
from tensign.signature import Signature
from tensign.specs import ColumnSpec, Spec, TensorSpec

_SHOWN_APART = ("flavors", "signature", "metadata")
_CHANNELS = {1: "grey", 3: "RGB", 4: "RGBA"}


def inspected(path: Path) -> dict[str, Any]:
    """Plain facts, in the order to show them; what cannot be served says why under "served".

    Raises ModelNotFound, and UnsupportedModel for what is no MLmodel at all.
    """
    manifest = read_mlmodel(path)
    facts: dict[str, Any] = {"model": str(manifest.path), "name": manifest.name}
    facts |= _contract(manifest) | _served(manifest)
    facts["flavors"] = {name: dict(flavor) for name, flavor in manifest.flavors.items()}
    facts["environment"] = dict(manifest.env)
    facts["mlmodel"] = {key: value for key, value in manifest.document.items() if key not in _SHOWN_APART}
    made = manifest.metadata.get("tensign")
    made = made if isinstance(made, dict) else {}
    facts["metadata"] = {key: value for key, value in manifest.metadata.items() if value is not made}
    facts |= {key: made[key] for key in ("source", "parity", "variants") if key in made}
    return {key: value for key, value in facts.items() if value not in ({}, [], None)}


def _contract(manifest: ModelManifest) -> dict[str, Any]:
    """The signature, line by line."""
    try:
        signature = Signature.parse(manifest.signature)
    except UnsupportedModel as error:
        return {"signature": f"none that can be used: {error}"}
    params = [{"name": param.name, "type": str(param), "default": param.default} for param in signature.params]
    return {
        "signature": str(signature),
        "inputs": [_entry(spec) for spec in signature.inputs],
        "outputs": [{key: value for key, value in _entry(spec).items() if key != "layout"} for spec in signature.outputs],
        "params": params,
    }


def _entry(spec: Spec) -> dict[str, Any]:
    if isinstance(spec, ColumnSpec):
        return {"name": spec.name, "type": str(spec.type), "required": spec.required}
    return {"name": spec.name, "tensor": str(spec), "layout": layout(spec)}


def layout(spec: TensorSpec) -> str:
    """What the axes of a tensor are, as far as its shape tells: NHWC or NCHW pictures, or a plain tensor."""
    shape = spec.shape
    if len(shape) == 4 and spec.dtype.kind in "uf":
        height, width = (shape[1:3], shape[2:4])[shape[3] not in _CHANNELS]
        channels, name = (shape[3], "NHWC") if shape[3] in _CHANNELS else (shape[1], "NCHW")
        if channels in _CHANNELS:
            size = " of any size" if -1 in (height, width) else f" of {width}x{height}"
            return f"pictures {name}, {_CHANNELS[channels]}{size}"
    return "plain tensor"


def _served(manifest: ModelManifest) -> dict[str, Any]:
    """The engine that runs it and why, why not the others, and what follows for whoever calls it."""
    if converted := _converted(manifest):
        return {"served": converted, "other flavors": _others(manifest, None)}
    try:
        plan = ModelPlan.of(manifest.path)
    except UnsupportedModel as error:
        return {"served": f"no: {error}", "other flavors": _others(manifest, None)}
    choice = plan.choice
    facts: dict[str, Any] = {
        "served": f"as {choice.flavor}, {plan.file.name}, by engine {choice.engine}{'; with --trust' if choice.runs else ''}",
        "why": _why(choice),
        "other flavors": _others(manifest, choice),
        "batching": _batching(plan),
        "task": plan.task or None,
        "activation": plan.activation if choice.engine == "onnx" else None,
        "encoded images": _encoded(plan),
    }
    if plan.preprocess:
        facts["preprocess"] = plan.preprocess.document()
    if plan.labels:
        facts["labels"] = f"{len(plan.labels)}: {', '.join(plan.labels[:8])}{', ...' if len(plan.labels) > 8 else ''}"
    if plan.threshold is not None:
        facts["threshold"] = plan.threshold
    return facts


def _converted(manifest: ModelManifest) -> str:
    """What `tensign serve` does first, "" where it does nothing of the kind or cannot."""
    first = [choice for choice in choices(manifest) if choice.flavor in FIRST_CONVERTED and not choice.refused]
    if not first or any(flavor in manifest.flavors for flavor in SERVED_FLAVORS):
        return ""
    asis = f"--engine {first[0].engine} --trust"
    return f"as ONNX: serve and predict convert it first, once, reading its file as data; or as it is: {asis}"


def _why(choice: Choice) -> str:
    if choice.runs:
        return f"the first of its flavors that an engine runs; {choice.runs}, so it runs in a process of its own"
    if choice.engine == "onnx":
        return "ONNX Runtime runs it in the server's own process, and nothing of the model's own code"
    return f"the first of its flavors that an engine runs, and engine {choice.engine} runs nothing of the model's own code"


def _others(manifest: ModelManifest, chosen: Choice | None) -> dict[str, str]:
    others = {}
    for choice in choices(manifest):
        if chosen is None or choice.flavor != chosen.flavor:
            if chosen is not None and chosen.flavor == "tensign" and _ours(manifest, choice):
                others[choice.flavor] = "this same model, as mlflow.pyfunc.load_model opens it"
                continue
            ask = "" if choice.asked or choice.refused or chosen is None else f"; comes after {chosen.flavor}"
            by = f"; --engine {choice.engine} asks for it" if ask else ""
            others[choice.flavor] = f"{str(choice).removeprefix(f'{choice.flavor}: ')}{ask}{by}"
    return others


def _ours(manifest: ModelManifest, choice: Choice) -> bool:
    """Whether it is what the converter wrote for MLflow beside its own flavor."""
    return choice.flavor == "python_function" and manifest.flavors[choice.flavor].get("loader_module") == "tensign.pyfunc"


def _batching(plan: ModelPlan) -> str:
    signature = plan.signature
    if plan.choice.engine == "pyfunc":
        return "none: each request is one call of the model's code"
    rows = {spec.shape[0] for spec in signature.inputs}
    if rows != {-1}:
        return f"fixed: {max(rows)} rows at a time"
    free = any(-1 in spec.shape[1:] for spec in signature.inputs)
    equal = [what for what, there in (("equal shapes", free), ("equal params", bool(signature.params))) if there]
    only = f"; only requests of {' and '.join(equal)} share a batch" if equal else ""
    return f"rows of several requests run together, in sizes that warm-up measures{only}"


def _encoded(plan: ModelPlan) -> str:
    if plan.image is None:
        return "none: the model declares no preprocessing"
    how = "preprocessed as declared" if plan.preprocess else f"preprocessed by engine {plan.choice.engine} itself"
    return f"in place of {plan.image}, {how}"
