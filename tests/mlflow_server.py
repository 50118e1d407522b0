"""MLflow's own scoring server over several models, each under its name; prints its port. Run by the Python that has the MLflow.

python mlflow_server.py NAME=PATH [NAME=PATH...]
"""

from __future__ import annotations

import os
import socket
import sys
import warnings

warnings.simplefilter("ignore")  # of libraries that are not ours
os.environ["MLFLOW_ALLOW_MODEL_CODE_EXECUTION"] = "true"

import mlflow.pyfunc  # noqa: E402
import uvicorn  # noqa: E402
from mlflow.pyfunc import scoring_server  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.routing import Mount  # noqa: E402


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)  # who connects now waits until the models are loaded
    print(listener.getsockname()[1], flush=True)
    named = (argument.split("=", 1) for argument in sys.argv[1:])
    mounts = [Mount(f"/{name}", scoring_server.init(mlflow.pyfunc.load_model(path))) for name, path in named]
    uvicorn.Server(uvicorn.Config(Starlette(routes=mounts), log_level="critical")).run([listener])


if __name__ == "__main__":
    main()
