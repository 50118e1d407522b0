"""The step `networks`: MLmodel directories of ResNet-18 and ResNet-50 at 300x300, and the bundled model, in their precisions.

Weights of the ResNets are drawn from a fixed seed, their batch norms know photographs, and their heads are fitted to tell from
which photograph a piece is: as sure of it as trained ones, and as little moved by half precision. Made once, kept for later.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import models
from gpu.step import Absent, Cell, Task
from tensign.config import MAX_PIXELS
from tensign.decode import decode
from tensign.demo import MODEL
from tensign.plan import ModelPlan
from tensign.preprocess import PreprocessSpec, Resize
from tensign.proof.samples import photographs

RESNETS = ("resnet18", "resnet50")
PRECISIONS = ("fp32", "fp16", "int8")
SIDE, CLASSES = 300, 1000
SPEC = PreprocessSpec((Resize(SIDE, SIDE, "squish"),))
_CALIBRATION, _RIDGE, _SURE = 64, 1.0, 8.0  # pieces; of the mean square of their features; a logit

Pixels = npt.NDArray[np.uint8]


def names(task: Task) -> tuple[str, ...]:
    """Of those that are made; the CPU has no time for the largest."""
    return ("lite0", *(RESNETS if task.on_gpu else RESNETS[:1]))


def cells(task: Task) -> Iterator[Cell]:
    for name in names(task):
        for precision in PRECISIONS:
            yield f"{name} {precision}", partial(_made, task, name, precision)


def directory(task: Task, name: str, precision: str) -> Path:
    """Of an MLmodel. Raises Absent where it is not made."""
    path = _directory(task, name, precision)
    if not (path / "MLmodel").exists():
        raise Absent(f"{name} {precision} is not there: the step networks did not make it")
    return path


def onnx_file(task: Task, name: str, precision: str) -> Path:
    """The graph of `directory`."""
    return ModelPlan.of(directory(task, name, precision)).file


def torch_network(task: Task, name: str) -> Any:
    """The same network for torch, float32 [B,3,300,300], normalised -> logits [B,1000]; on the CPU. Raises Absent."""
    torch, torchvision = _torch()
    weights = task.models / f"{name}.pt"
    if name not in RESNETS or not weights.exists():
        raise Absent(f"{name}: there are no weights of it for torch here")
    network = getattr(torchvision.models, name)(weights=None)
    network.load_state_dict(torch.load(weights, weights_only=True))
    return network.eval()


def pieces(spec: PreprocessSpec, count: int) -> Pixels:
    """uint8 [count,H,W,3]: rectangles of half to 95 % of a bundled photograph's sides, as they reach the graph."""
    opened = [np.asarray(decode(file.read_bytes(), max_pixels=MAX_PIXELS)) for file in photographs()]
    made = []
    for number in range(count):
        random, whole = np.random.default_rng([7, number]), opened[number % len(opened)]
        high, wide = (int(side * random.uniform(0.5, 0.95)) for side in whole.shape[:2])
        top, left = (int(random.integers(side - cut + 1)) for side, cut in zip(whole.shape[:2], (high, wide), strict=True))
        made.append(spec.arrays(whole[None, top : top + high, left : left + wide])[0])
    return np.stack(made)


def _directory(task: Task, name: str, precision: str) -> Path:
    return MODEL if (name, precision) == ("lite0", "fp32") else task.models / f"{name}-{precision}"


def _made(task: Task, name: str, precision: str) -> dict[str, Any]:
    path = _directory(task, name, precision)
    if not (path / "MLmodel").exists():
        if precision == "int8" and name != "resnet18":
            raise Absent("calibration takes minutes, and resnet18 tells the same")
        path.mkdir(parents=True, exist_ok=True)
        if precision == "fp32":
            _export(task, name, path / "model.onnx")
        else:
            _varied(onnx_file(task, name, "fp32"), precision, path / "model.onnx")
        if name == "lite0":
            shutil.copytree(MODEL, path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.onnx"))
        else:
            models.describe(path, CLASSES, SPEC)
    return {"bytes": ModelPlan.of(path).file.stat().st_size}


def _torch() -> tuple[Any, Any]:
    try:
        import torch
        import torchvision
    except ImportError as error:
        raise Absent(f"{error.name} is not installed: pip install torch torchvision") from None
    return torch, torchvision


def _export(task: Task, name: str, target: Path) -> None:
    torch, torchvision = _torch()
    try:
        from tensign_converters.pictures.export import export
        from tensign_converters.pictures.model import rebuilt
        from tensign_converters.pictures.preprocessing import COLOUR, Preprocessing, network_input
        from tensign_converters.pictures.steps import Normalize, Scale
        from tensign_converters.subject import Head
    except ImportError as error:
        raise Absent(f"{error.name} is not installed: pip install onnx onnxscript") from None
    torch.manual_seed(0)
    network = getattr(torchvision.models, name)(weights=None).eval()
    steps = (Scale(255.0), Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    prepared = Preprocessing(COLOUR, SPEC.steps, steps, (SIDE, SIDE), (SIDE, SIDE))
    with torch.no_grad():
        given = network_input(prepared, torch.from_numpy(pieces(SPEC, _CALIBRATION)))
        norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.train()
            norm.momentum = None
        network(given)
        network.eval()
        head, network.fc = network.fc, torch.nn.Identity()
        _fit(torch, head, network(given))
        network.fc = head
    torch.save(network.state_dict(), task.models / f"{name}.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        export(rebuilt(network, prepared, Head("classification", "softmax", -1), (CLASSES,), {}), target)


def _fit(torch: Any, head: Any, features: Any) -> None:
    """Makes a linear layer tell from which photograph the pieces with these features [n,f] are: ridge regression."""
    count = len(photographs())
    wanted = _SURE * torch.nn.functional.one_hot(torch.arange(len(features)) % count).float()
    mean = features.mean(0)
    centred, target = features - mean, wanted - wanted.mean(0)
    products = centred @ centred.T
    ridge = _RIDGE * products.diagonal().mean() * torch.eye(len(features))
    head.weight.zero_()
    head.bias.fill_(-_SURE)  # of classes that no photograph is
    head.weight[:count] = (centred.T @ torch.linalg.solve(products + ridge, target)).T
    head.bias[:count] = wanted.mean(0) - head.weight[:count] @ mean


def _varied(source: Path, precision: str, target: Path) -> None:
    try:
        import onnx

        from tensign_converters.precision.halves import halve
        from tensign_converters.precision.quantized import quantize
    except ImportError as error:
        raise Absent(f"{error.name} is not installed: pip install onnx") from None
    made = halve if precision == "fp16" else quantize
    spec = ModelPlan.of(source.parent).preprocess
    assert spec is not None
    made(onnx.load(source), target, [{"image": row[None]} for row in pieces(spec, _CALIBRATION // 2)])
