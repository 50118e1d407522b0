"""The model, where a rival leaves it to its users' own code: ONNX Runtime, behind Pillow for encoded pictures."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

SIDE = 300


class OnnxModel:
    """uint8 [n,300,300,3] or object [n] of JPEG files -> float32 [n, ...]."""

    def __init__(self, file: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["MODEL_THREADS"])
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the server needs those cores too
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def __call__(self, pictures: npt.NDArray[Any]) -> npt.NDArray[Any]:
        pixels = np.stack([decoded(each) for each in pictures.ravel()]) if pictures.dtype == object else pictures
        answer: npt.NDArray[Any] = self._session.run(None, {"image": pixels})[0]
        return answer


def decoded(encoded: bytes) -> npt.NDArray[Any]:
    """uint8 [300,300,3]."""
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
