"""OpenAPI 3 of one model, made from its signature: what Azure ML's `/swagger.json` answers, with MLflow's paths beside it."""

from __future__ import annotations

import math
from typing import Any

from tensign.coltypes import AnyType, ArrayType, ColumnType, MapType, ObjectType, ScalarType
from tensign.http.answer import form_of
from tensign.model import Model
from tensign.signature import ColumnSpec, ParamSpec, TensorSpec
from tensign.version import __version__

Schema = dict[str, Any]

_SCALARS: dict[str, Schema] = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer", "format": "int32"},
    "long": {"type": "integer", "format": "int64"},
    "float": {"type": "number", "format": "float"},
    "double": {"type": "number", "format": "double"},
    "string": {"type": "string"},
    "binary": {"type": "string", "format": "byte"},
    "datetime": {"type": "string", "format": "date-time"},
}
_KINDS: dict[str, Schema] = {"b": {"type": "boolean"}, "i": {"type": "integer"}, "u": {"type": "integer"}}
_PICTURE: Schema = {"type": "string", "format": "byte", "description": "a JPEG, PNG, WebP or BMP picture, base64"}


def description(model: Model, prefix: str) -> Schema:
    """The document; prefix: what stands before the paths, such as "/models/NAME"."""
    refusal = _content({"$ref": "#/components/schemas/ErrorResponse"}, "The request was refused, or failed.")
    mlflow_refusal = _content({"$ref": "#/components/schemas/MlflowErrorResponse"}, "The request was refused, or failed.")
    return {
        "openapi": "3.0.3",
        "info": {"title": model.name, "description": f"{model.signature}", "version": model.version},
        "servers": [{"url": prefix or "/"}],
        "paths": {
            "/": {
                "servers": [{"url": "/"}],
                "get": {
                    "operationId": "ServiceHealthCheck",
                    "responses": {
                        "200": {
                            "description": "The server takes requests.",
                            "content": {"text/plain": {"schema": {"type": "string", "example": "Healthy"}}},
                        }
                    },
                },
            },
            "/score": {
                "post": {
                    "operationId": "RunMLService",
                    "requestBody": _body("ServiceInput"),
                    "responses": {
                        "200": _content({"$ref": "#/components/schemas/ServiceOutput"}, "The predictions."),
                        "default": refusal,
                    },
                }
            },
            "/invocations": {
                "post": {
                    "operationId": "Invocations",
                    "requestBody": _body("Invocation"),
                    "responses": {
                        "200": _content({"$ref": "#/components/schemas/Predictions"}, "The predictions."),
                        "default": mlflow_refusal,
                    },
                }
            },
        },
        "components": {"schemas": _schemas(model)},
        "x-tensign-version": __version__,
    }


def _schemas(model: Model) -> Schema:
    output = _output(model)
    inputs = _inputs(model)
    frame = _frame(model)
    params = _params(model)
    forms: Schema = {"inputs": inputs, "instances": {"oneOf": [inputs, {"type": "array", "items": {"type": "object"}}]}}
    forms |= {"dataframe_split": frame, "dataframe_records": {"type": "array", "items": {"type": "object"}}}
    return {
        "ServiceInput": {
            "type": "object",
            "required": ["input_data"],
            "properties": {"input_data": {"oneOf": [inputs, frame]}, **params},
        },
        "ServiceOutput": output,
        "Invocation": {
            "oneOf": [
                {"type": "object", "required": [form], "properties": {form: schema, **params}} for form, schema in forms.items()
            ]
        },
        "Predictions": {"type": "object", "required": ["predictions"], "properties": {"predictions": output}},
        "ErrorResponse": {"type": "object", "required": ["message"], "properties": {"message": {"type": "string"}}},
        "MlflowErrorResponse": {
            "type": "object",
            "required": ["error_code", "message"],
            "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
        },
    }


