"""scikit-learn's encoders and imputer -> ONNX: a category is looked up, in doubles or as text, and nothing is rounded.

skl2onnx's own take categories for whole numbers, missing values for floats. What an encoder gives for a category is asked
of the encoder itself, so that dropped and rare categories need no rules here.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto
from skl2onnx.common.data_types import DoubleTensorType, StringTensorType
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from tensign.engines.onnx import MISSING_TEXT
from tensign.errors import UnsupportedModel
from tensign.values import is_missing
from tensign_converters.tables.nodes import ML, Graph, tensor

_UNSEEN = "\ufffe"  # a text that is no category


def encode(scope: Any, operator: Any, container: Any) -> None:
    """OneHotEncoder, OrdinalEncoder. An unknown category that the encoder refuses, the graph refuses: it has no such row."""
    graph, encoder = Graph(scope, operator, container), operator.raw_operator
    pieces = []
    for index, (column, kind) in enumerate(graph.columns()):
        keys = _keys(encoder, index, text=isinstance(kind, StringTensorType))
        number = graph.add("Squeeze", _looked_up(graph, column, keys), graph.constant([1]))
        name = "refuses an unknown category" if encoder.handle_unknown == "error" else ""
        pieces.append(graph.add("Gather", graph.constant(_rows(encoder, index, keys)), number, axis=0, name=name))
    graph.add("Concat", *pieces, output=graph.outputs[0], axis=1)


def _looked_up(graph: Graph, column: str, keys: list[Any]) -> str:
    """[n,1] -> which of the keys each is, the number of keys where it is none."""
    count = len(keys)
    if isinstance(keys[0], str):
        numbers = list(range(count))
        return graph.add("LabelEncoder", column, domain=ML, keys_strings=keys, values_int64s=numbers, default_int64=count)
    places, none = tensor(np.arange(count, dtype=float)), tensor([float(count)])
    found = graph.add("LabelEncoder", column, domain=ML, keys_tensor=tensor(keys), values_tensor=places, default_tensor=none)
    return graph.cast(found, TensorProto.INT64)


def _keys(encoder: Any, index: int, *, text: bool) -> list[Any]:
    categories = encoder.categories_[index].tolist()
    if text:
        keys: list[Any] = [MISSING_TEXT if is_missing(one) else one for one in categories]
        alike = all(isinstance(key, str) for key in keys)
    else:
        keys = [math.nan if is_missing(one) else one for one in categories]
        alike = not any(isinstance(key, str) for key in keys)
        keys = [float(key) for key in keys] if alike else keys
    if not keys or not alike or len({str(key) for key in keys}) < len(keys):
        wanted = "text" if text else "numbers"
        raise UnsupportedModel(
            f"{type(encoder).__name__}: wanted {wanted} as categories of column {index}, each once; a step takes columns of"
            " text or of numbers, not both"
        )
    return keys


def _rows(encoder: Any, index: int, keys: list[Any]) -> npt.NDArray[np.float64]:
    """[categories, width]: what the encoder makes of each, and of one that it does not know, where it takes such."""
    start = sum(_widths(encoder)[:index])
    stop = start + _widths(encoder)[index]
    known = _transformed(encoder, index, encoder.categories_[index])
    if encoder.handle_unknown == "error":
        return known[:, start:stop]
    unseen = _UNSEEN if isinstance(keys[0], str) else np.nextafter(np.nanmax([0.0, *keys]), np.inf)
    unknown = _transformed(encoder, index, np.array([unseen], object if isinstance(unseen, str) else float))
    return np.concatenate([known, unknown])[:, start:stop]


def _transformed(encoder: Any, index: int, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """[values, all features]: with the first category in every other column."""
    import pandas

    names = getattr(encoder, "feature_names_in_", range(len(encoder.categories_)))
    columns = [np.repeat(categories[:1], len(values)) for categories in encoder.categories_]
    columns[index] = values
    table = {name: pandas.Series(column, dtype=column.dtype) for name, column in zip(names, columns, strict=True)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a category that is unknown on purpose
        found = encoder.transform(pandas.DataFrame(table))
    found = found.toarray() if hasattr(found, "toarray") else found
    return np.asarray(found, np.float64)


def _widths(encoder: Any) -> list[int]:
    """Of what each feature becomes."""
    if isinstance(encoder, OneHotEncoder):
        return [int(width) for width in encoder._n_features_outs]
    return [1] * len(encoder.categories_)


def encoded_shape(operator: Any) -> None:
    operator.outputs[0].type = DoubleTensorType([None, sum(_widths(operator.raw_operator))])


def impute(scope: Any, operator: Any, container: Any) -> None:
    """SimpleImputer."""
    graph, imputer = Graph(scope, operator, container), operator.raw_operator
    x = graph.joined()
    if any(map(is_missing, imputer.statistics_)):
        raise UnsupportedModel("SimpleImputer: a column of which nothing was there when it was fitted")
    if isinstance(graph.inputs[0][1], StringTensorType):
        marker = MISSING_TEXT if is_missing(imputer.missing_values) else str(imputer.missing_values)
        missing = graph.add("Equal", x, graph.constant(marker))
        fill = graph.constant([imputer.statistics_.tolist()])
    else:
        marked = is_missing(imputer.missing_values)
        missing = graph.add("IsNaN", x) if marked else graph.add("Equal", x, graph.constant(float(imputer.missing_values)))
        fill = graph.constant(imputer.statistics_.astype(np.float64)[None])
    filled = graph.add("Where", missing, fill, x)
    if imputer.indicator_ is not None:
        flags = graph.add("Gather", missing, graph.constant(imputer.indicator_.features_.astype(np.int64)), axis=1)
        filled = graph.add("Concat", filled, graph.cast(flags, TensorProto.DOUBLE), axis=1)
    graph.add("Identity", filled, output=graph.outputs[0])


def imputed_shape(operator: Any) -> None:
    imputer = operator.raw_operator
    flags = 0 if imputer.indicator_ is None else len(imputer.indicator_.features_)
    kind = type(operator.inputs[0].type)
    operator.outputs[0].type = kind([None, len(imputer.statistics_) + flags])


CONVERTERS: dict[type, Callable[..., None]] = {OneHotEncoder: encode, OrdinalEncoder: encode, SimpleImputer: impute}
SHAPES: dict[type, Callable[..., None]] = {
    OneHotEncoder: encoded_shape,
    OrdinalEncoder: encoded_shape,
    SimpleImputer: imputed_shape,
}
