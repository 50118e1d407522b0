"""The input example that was saved with a model, and a row to warm it up with: the first of the example, else made up."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.choice import inside
from tensign.coltypes import ArrayType, MapType, ObjectType
from tensign.errors import InvalidInput, UnsupportedModel
from tensign.mlmodel import ModelManifest
from tensign.signature import Signature
from tensign.specs import ColumnSpec, Spec

log = logging.getLogger(__name__)

_ANY_LENGTH = 224  # warm-up needs some length for an axis that may have any
_MAX_BYTES = 16 << 20
_EMPTY: dict[Any, Any] = {"string": "", "binary": b"", ArrayType: [], MapType: {}, ObjectType: {}}


def example_row(manifest: ModelManifest, signature: Signature) -> dict[str, npt.NDArray[Any]] | None:
    """{input: [1,...]}: the first row of what `saved_example` gives."""
    example = saved_example(manifest, signature)
    return example and {name: array[:1] for name, array in example.items()}


def saved_example(manifest: ModelManifest, signature: Signature) -> dict[str, npt.NDArray[Any]] | None:
    """{input: [n,...]}, None where no example was saved, or one that the signature does not let through.

    Source of its forms: mlflow.models.utils._Example, releases 1.30, 2.22 and 3.17.
    """
    info = manifest.document.get("saved_input_example_info")
    if not isinstance(info, dict):
        return None
    for key in ("serving_input_path", "artifact_path"):
        try:
            file = inside(manifest, info[key])
            if file.stat().st_size > _MAX_BYTES:
                continue
            data = _data(json.loads(file.read_bytes()))
            return signature.enforce_inputs(data, None, "mlflow-compat")
        except (KeyError, ValueError, TypeError, OSError, RecursionError, InvalidInput, UnsupportedModel) as error:
            log.debug("%s: %s", info.get(key), error)
    return None


def made_up_row(spec: Spec, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """[1,...] of zeros, of empty text and the like; shape: [n,...] as the engine wants it, an axis of any length gets some."""
    if isinstance(spec, ColumnSpec):
        row = np.zeros(1, spec.dtype)
        if spec.dtype == object:
            row[0] = _EMPTY.get(str(spec.type), _EMPTY.get(type(spec.type)))
        return row
    lengths = (1, *(axis if axis != -1 else _ANY_LENGTH for axis in shape[1:]))
    return np.full(lengths, "", object) if spec.dtype == object else np.zeros(lengths, spec.dtype)


def _data(document: Any) -> Any:
    """What stands in the file as what `enforce_inputs` takes."""
    if not isinstance(document, dict):
        return document
    if "inputs" in document:
        return document["inputs"]
    if "instances" in document:
        return document["instances"]
    split = document.get("dataframe_split", document)
    if isinstance(split, dict) and "columns" in split and "data" in split:
        columns: list[str] = split["columns"]
        return {name: [row[index] for row in split["data"]] for index, name in enumerate(columns)}
    return document.get("dataframe_records", document)
