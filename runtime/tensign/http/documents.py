"""What a JSON body may say -> what `Signature.enforce_inputs` takes: MLflow's four forms, and Azure ML's by their means.

Source: mlflow.utils.proto_json_utils, release 3.17. No DataFrame is made on the way: its columns are lists.
"""

from __future__ import annotations

import binascii
import logging
import math
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from tensign.coltypes import BINARY
from tensign.errors import InvalidInput, UndecodableImage
from tensign.forms import columns_read, of_lists
from tensign.model import Model
from tensign.signature import ColumnSpec, Signature, TensorSpec

log = logging.getLogger(__name__)

Document = Mapping[str, Any]

_MAX_TOLD = 64  # names of one model: clients choose them
_TOLD: WeakKeyDictionary[Model, set[str]] = WeakKeyDictionary()


def of_mlflow(document: Any, signature: Signature) -> Any:
    """The data of {"inputs": ...} and its likes. Raises InvalidInput."""
    given = [form for form in FORMS if form in document] if isinstance(document, dict) else []
    if len(given) != 1:
        got = " and ".join(given) if given else f"a {_named(document)} with none of them"
        raise InvalidInput(f"wanted a JSON map with exactly one of {', '.join(FORMS)}, got {got}")
    return FORMS[given[0]](document[given[0]], signature)


def of_azure(document: Any, signature: Signature) -> Any:
    """The data of {"input_data": ...}: a DataFrame as {columns, index, data}, a list, a map of lists. Raises InvalidInput."""
    if not isinstance(document, dict) or "input_data" not in document:
        raise InvalidInput(f'wanted a JSON map with "input_data", got a {_named(document)} without')
    data = document["input_data"]
    split = isinstance(data, dict) and "data" in data and data.keys() <= {"columns", "index", "data"}
    return dataframe_split(data, signature) if split else inputs(data, signature)


def params_of(document: Document, model: Model) -> Any:
    """What stands under "params"; models that declare none ignore it, as MLflow does.

    As MLflow warns of names that nobody declared: in the log, each once.
    """
    given, known = document.get("params"), {spec.name for spec in model.signature.params}
    told = _TOLD.setdefault(model, set())
    for name in given if isinstance(given, dict) else ():
        if name not in known and name not in told and len(told) < _MAX_TOLD:
            told.add(name)
            log.warning("%s: param %r is not in the signature, and ignored", model.name, name[:64])
    return given if known else None


def inputs(data: Any, signature: Signature) -> Any:
    """Columns or tensors by name, records, or the one input there is."""
    if signature.columnar:
        data = _raw_binary(data, signature)
    if not signature.inputs[0].named:
        if isinstance(data, dict) and data.keys() == {spec.name for spec in signature.inputs}:  # the names our metadata tells
            return data
        if isinstance(data, dict):
            raise InvalidInput("the signature's input has no name: wanted a list, got a map")
        return data
    if len(signature.inputs) == 1 and isinstance(data, list) and not any(isinstance(row, dict) for row in data):
        return {signature.inputs[0].name: data}
    return data


def instances(data: Any, signature: Signature) -> Any:
    """As `inputs`, but a list of maps is one map per row, which has to name what the others name."""
    if isinstance(data, list) and data and isinstance(data[0], dict) and not all(map(_is_encoded, data)):
        for row, record in enumerate(data):
            if not isinstance(record, dict) or record.keys() != data[0].keys():
                raise InvalidInput(f"instances: row {row} does not name what row 0 names")
        data = {name: [record[name] for record in data] for name in data[0]}
    return inputs(data, signature)


def dataframe_records(data: Any, signature: Signature) -> Any:
    """[{column: cell}], missing cells allowed; or rows without names."""
    if not isinstance(data, list):
        raise InvalidInput(f"dataframe_records: wanted a list of maps, got a {_named(data)}")
    if any(isinstance(row, dict) for row in data):
        if not all(isinstance(row, dict) for row in data):
            raise InvalidInput("dataframe_records: wanted a list of maps, got other rows among them")
        names = dict.fromkeys(name for row in data for name in row)
        read = columns_read(names, len(data), sum(map(len, data)), signature.inputs)
        return _table({name: [row.get(name, math.nan) for row in data] for name in names if name in read}, signature)
    return dataframe_split({"data": data}, signature)


