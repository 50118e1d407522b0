"""KServe's Python server as its users write it. `python kserve_server.py MODEL.onnx HTTP_PORT GRPC_PORT`"""

from __future__ import annotations

import sys
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from onnx_model import OnnxModel


class Onnx(Model):  # type: ignore[misc]
    def __init__(self, file: str) -> None:
        super().__init__("m")
        self._model = OnnxModel(file)
        self.ready = True

    def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:
        answer = self._model(payload.inputs[0].as_numpy())
        output = InferOutput("answer", list(answer.shape), "FP32")
        output.set_data_from_numpy(answer, binary_data=True)
        return InferResponse(payload.id, self.name, [output])


if __name__ == "__main__":
    file, http_port, grpc_port = sys.argv[1:]
    ModelServer(http_port=int(http_port), grpc_port=int(grpc_port), workers=1, enable_docs_url=False).start([Onnx(file)])
