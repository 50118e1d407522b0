"""The step `networks`: MLmodel directories of ResNet-18 and ResNet-50 at 300x300, and the bundled model, in their precisions.

The ResNets are there for ONNX Runtime and for torch. Made once, kept for later.
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

from gpu import resnets
from gpu.step import Absent, Cell, Task
from tensign.config import MAX_PIXELS
from tensign.decode import decode
from tensign.demo import MODEL
from tensign.plan import ModelPlan
from tensign.preprocess import PreprocessSpec, Resize
from tensign.proof.samples import photographs

RESNETS, SIDE, CLASSES = resnets.NAMES, resnets.SIDE, resnets.CLASSES
PRECISIONS, ARCHIVE = ("fp32", "fp16", "int8"), "torch"
SPEC = PreprocessSpec((Resize(SIDE, SIDE, "squish"),))
_CALIBRATION = 64  # pieces

Pixels = npt.NDArray[np.uint8]


def names(task: Task) -> tuple[str, ...]:
    """Of those that are made; the CPU has no time for the largest."""
    return ("lite0", *(RESNETS if task.on_gpu else RESNETS[:1]))


def cells(task: Task) -> Iterator[Cell]:
    for name in names(task):
        for precision in (*PRECISIONS, *([ARCHIVE] if name in RESNETS else [])):
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


def spec(task: Task, name: str) -> PreprocessSpec:
    """How pictures are prepared for it. Raises Absent where it is not made."""
    found = SPEC if name in RESNETS else ModelPlan.of(directory(task, name, "fp32")).preprocess
    assert found is not None
    return found


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
        if precision == ARCHIVE:
            return {"bytes": resnets.archive(_resnet(task, name), path)}
        _onnx(task, name, precision, path)
    return {"bytes": ModelPlan.of(path).file.stat().st_size}


def _resnet(task: Task, name: str) -> Any:
    return resnets.made(task, name, pieces(SPEC, _CALIBRATION), len(photographs()))


def _onnx(task: Task, name: str, precision: str, path: Path) -> None:
    try:
        import models
    except ImportError as error:
        raise Absent(f"{error.name} is not installed: pip install onnx onnxscript") from None
    if precision == "fp32":
        _export(_resnet(task, name), path / "model.onnx")
    else:
        _varied(onnx_file(task, name, "fp32"), precision, path / "model.onnx")
    if name == "lite0":
        shutil.copytree(MODEL, path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.onnx"))
    else:
        models.describe(path, ("float32", (CLASSES,)), SPEC)


def _export(network: Any, target: Path) -> None:
    try:
        from tensign_converters.pictures.export import export
        from tensign_converters.pictures.model import rebuilt
        from tensign_converters.pictures.preprocessing import COLOUR, Preprocessing
        from tensign_converters.pictures.steps import Normalize, Scale
        from tensign_converters.subject import Head
    except ImportError as error:
        raise Absent(f"{error.name} is not installed: pip install onnx onnxscript") from None
    steps = (Scale(255.0), Normalize(list(resnets.MEAN), list(resnets.DEVIATION)))
    prepared = Preprocessing(COLOUR, SPEC.steps, steps, (SIDE, SIDE), (SIDE, SIDE))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        export(rebuilt(network, prepared, Head("classification", "softmax", -1), (CLASSES,), {}), target)


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
