"""Triton's Python backend: all requests that its batcher gathered are one batch."""
# ruff: noqa: E402

from __future__ import annotations

import json
import os
import sys
from typing import Any

sys.path[:0] = os.environ["PYTHONPATH"].split(":")  # the Python in PyTriton's wheel heeds no variables

import numpy as np
import triton_python_backend_utils as triton
from onnx_model import OnnxModel


class TritonPythonModel:
    def initialize(self, arguments: dict[str, str]) -> None:
        parameters = json.loads(arguments["model_config"])["parameters"]
        self._model = OnnxModel(parameters["file"]["string_value"])

    def execute(self, requests: list[Any]) -> list[Any]:
        inputs = [triton.get_input_tensor_by_name(request, "image").as_numpy() for request in requests]
        answer = self._model(inputs[0] if len(inputs) == 1 else np.concatenate(inputs))
        ends = np.cumsum([len(each) for each in inputs])[:-1]
        return [triton.InferenceResponse([triton.Tensor("answer", part)]) for part in np.split(answer, ends)]
