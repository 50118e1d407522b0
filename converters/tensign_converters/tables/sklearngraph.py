"""A fitted scikit-learn estimator -> the ONNX graph of it that skl2onnx makes, with our own converters where its round."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, StringTensorType
from skl2onnx.sklapi import CastTransformer
from sklearn.base import BaseEstimator
from sklearn.ensemble import VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.pipeline import Pipeline

from tensign.errors import UnsupportedModel
from tensign_converters.tables import formulas, guard, lookups, trees
from tensign_converters.tables.nodes import ML

OPSET, ML_OPSET = 20, 4  # what ONNX Runtime 1.18 and later read
_KNOWN_ML_OPSET = 3  # to skl2onnx; ours use what 4 adds to LabelEncoder, the one operator that it changes
_PREFIX = "model/"  # before every name of this graph's, so that columns may be called anything
_WORDS = {r"(?u)\b\w\w+\b": r"[\pL\pN_][\pL\pN_]+", r"(?u)\b\w+\b": r"[\pL\pN_]+"}  # of Python's re, of RE2
_CLASS = re.compile(r"<class '([\w.]+)'>")


@dataclass(frozen=True, slots=True)
class Body:
    """nodes and constants of a graph; inputs: the tensors they read, in the order asked for; outputs: what the estimator
    predicts, then its probabilities or scores, where it has such."""

    nodes: Sequence[onnx.NodeProto]
    constants: Sequence[onnx.TensorProto]
    inputs: Sequence[str]
    outputs: Sequence[str]
    versions: dict[str, int]
    producer: str


def converted(estimator: Any, inputs: dict[str, int]) -> Body:
    """inputs: {name: width} of float64 [n,width], or of text [n,1] where the width is 0.

    Raises UnsupportedModel for what is known to have no counterpart, and whatever skl2onnx raises.
    """
    for one in nested(estimator):
        if isinstance(one, VotingClassifier):
            one.flatten_transform = False  # skl2onnx refuses True, which matters to transform() alone
    numbers = {name: DoubleTensorType([None, width]) for name, width in inputs.items() if width}
    types = [(name, numbers.get(name, StringTensorType([None, 1]))) for name in inputs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # skl2onnx's own
        model = convert_sklearn(
            estimator,
            name="model",
            initial_types=types,
            target_opset={"": OPSET, ML: _KNOWN_ML_OPSET},
            custom_conversion_functions=lookups.CONVERTERS | trees.CONVERTERS | formulas.CONVERTERS | guard.CONVERTERS,
            custom_shape_calculators=lookups.SHAPES | trees.SHAPES | formulas.SHAPES | guard.SHAPES,
            options={id(one): _options(one) for one in nested(estimator)},
        )
    model = onnx.compose.add_prefix(model, _PREFIX, rename_nodes=False)
    maps = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "ZipMap"}
    return Body(
        [node for node in model.graph.node if node.op_type != "ZipMap"],
        list(model.graph.initializer),
        [value.name for value in model.graph.input],
        [maps.get(value.name, value.name) for value in model.graph.output],
        {**{opset.domain: opset.version for opset in model.opset_import}, "": OPSET, ML: ML_OPSET},
        f"{model.producer_name} {model.producer_version}",
    )


def in_floats(estimator: Any) -> Any:
    """The same estimator, its last step in float32, for those that ONNX Runtime has in no other precision."""
    steps = estimator.steps if isinstance(estimator, Pipeline) else [("model", estimator)]
    return Pipeline([*steps[:-1], ("floats", CastTransformer(dtype=np.float32)), steps[-1]])


def nested(estimator: Any) -> Iterator[Any]:
    """The estimator, and those that it is made of."""
    yield estimator
    for value in vars(estimator).values():
        for part in value if isinstance(value, list | tuple) else [value]:
            for one in part if isinstance(part, tuple) else [part]:
                if isinstance(one, BaseEstimator):
                    yield from nested(one)


def named(estimator: Any) -> str:
    """Its class, and those of a pipeline's steps."""
    if isinstance(estimator, Pipeline):
        return f"{type(estimator).__name__} of {', '.join(type(step).__name__ for _, step in estimator.steps)}"
    return type(estimator).__name__


def reason(error: Exception) -> str:
    """What of the estimator skl2onnx could not convert, in a line."""
    text = " ".join(str(error).split())
    named = _CLASS.search(text)
    if named and type(error).__name__.startswith("Missing"):
        return f"skl2onnx has no converter for {named.group(1)}"
    return f"{type(error).__name__}: {text[:300]}"


def _options(estimator: Any) -> dict[str, str]:
    """How text becomes words; for others none. Raises UnsupportedModel for a pattern that has no counterpart."""
    if not isinstance(estimator, CountVectorizer):
        return {}
    if estimator.analyzer != "word" or estimator.token_pattern not in _WORDS:
        raise UnsupportedModel(
            f"{type(estimator).__name__}: analyzer {str(estimator.analyzer)[:60]!a}, token_pattern"
            f" {str(estimator.token_pattern)[:60]!a}; wanted words by {' or '.join(map(ascii, _WORDS))}"
        )
    return {"tokenexp": _WORDS[estimator.token_pattern], "locale": "C.UTF-8"}  # which every glibc has
