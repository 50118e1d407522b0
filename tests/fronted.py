"""Models for tests of front ends: one of pictures, large both ways, and one that runs a batch when the test lets it."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
from onnx import TensorProto, helper

from conftest import save_onnx, tensor, write_mlmodel
from tensign.config import ModelConfig
from tensign.engines.onnx import OnnxEngine
from tensign.model import Model
from tensign.plan import ModelPlan
from tensign.preprocess import PreprocessSpec, Resize
from tensign.signature import Arrays

SOON = 10.0  # seconds; what takes longer has hung
SIDE = 100


def save_echo_model(path: Path) -> Path:
    """Pictures of 30 kB, or files of them, to the same numbers as float32 [n,100,100,3]."""
    shape = [-1, SIDE, SIDE, 3]
    write_mlmodel(
        path,
        signature={"inputs": [tensor("uint8", shape)], "outputs": [tensor("float32", shape)]},
        metadata={"tensign": {"preprocess": PreprocessSpec((Resize(SIDE, SIDE, "squish"),)).document()}},
    )
    nodes = [helper.make_node("Cast", ["image"], ["same"], to=TensorProto.FLOAT)]
    there = ["n", SIDE, SIDE, 3]
    save_onnx(path / "model.onnx", nodes, {"image": (TensorProto.UINT8, there)}, {"same": (TensorProto.FLOAT, there)})
    return path


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


class Gated(OnnxEngine):
    """While it is shut, a batch waits inside."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, "cpu")
        self.open, self.entered, self.up = threading.Event(), threading.Semaphore(0), True
        self.open.set()

    @property
    def ready(self) -> bool:
        return self.up

    def load(self) -> None:
        super().load()
        self.local = False  # else whoever brings the rows runs them, and brings no others

    def run(
        self, batch: Arrays, params: Mapping[str, Any] | None = None, deadline: float | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        if not self.open.is_set():
            self.entered.release()
            assert self.open.wait(SOON)
        return super().run(batch, params, deadline)


def gated_model(path: Path, **knobs: Any) -> tuple[Model, Gated]:
    """What `save_mean_model` wrote, called "gated"."""
    plan = ModelPlan.of(path)
    engine = Gated(plan.file)
    return Model(plan, [engine], name="gated", version="1", config=ModelConfig(device="cpu", **knobs)), engine


def gone(pid: object) -> bool:
    """Whether a process has ended, asked for its status or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def until(holds: Callable[[], bool]) -> None:
    """What another process does takes the time that it takes."""
    end = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)
