"""A small network of photographs, and pictures, that variants are made of in tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from tensign.proof.samples import photographs

pytest.importorskip("torch")

import torch
from torch import nn

SIZE = 48
DECLARED: dict[str, Any] = {
    "steps": [{"op": "resize", "height": SIZE, "width": SIZE, "method": "squish"}],
    "divide": 255.0,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "activation": "softmax",
}
BOTH = ("fp16", "int8")


def network() -> nn.Module:
    """Random, its batch norms calibrated on photographs, so that answers differ from picture to picture."""
    torch.manual_seed(3)
    last = nn.Linear(16, 4)
    layers = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, groups=2), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(16), last),
    )
    pixels = np.stack([np.asarray(PIL.Image.open(file).convert("RGB").resize((SIZE, SIZE))) for file in photographs()])
    with torch.no_grad():
        for _ in range(60):
            layers((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25)
        last.weight *= 4
    return layers.eval()


def per_pixel() -> nn.Module:
    """Three classes for each pixel."""
    torch.manual_seed(0)
    last = nn.Conv2d(8, 3, 3, padding=1)
    with torch.no_grad():
        last.weight *= 8
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), last).eval()


def folder_of(target: Path, images: Sequence[PIL.Image.Image]) -> Path:
    target.mkdir()
    for number, image in enumerate(images):
        image.save(target / f"{number:03}.png")
    return target


def answer(file: Path | bytes, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    import onnxruntime

    model = str(file) if isinstance(file, Path) else file
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    given: npt.NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: pixels})[0]
    return given


def noise(rows: int = 4) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (rows, SIZE, SIZE, 3), np.uint8)


def feeds(pixels: npt.NDArray[np.uint8]) -> list[dict[str, npt.NDArray[Any]]]:
    return [{"image": row[None]} for row in pixels]
