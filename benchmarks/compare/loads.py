"""What is sent, and what the right answer is: the same pictures for every server."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

import models
from compare.wire import Array
from tensign.demo import PICTURES

SIDE = 300


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of `rows` pictures each: raw uint8 [rows,300,300,3], or encoded, JPEG files of 640x480."""

    name: str
    model: str
    rows: int
    encoded: bool
    title: str

    @property
    def path(self) -> Path:
        """The MLmodel directory, made when it is asked for."""
        return models.make(self.model)

    @property
    def pictures(self) -> Array:
        """uint8 [rows,300,300,3], or object [rows] of JPEG files."""
        if self.encoded:
            return np.array([jpeg()] * self.rows, object)
        return np.random.default_rng(0).integers(0, 256, (self.rows, SIDE, SIDE, 3), dtype=np.uint8)

    def expected(self) -> Array:
        """The answer, float32 [rows, ...], by ONNX Runtime in this process, behind Pillow where pictures come encoded."""
        pixels = np.stack([decoded(each) for each in self.pictures]) if self.encoded else self.pictures
        session = onnxruntime.InferenceSession(self.path / "model.onnx", providers=["CPUExecutionProvider"])
        answer: Array = session.run(None, {"image": pixels})[0]
        return answer


LOADS = (
    Load("mean-1", "mean", 1, False, "near-free model, one raw picture a request"),
    Load("mean-8", "mean", 8, False, "near-free model, eight raw pictures a request"),
    Load("resnet18", "resnet18", 1, False, "ResNet-18, one raw picture a request"),
    Load("jpeg", "thumbnail", 1, True, "JPEG 640x480, resized to 300x300, near-free model"),
)


@cache
def jpeg() -> bytes:
    """A photograph of 640x480, as cameras would write it."""
    file = io.BytesIO()
    Image.open(next(PICTURES.glob("china*"))).convert("RGB").resize((640, 480)).save(file, "JPEG", quality=90)
    return file.getvalue()


def decoded(encoded: bytes) -> Array:
    """uint8 [300,300,3]: what every server is to make of a file."""
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