def dataframe_split(data: Any, signature: Signature) -> Any:
    """{columns, index, data}; columns and index may be left out."""
    if not isinstance(data, dict) or "data" not in data or not data.keys() <= {"columns", "index", "data"}:
        raise InvalidInput('dataframe_split: wanted a map with "data", and perhaps "columns" and "index"')
    rows, names, index = data["data"], data.get("columns"), data.get("index")
    if not isinstance(rows, list) or not isinstance(names, list | None) or not isinstance(index, list | None):
        raise InvalidInput("dataframe_split: wanted lists of columns, of index and of data")
    if not all(isinstance(row, list) for row in rows):
        rows = [[row] for row in rows]
    wide = max(map(len, rows), default=0)
    names = list(range(wide)) if names is None else names
    if not all(isinstance(name, str | int) for name in names) or len(set(names)) < len(names):
        raise InvalidInput("dataframe_split: wanted a name of its own for each column")
    if rows and len(names) != wide:
        raise InvalidInput(f"dataframe_split: {len(names)} columns are named, the data has {wide}")
    if index is not None and len(index) != len(rows):
        raise InvalidInput(f"dataframe_split: the index names {len(index)} rows, the data has {len(rows)}")
    read = columns_read(list(map(str, names)), len(rows), sum(map(len, rows)), signature.inputs)
    columns = {
        str(name): [row[at] if at < len(row) else None for row in rows] for at, name in enumerate(names) if str(name) in read
    }
    return _table(columns, signature)


FORMS: dict[str, Callable[[Any, Signature], Any]] = {
    "dataframe_split": dataframe_split,
    "dataframe_records": dataframe_records,
    "instances": instances,
    "inputs": inputs,
}


def _table(columns: dict[str, list[Any]], signature: Signature) -> Any:
    """Columns, as the signature takes them; a tensor's cells may be flat lists, which its axes put in order."""
    if signature.columnar:
        return {name: _cells(cells) for name, cells in columns.items()}
    specs = {spec.name: spec for spec in signature.inputs if isinstance(spec, TensorSpec)}
    only = signature.inputs[0]
    if not only.named:
        if len(columns) == 1:
            return {only.name: _shaped(next(iter(columns.values())), specs[only.name])}
        return [list(row) for row in zip(*columns.values(), strict=True)]
    return {name: _shaped(cells, specs[name]) for name, cells in columns.items() if name in specs}


def _cells(cells: list[Any]) -> Any:
    """[n] of whatever JSON has; lists stay cells."""
    column = np.empty(len(cells), object)
    for row, cell in enumerate(cells):
        column[row] = cell
    return column


def _raw_binary(data: Any, signature: Signature) -> Any:
    """Text of a binary column is its bytes: only in a DataFrame is it base64. {"b64": TEXT} is base64 everywhere."""
    binary = {spec.name for spec in signature.inputs if isinstance(spec, ColumnSpec) and spec.type is BINARY}
    if not binary:
        return data
    if isinstance(data, list):
        return [_raw_binary(row, signature) for row in data]
    if not isinstance(data, dict):
        return _raw(data)
    return {name: _raw(value) if name in binary else value for name, value in data.items()}


def _raw(value: Any) -> Any:
    if isinstance(value, list):
        return [_raw(each) for each in value]
    if _is_encoded(value):
        return value["b64"]
    return value.encode() if isinstance(value, str) else value


def _shaped(cells: list[Any], spec: TensorSpec) -> Any:
    """Cells of a DataFrame's column -> [n,...], where they are flat lists of as many values as the axes hold."""
    if any(isinstance(cell, str | dict) for cell in cells):
        return cells
    axes = spec.shape[1:]
    array = of_lists(f'input "{spec.name}"', cells)
    if spec.dtype.kind in "biuf" and -1 not in axes and array.size == len(cells) * math.prod(axes):
        return array.reshape(len(cells), *axes)
    return array


def decoded_images(data: Any, image: str, signature: Signature) -> Any:
    """Pictures as base64 in place of the image tensor -> [n] of bytes; anything else as it came.

    A picture is a string of base64 (`data:image/...;base64,` before it or not) or {"b64": that}, as TensorFlow Serving has it.
    Raises UndecodableImage.
    """
    named = data if isinstance(data, dict) else {signature.inputs[0].name: data}
    if isinstance(data, list) and data and all(isinstance(row, dict) and not _is_encoded(row) for row in data):
        named = instances(data, signature)
    value = named.get(image)
    pictures = [value] if _is_picture(value) else value
    if not isinstance(pictures, list) or not pictures or not all(map(_is_picture, pictures)):
        return data
    contents = [_decoded(picture, image, row) for row, picture in enumerate(pictures)]
    return {**named, image: _cells(contents)}


def _is_picture(value: Any) -> bool:
    return isinstance(value, str) or (_is_encoded(value) and isinstance(value["b64"], str))


def _is_encoded(value: Any) -> bool:
    """True for {"b64": ...}."""
    return isinstance(value, dict) and value.keys() == {"b64"}


def _decoded(picture: Any, image: str, row: int) -> bytes:
    text = picture if isinstance(picture, str) else picture["b64"]
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise UndecodableImage(f'input "{image}", image {row}: wanted base64 of a picture, got other text') from None


def _named(value: Any) -> str:
    names = {dict: "map", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
