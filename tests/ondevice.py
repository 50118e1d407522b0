"""What the tests in tests/gpu share: models and pictures, and options that are left out where a CPU stands for the GPU."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from conftest import tensor, write_mlmodel
from gpu.networks import pieces
from tensign.config import ModelConfig
from tensign.demo import MODEL
from tensign.doctor.lookup import Lookup
from tensign.doctor.runtime import tensorrt_version
from tensign.engines.cuda import CudaRuntime
from tensign.engines.onnx import OnnxEngine
from tensign.errors import InvalidConfig
from tensign.plan import ModelPlan

Array = npt.NDArray[Any]

LARGEST = 64


def config(device: str, **options: Any) -> ModelConfig:
    """On a CPU small, and without what only CUDA runs. Skips what tensign does not know, and TensorRT that is not installed."""
    if device == "cpu":
        options = {name: option for name, option in options.items() if name not in ("accelerator", "variant")}
        options["max_batch_size"] = 2
    if options.get("accelerator") == "tensorrt" and not tensorrt_version(Lookup()):
        pytest.skip("TensorRT is not installed (libnvinfer.so.10)")
    try:
        return ModelConfig(device=device, **{"max_batch_size": LARGEST, **options})
    except InvalidConfig as error:
        pytest.skip(str(error))


def photographs(count: int = LARGEST) -> Array:
    """uint8 [count,H,W,3]: pieces of the bundled photographs, as they reach the bundled network."""
    spec = ModelPlan.of(MODEL).preprocess
    assert spec is not None
    return pieces(spec, count)


def on_cpu(rows: Array) -> Array:
    """float32 [n,1000]: what the bundled network answers, one row after the other."""
    engine = opened("cpu")
    return np.concatenate([only(engine.run({engine.inputs[0].name: rows[row : row + 1]})) for row in range(len(rows))])


def opened(device: str, file: Path | None = None, **options: Any) -> OnnxEngine:
    """The engine alone, of the bundled network where no other is named."""
    engine = OnnxEngine(file or ModelPlan.of(MODEL).file, device, **({} if device == "cpu" else options))
    engine.load()
    return engine


def only(answers: dict[str, Array]) -> Array:
    (answer,) = answers.values()
    return answer


def plain(target: Path, *, half_with: Array | None = None) -> Path:
    """An MLmodel directory of the bundled network without what goes before it: uint8 [-1,H,W,3] -> float32 [-1,1000].

    half_with: rows with which it is brought to half precision.
    """
    from tensign_converters.precision.halves import halve

    source, network = ModelPlan.of(MODEL).file, opened("cpu")
    (image,), (answer,) = network.inputs, network.outputs
    signature = {
        "inputs": [tensor("uint8", list(image.shape))],
        "outputs": [tensor("float32", list(answer.shape))],
    }
    write_mlmodel(target, signature=signature)
    if half_with is None:
        shutil.copy(source, target / "model.onnx")
    else:
        halve(onnx.load(source), target / "model.onnx", [{image.name: row[None]} for row in half_with])
    return target


def free_bytes(device: str) -> int:
    """Of the device's memory; of a CPU's, less what this process has taken of any."""
    if device == "cpu":
        return -int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    return CudaRuntime().memory(int(device.partition(":")[2] or 0))[0]
