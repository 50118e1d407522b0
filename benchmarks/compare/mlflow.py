"""`mlflow models serve`: the MLmodel directory as MLflow itself puts it on HTTP, numbers as JSON lists, files as base64."""

from __future__ import annotations

import base64

from compare.loads import Load
from compare.mlmodel import laid_out
from compare.rival import Rival, Stage
from compare.wire import json_answer, json_request
from h2load import Request


def _command(stage: Stage) -> list[str]:
    serve = ["models", "serve", "-m", str(laid_out(stage)), "-h", "127.0.0.1", "-p", str(stage.ports[0])]
    program = stage.python.with_name("mlflow")
    return ["env", f"PATH={program.parent}:/usr/bin:/bin", str(program), *serve, "--env-manager", "local", "-w", "1"]


def _request(load: Load) -> Request:
    if not load.encoded:
        return json_request("/invocations", {"inputs": load.pictures.tolist()})
    rows = [[base64.b64encode(picture).decode()] for picture in load.pictures]
    return json_request("/invocations", {"dataframe_split": {"columns": ["image"], "data": rows}})


MLFLOW = Rival(
    "mlflow models serve",
    _command,
    _request,
    json_answer,
    environment="mlflow",
    package="mlflow",
    note="the same MLmodel over HTTP, numbers as JSON lists; files in base64, for Pillow in the model's own code",
)
