"""Every path that is answered, and how."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tensign.admission import Admission
from tensign.config import ServerConfig
from tensign.errors import ModelNotFound
from tensign.http.exchange import Exchange
from tensign.http.mlflow import MlflowFace
from tensign.model import Model
from tensign.repository import Repository


def make_app(repository: Repository, config: ServerConfig, admission: Admission) -> Starlette:
    """The ASGI application over loaded models."""
    chosen = Chosen(repository)
    mlflow = MlflowFace(chosen, Exchange(admission, config))
    routes = [
        Route("/ping", mlflow.ping),
        Route("/health", mlflow.ping),
        Route("/version", mlflow.version),
        Route("/invocations", mlflow.invocations, methods=["POST"]),
        Route("/models/{name}/invocations", mlflow.invocations, methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _no_such_path})


class Chosen:
    """The model that a path means."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def __call__(self, request: Request) -> Model:
        """Raises ModelNotFound."""
        if "name" in request.path_params:
            return self._repository.get(request.path_params["name"])
        names = sorted({model.name for model in self._repository})
        if len(names) > 1:
            path = request.url.path
            raise ModelNotFound(f"several models are served: ask one by its name, POST /models/NAME{path}; {', '.join(names)}")
        return self._repository.get(names[0])


async def _no_such_path(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    word = {404: "ENDPOINT_NOT_FOUND"}.get(error.status_code, "BAD_REQUEST")
    return JSONResponse({"error_code": word, "message": error.detail}, error.status_code, headers=error.headers)