def _inputs(model: Model) -> Schema:
    specs = model.signature.inputs
    schemas = {spec.name: _rows(spec, model.plan.image) for spec in specs}
    required = [spec.name for spec in specs if not isinstance(spec, ColumnSpec) or spec.required]
    if not specs[0].named:
        return schemas[specs[0].name]
    named: Schema = {"type": "object", "properties": schemas}
    if required:
        named["required"] = required
    return {"oneOf": [named, next(iter(schemas.values()))]} if len(specs) == 1 else named


def _frame(model: Model) -> Schema:
    names = [spec.name for spec in model.signature.inputs if spec.named]
    column: Schema = {"type": "string", "enum": names} if names else {}
    lists: Schema = {"type": "array", "items": {"type": "array", "items": {}}}
    return {
        "type": "object",
        "required": ["data"],
        "properties": {
            "columns": {"type": "array", "items": column},
            "index": {"type": "array", "items": {}},
            "data": lists,
        },
    }


def _params(model: Model) -> Schema:
    if not model.signature.params:
        return {}
    return {"params": {"type": "object", "properties": {spec.name: _param(spec) for spec in model.signature.params}}}


def _param(spec: ParamSpec) -> Schema:
    schema = _column(spec.type) if spec.shape is None else {"type": "array", "items": _column(spec.type)}
    plain = isinstance(spec.default, str | bool | int | list) or (
        isinstance(spec.default, float) and math.isfinite(spec.default)
    )
    return {**schema, "default": spec.default} if plain else {**schema, "nullable": True}


def _rows(spec: TensorSpec | ColumnSpec, image: str | None) -> Schema:
    """All rows of one input."""
    if isinstance(spec, ColumnSpec):
        return {"type": "array", "items": _column(spec.type)}
    tensor = _tensor(spec)
    if spec.name != image:
        return tensor
    picture: Schema = {"oneOf": [_PICTURE, {"type": "object", "required": ["b64"], "properties": {"b64": _PICTURE}}]}
    return {"oneOf": [tensor, {"type": "array", "items": picture}]}


def _tensor(spec: TensorSpec) -> Schema:
    """Nested lists, the last axis innermost."""
    schema: Schema = dict(_KINDS.get(spec.dtype.kind, {"type": "number" if spec.dtype.kind == "f" else "string"}))
    if spec.dtype.kind == "u" and spec.dtype.itemsize < 4:
        schema |= {"minimum": 0, "maximum": (1 << 8 * spec.dtype.itemsize) - 1}
    for axis in reversed(spec.shape):
        schema = {"type": "array", "items": schema}
        if axis != -1:
            schema |= {"minItems": axis, "maxItems": axis}
    return schema


def _column(kind: ColumnType) -> Schema:
    match kind:
        case ScalarType(name=name):
            return dict(_SCALARS[name])
        case ArrayType(items=items):
            return {"type": "array", "items": _column(items)}
        case MapType(values=values):
            return {"type": "object", "additionalProperties": _column(values)}
        case ObjectType(properties=properties):
            required = [each.name for each in properties if each.required]
            made: Schema = {"type": "object", "properties": {each.name: _column(each.type) for each in properties}}
            return {**made, "required": required} if required else made
        case AnyType():
            return {}


def _output(model: Model) -> Schema:
    """In the form in which it is answered."""
    specs, form = model.signature.outputs, form_of(model)
    if not specs:
        return {}
    if form.kind in ("dataframe", "series", "records"):
        return {"type": "array", "items": {"type": "object"}}
    schemas = [_rows(spec, None) for spec in specs]
    if form.kind == "dict":
        names = form.names if len(form.names) == len(specs) else [spec.name for spec in specs]
        return {"type": "object", "properties": dict(zip(names, schemas, strict=True))}
    return schemas[0] if len(schemas) == 1 else {"type": "array", "items": {}}


def _body(name: str) -> Schema:
    return {"required": True, "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}}


def _content(schema: Schema, text: str) -> Schema:
    return {"description": text, "content": {"application/json": {"schema": schema}}}
