"""Every path that is answered, and by which face."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tensign.admission import Admission
from tensign.config import ServerConfig
from tensign.http.azure import AzureFace
from tensign.http.exchange import Exchange
from tensign.http.mlflow import MlflowFace
from tensign.repository import Repository


def make_app(repository: Repository, config: ServerConfig, admission: Admission) -> Starlette:
    """The ASGI application over loaded models. Where there are several, each has its own paths under /models/NAME."""
    exchange = Exchange(repository, admission, config)
    mlflow, azure = MlflowFace(exchange), AzureFace(exchange)

    def metrics(request: Request) -> Response:
        from tensign.http.metrics import exposition  # a tenth of a second, which those pay who ask

        page, content_type = exposition(repository, admission, request.headers.get("accept", ""))
        return Response(page, media_type=content_type)

    routes = [
        Route("/", azure.live),
        Route("/ping", mlflow.ping),
        Route("/health", mlflow.ping),
        Route("/version", mlflow.version),
        Route("/metrics", metrics),
    ]
    for prefix in ("", "/models/{name}"):
        routes += [
            Route(f"{prefix}/invocations", mlflow.invocations, methods=["POST"]),
            Route(f"{prefix}/score", azure.score, methods=["POST"]),
            Route(f"{prefix}/swagger.json", azure.swagger),
        ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _no_such_path})
    app.router.redirect_slashes = False
    return app


async def _no_such_path(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    word = {404: "ENDPOINT_NOT_FOUND"}.get(error.status_code, "BAD_REQUEST")
    return JSONResponse({"error_code": word, "message": error.detail}, error.status_code, headers=error.headers)
