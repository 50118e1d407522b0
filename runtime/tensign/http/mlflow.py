"""MLflow's face: what `mlflow models serve` answers, over our models.

Source: mlflow.pyfunc.scoring_server, release 3.17.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tensign.errors import WrongContentType
from tensign.http import documents, tables
from tensign.http.answer import written
from tensign.http.exchange import Exchange, Reading, enforced
from tensign.jsontext import parse_json
from tensign.model import Model
from tensign.request import Enforced, Outputs
from tensign.version import __version__

JSON = "application/json"


class MlflowFace:
    """Methods are named as their paths."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def ping(self, request: Request) -> Response:
        return Response("\n", 503 if self._exchange.unhealthy else 200, media_type=JSON)

    async def version(self, request: Request) -> Response:
        return Response(__version__, media_type=JSON)

    async def invocations(self, request: Request) -> Response:
        def read() -> Reading:
            kind = content_type(request.headers.get("content-type", ""), *_READERS)
            return Reading(_READERS[kind], quick=kind == JSON)

        return await self._exchange.respond(request, read, _wrapped, _refused)


def content_type(header: str, *known: str) -> str:
    """The media type of a body in UTF-8. Raises WrongContentType."""
    kind, *parameters = (part.strip() for part in header.split(";"))
    for parameter in filter(None, parameters):
        name, _, value = parameter.partition("=")
        if (name.strip().lower(), value.strip().strip('"').lower()) != ("charset", "utf-8"):
            raise WrongContentType(f'content type: wanted no parameter but charset=utf-8, got "{parameter[:64]}"')
    kind = kind.lower()
    if kind not in known:
        raise WrongContentType(f'content type: wanted {" or ".join(known)}, got "{kind[:64]}"')
    return kind


def _of_json(model: Model, body: bytes) -> Enforced:
    document = parse_json(body)
    data = documents.of_mlflow(document, model.signature)
    return enforced(model, data, documents.params_of(document, model))


def _of_csv(model: Model, body: bytes) -> Enforced:
    return enforced(model, tables.of_csv(body, model.signature))


def _of_parquet(model: Model, body: bytes) -> Enforced:
    return enforced(model, tables.of_parquet(body, model.signature))


_READERS: dict[str, Callable[[Model, bytes], Enforced]] = {
    JSON: _of_json,
    "text/csv": _of_csv,
    "application/vnd.apache.parquet": _of_parquet,
}


def _wrapped(model: Model, outputs: Outputs) -> bytes:
    return f'{{"predictions": {written(model, outputs)}}}'.encode()


def _refused(status: int, word: str, text: str) -> Response:
    return JSONResponse({"error_code": word, "message": text}, status)
