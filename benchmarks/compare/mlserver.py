"""MLServer with its MLflow runtime, over gRPC; the model in the server's own process, which was its best here."""

from __future__ import annotations

import json

from compare.loads import Load
from compare.mlmodel import laid_out
from compare.rival import Rival, Stage
from compare.wire import infer_answer, infer_request
from h2load import Request


def _command(stage: Stage) -> list[str]:
    settings = {
        "name": "m",
        "implementation": "mlserver_mlflow.MLflowRuntime",
        "max_batch_size": 0 if stage.encoded else 64,  # its batcher cannot join columns of bytes
        "max_batch_time": 0.001,
        "parameters": {"uri": str(laid_out(stage))},
    }
    (stage.folder / "model-settings.json").write_text(json.dumps(settings))
    grpc, http, metrics = stage.ports[:3]
    variables = {
        "HOST": "127.0.0.1",
        "GRPC_PORT": grpc,
        "HTTP_PORT": http,
        "METRICS_PORT": metrics,
        "PARALLEL_WORKERS": 0,
        "DEBUG": "false",
    }
    given = [f"MLSERVER_{name}={value}" for name, value in variables.items()]
    return ["env", *given, str(stage.python.with_name("mlserver")), "start", str(stage.folder)]


def _request(load: Load) -> Request:
    return infer_request("m", "image", load.pictures)


MLSERVER = Rival(
    "MLServer",
    _command,
    _request,
    infer_answer,
    environment="mlserver",
    package="mlserver",
    note="its MLflow runtime over gRPC on the same MLmodel; files for Pillow in the model's own code",
)
