"""MLflow's face: what `mlflow models serve` answers, over our models.

Source: mlflow.pyfunc.scoring_server and mlflow.utils.proto_json_utils, release 3.17.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from tensign.errors import InvalidInput, WrongContentType
from tensign.http.body import parse_json
from tensign.http.exchange import Exchange, Payload
from tensign.http.status import CLIENT_GONE, status_of
from tensign.model import Model
from tensign.request import Outputs
from tensign.version import __version__

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
JSON, CSV = "application/json", "text/csv"


class MlflowFace:
    """Methods are named as their paths."""

    def __init__(self, chosen: Any, exchange: Exchange) -> None:
        self._chosen, self._exchange = chosen, exchange

    async def ping(self, request: Request) -> Response:
        ready = self._exchange.admission.ready
        return Response("\n", 200 if ready else 503, media_type=JSON)

    async def version(self, request: Request) -> Response:
        return Response(__version__, media_type=JSON)

    async def invocations(self, request: Request) -> Response:
        try:
            model = self._chosen(request)
            kind = content_type(request.headers.get("content-type", ""))
            answer = await self._exchange.answer(request, model, partial(_read, model, kind), partial(_written, model))
        except ClientDisconnect:
            return Response(status_code=CLIENT_GONE)
        except Exception as error:
            status, word, text = status_of(error)
            return JSONResponse({"error_code": word, "message": text}, status)
        return Response(answer, media_type=JSON)


def content_type(header: str) -> str:
    """The media type of a body in UTF-8. Raises WrongContentType."""
    kind, *parameters = (part.strip() for part in header.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name != "charset" or value.lower() != "utf-8":
            raise WrongContentType(f'content type: wanted no parameter but charset=utf-8, got "{parameter[:64]}"')
    if kind not in (JSON, CSV):
        raise WrongContentType(f'content type: wanted {JSON} or {CSV}, got "{kind[:64]}"')
    return kind


def _read(model: Model, kind: str, body: bytes) -> Payload:
    document = parse_json(body)
    forms = [form for form in FORMS if form in document] if isinstance(document, dict) else []
    if len(forms) != 1:
        raise InvalidInput(f"wanted a JSON map with exactly one of {', '.join(FORMS)}, got {', '.join(forms) or 'none'}")
    data = document[forms[0]]
    spec = model.signature.inputs[0]
    named = data if isinstance(data, dict) else {spec.name: data}
    arrays = {}
    for each in model.signature.inputs:
        if each.name in named:
            arrays[each.name] = np.array(named[each.name], each.dtype)
    return Payload(model.enforced(arrays), {})


def _written(model: Model, outputs: Outputs) -> bytes:
    lists = {name: array.tolist() for name, array in outputs.items()}
    first = model.signature.outputs[0]
    return json.dumps({"predictions": lists if first.named else lists[first.name]}).encode()
