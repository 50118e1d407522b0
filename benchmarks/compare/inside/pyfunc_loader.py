"""MLflow's loader_module of a model with one binary column: each row a JPEG file."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx_model import OnnxModel


class Pictures:
    def __init__(self, file: str) -> None:
        self._model = OnnxModel(file)

    def predict(self, table: Any, params: Any = None) -> npt.NDArray[Any]:
        return self._model(np.array(table["image"], object))


def _load_pyfunc(path: str) -> Pictures:
    return Pictures(path)
