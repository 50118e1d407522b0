"""Ours: the MLmodel directory as it is, nothing set."""

from __future__ import annotations

from compare.loads import Load
from compare.rival import Rival, Stage
from compare.wire import infer_answer, infer_request
from h2load import Request


def _command(stage: Stage) -> list[str]:
    served = ["serve", str(stage.model), "--name", "m", "--device", "cpu", "--no-http", "--grpc-port", str(stage.ports[0])]
    return [str(stage.python), "-P", "-m", "tensign", *served]


def _request(load: Load) -> Request:
    return infer_request("m", "input-0", load.pictures)


TENSIGN = Rival(
    "tensign",
    _command,
    _request,
    infer_answer,
    note="the same MLmodel over gRPC, nothing set; files decoded as it declares, resized with the extra fast-resize",
)
