"""Estimators of scikit-learn that are a line of mathematics, and that skl2onnx converts in floats only, or not rightly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto
from skl2onnx.common.data_types import DoubleTensorType
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer, PolynomialFeatures, PowerTransformer

from tensign.errors import UnsupportedModel
from tensign_converters.tables import labels
from tensign_converters.tables.nodes import Graph


def discriminant(scope: Any, operator: Any, container: Any) -> None:
    """LinearDiscriminantAnalysis: a plane for each class, or one between two."""
    graph, model = Graph(scope, operator, container), operator.raw_operator
    labels.want_probabilities(container, model)
    scores = graph.add("MatMul", graph.joined(), graph.constant(model.coef_.T.astype(np.float64)))
    scores = graph.add("Add", scores, graph.constant(model.intercept_.astype(np.float64)))
    if len(model.classes_) == 2:
        above = graph.cast(graph.add("Greater", scores, graph.constant(0.0)), TensorProto.INT64)
        index = graph.add("Squeeze", above, graph.constant([1]))
        second = graph.add("Sigmoid", scores)
        graph.add("Concat", graph.add("Sub", graph.constant(1.0), second), second, output=graph.outputs[1], axis=1)
    else:
        index = graph.add("ArgMax", scores, axis=1, keepdims=0)
        graph.add("Softmax", scores, output=graph.outputs[1], axis=1)
    labels.give_label(graph, model, index)


def polynomial(scope: Any, operator: Any, container: Any) -> None:
    """PolynomialFeatures: each a product of columns, and of ones up to the degree."""
    graph, powers = Graph(scope, operator, container), operator.raw_operator.powers_
    columns = powers.shape[1]
    factors = np.full((len(powers), max(1, int(powers.sum(axis=1).max()))), columns)
    for row, power in enumerate(powers):
        factors[row, : power.sum()] = np.repeat(np.arange(columns), power)
    x = graph.add("Pad", graph.joined(), graph.constant([0, 0, 0, 1]), graph.constant(1.0))
    product = graph.add("Gather", x, graph.constant(factors[:, 0]), axis=1)
    for place in factors.T[1:]:
        product = graph.add("Mul", product, graph.add("Gather", x, graph.constant(place), axis=1))
    graph.add("Identity", product, output=graph.outputs[0])


def bins(scope: Any, operator: Any, container: Any) -> None:
    """KBinsDiscretizer."""
    graph, model = Graph(scope, operator, container), operator.raw_operator
    x, pieces = graph.joined(), []
    for column, edges in enumerate(model.bin_edges_):
        one = graph.add("Gather", x, graph.constant([column]), axis=1)
        passed = graph.cast(graph.add("GreaterOrEqual", one, graph.constant(edges[None, 1:-1])), TensorProto.INT64)
        index = graph.add("ReduceSum", passed, graph.constant([1]), keepdims=0)
        count = int(model.n_bins_[column])
        rows = np.arange(float(count))[:, None] if model.encode == "ordinal" else np.eye(count)
        pieces.append(graph.add("Gather", graph.constant(rows), index, axis=0))
    graph.add("Concat", *pieces, output=graph.outputs[0], axis=1)


def power(scope: Any, operator: Any, container: Any) -> None:
    """PowerTransformer by Yeo and Johnson: one formula above 0, one below, each with a logarithm at one exponent."""
    graph, model = Graph(scope, operator, container), operator.raw_operator
    if model.method != "yeo-johnson":
        raise UnsupportedModel(f"PowerTransformer: method {model.method}; wanted yeo-johnson")
    x, zero = graph.joined(), graph.constant(0.0)
    above = _powered(graph, graph.add("Max", x, zero), model.lambdas_)
    below = _powered(graph, graph.add("Neg", graph.add("Min", x, zero)), 2 - model.lambdas_)
    y = graph.add("Where", graph.add("GreaterOrEqual", x, zero), above, graph.add("Neg", below))
    if model.standardize:
        y = graph.add("Sub", y, graph.constant(model._scaler.mean_))
        y = graph.add("Div", y, graph.constant(model._scaler.scale_))
    graph.add("Identity", y, output=graph.outputs[0])


def _powered(graph: Graph, x: str, exponents: Any) -> str:
    """((x+1)**exponent - 1) / exponent, and log(x+1) where the exponent is 0 as scikit-learn has it."""
    one, is_log = graph.constant(1.0), np.abs(exponents) < np.spacing(1.0)
    shifted = graph.add("Add", x, one)
    raised = graph.add("Sub", graph.add("Pow", shifted, graph.constant(exponents)), one)
    raised = graph.add("Div", raised, graph.constant(np.where(is_log, 1.0, exponents)))
    return graph.add("Where", graph.constant(is_log), graph.add("Log", shifted), raised)


def function(scope: Any, operator: Any, container: Any) -> None:
    """FunctionTransformer of one of numpy's functions."""
    graph, model = Graph(scope, operator, container), operator.raw_operator
    if model.func not in _FUNCTIONS or model.kw_args:
        name = getattr(model.func, "__name__", type(model.func).__name__)
        wanted = ", ".join(one.__name__ for one in _FUNCTIONS if one)
        raise UnsupportedModel(f"FunctionTransformer: {name[:60]}; wanted one of numpy's {wanted}")
    before, kind, after = _FUNCTIONS[model.func]
    x = graph.joined()
    x = graph.add("Add", x, graph.constant(before)) if before else x
    x = graph.add(kind, x)
    graph.add("Add", x, graph.constant(after), output=graph.outputs[0])


_FUNCTIONS: dict[Any, tuple[float, str, float]] = {  # what is added before, the operator, what is added after
    None: (0.0, "Identity", 0.0),
    np.log1p: (1.0, "Log", 0.0),
    np.log: (0.0, "Log", 0.0),
    np.expm1: (0.0, "Exp", -1.0),
    np.exp: (0.0, "Exp", 0.0),
    np.sqrt: (0.0, "Sqrt", 0.0),
    np.abs: (0.0, "Abs", 0.0),
}


def _shape(width: Callable[[Any], int]) -> Callable[[Any], None]:
    def calculate(operator: Any) -> None:
        operator.outputs[0].type = DoubleTensorType([None, width(operator.raw_operator)])

    return calculate


def _same_shape(operator: Any) -> None:
    operator.outputs[0].type = DoubleTensorType([None, sum(variable.type.shape[1] for variable in operator.inputs)])


def _bins_width(model: Any) -> int:
    return len(model.n_bins_) if model.encode == "ordinal" else int(model.n_bins_.sum())


CONVERTERS: dict[type, Callable[..., None]] = {
    LinearDiscriminantAnalysis: discriminant,
    PolynomialFeatures: polynomial,
    KBinsDiscretizer: bins,
    PowerTransformer: power,
    FunctionTransformer: function,
}
SHAPES: dict[type, Callable[..., None]] = {
    LinearDiscriminantAnalysis: labels.shape,
    PolynomialFeatures: _shape(lambda model: len(model.powers_)),
    KBinsDiscretizer: _shape(_bins_width),
    PowerTransformer: _shape(lambda model: len(model.lambdas_)),
    FunctionTransformer: _same_shape,
}
