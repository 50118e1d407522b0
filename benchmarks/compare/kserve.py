"""KServe's Python server, which batches nothing; running the model, and decoding, is its users' own code."""

from __future__ import annotations

from compare.loads import Load
from compare.rival import INSIDE, Rival, Stage
from compare.wire import infer_answer, infer_request
from h2load import Request


def _command(stage: Stage) -> list[str]:
    grpc, http = stage.ports[:2]
    return [str(stage.python), str(INSIDE / "kserve_server.py"), str(stage.model / "model.onnx"), str(http), str(grpc)]


def _request(load: Load) -> Request:
    return infer_request("m", "image", load.pictures)


KSERVE = Rival(
    "KServe",
    _command,
    _request,
    infer_answer,
    environment="kserve",
    package="kserve",
    note="its Python server over gRPC, no batching; ONNX Runtime and Pillow in its users' own code",
)
