"""Azure ML's face: what an online endpoint of an MLflow model answers.

Source: the deployment guide of Azure Machine Learning ("how-to-deploy-mlflow-models") and its inference HTTP server.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from tensign.http import documents
from tensign.http.answer import written
from tensign.http.exchange import Exchange, Reading, enforced
from tensign.http.mlflow import JSON, content_type
from tensign.http.openapi import description
from tensign.jsontext import parse_json
from tensign.model import Model
from tensign.request import Enforced, Outputs


class AzureFace:
    """Methods are named as their paths."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def live(self, request: Request) -> Response:
        unhealthy = self._exchange.unhealthy
        return PlainTextResponse(unhealthy or "Healthy", 503 if unhealthy else 200)

    async def score(self, request: Request) -> Response:
        def read() -> Reading:
            content_type(request.headers.get("content-type", ""), JSON)
            return Reading(_payload, quick=True)

        return await self._exchange.respond(request, read, _plain, _refused)

    async def swagger(self, request: Request) -> Response:
        try:
            model = self._exchange.chosen(request)
        except Exception as error:
            return self._exchange.refusal(error, _refused)
        prefix = request.url.path.removesuffix("/swagger.json")
        return JSONResponse(description(model, prefix))


def _payload(model: Model, body: bytes) -> Enforced:
    document = parse_json(body)
    data = documents.of_azure(document, model.signature)
    return enforced(model, data, documents.params_of(document, model))


def _plain(model: Model, outputs: Outputs) -> bytes:
    return written(model, outputs).encode()


def _refused(status: int, word: str, text: str) -> Response:
    return JSONResponse({"message": text}, status)
