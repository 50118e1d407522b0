"""scikit-learn's trees and their ensembles -> ONNX, exactly: which leaf of each tree, then the leaves' own doubles added up.

ONNX Runtime's tree operators answer in floats, and a tie of two classes is then anybody's; so they are asked for the number
of the leaf alone. Trees compare float32, rounded as scikit-learn rounds them; histogram boosting compares doubles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import sklearn.ensemble as ensembles
from onnx import TensorProto
from sklearn.base import is_classifier
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from tensign.errors import UnsupportedModel
from tensign_converters.tables import labels
from tensign_converters.tables.nodes import ML, Graph, tensor

_MAX_LEAVES = 1 << 24  # of one tree: the operator's answer is a float32


@dataclass(frozen=True, slots=True)
class Tree:
    """Arrays [nodes]; a node whose left is 0 is a leaf; values: [nodes, width]."""

    feature: npt.NDArray[np.int64]
    threshold: npt.NDArray[np.float64]
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    missing_left: npt.NDArray[np.bool_]
    values: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        inner = np.flatnonzero(self.left)
        children = np.stack([self.left, self.right])[:, inner]
        if (children <= inner).any() or (children >= len(self.left)).any() or len(self.left) - len(inner) > _MAX_LEAVES:
            raise UnsupportedModel("a tree whose nodes are not in the order in which scikit-learn writes them")


def _plain(estimator: Any, width: int) -> Tree:
    """width: of a leaf's values."""
    tree = estimator.tree_
    left, right = (np.where(side < 0, 0, side) for side in (tree.children_left, tree.children_right))
    missing = np.asarray(tree.missing_go_to_left, bool)
    values = tree.value[:, 0, :width] if is_classifier(estimator) else tree.value[:, :, 0]
    return Tree(tree.feature, tree.threshold, left, right, missing, values)


def _histogram(predictor: Any) -> Tree:
    nodes = predictor.nodes
    left, right = (np.where(nodes["is_leaf"], 0, nodes[side]).astype(np.int64) for side in ("left", "right"))
    missing = nodes["missing_go_to_left"].astype(bool)
    return Tree(nodes["feature_idx"].astype(np.int64), nodes["num_threshold"], left, right, missing, nodes["value"][:, None])


def _summed(graph: Graph, trees: Sequence[Tree], width: int, *, doubles: bool) -> str:
    """[n,width]: of trees whose leaves have one value each, every width-th is added up to the same output."""
    x = graph.cast(graph.joined(), TensorProto.DOUBLE if doubles else TensorProto.FLOAT)
    leaves = graph.cast(graph.add("TreeEnsembleRegressor", x, domain=ML, **_encoded(trees, doubles)), TensorProto.INT64)
    counts = [int((tree.left == 0).sum()) for tree in trees]
    rows = graph.add("Add", leaves, graph.constant(np.cumsum([0, *counts[:-1]])))
    values = graph.constant(np.concatenate([tree.values[tree.left == 0] for tree in trees]))
    rounds = len(trees) * trees[0].values.shape[1] // width
    apart = graph.add("Reshape", graph.add("Gather", values, rows, axis=0), graph.constant([-1, rounds, width]))
    return graph.add("ReduceSum", apart, graph.constant([1]), keepdims=0)


def _encoded(trees: Sequence[Tree], doubles: bool) -> dict[str, Any]:
    """Attributes of an operator that answers [n,trees]: the leaf's place among the leaves of its tree."""
    numbers = [np.arange(len(tree.left)) for tree in trees]
    leaf = [tree.left == 0 for tree in trees]
    owner = [np.full(len(tree.left), number) for number, tree in enumerate(trees)]
    is_leaf, thresholds = np.concatenate(leaf), np.concatenate([tree.threshold for tree in trees])
    places = np.concatenate([np.arange(mask.sum()) for mask in leaf])
    chosen = np.concatenate(owner)[is_leaf].tolist()
    found = {
        "n_targets": len(trees),
        "nodes_treeids": np.concatenate(owner).tolist(),
        "nodes_nodeids": np.concatenate(numbers).tolist(),
        "nodes_featureids": np.where(is_leaf, 0, np.concatenate([tree.feature for tree in trees])).tolist(),
        "nodes_modes": np.where(is_leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_truenodeids": np.concatenate([tree.left for tree in trees]).tolist(),
        "nodes_falsenodeids": np.concatenate([tree.right for tree in trees]).tolist(),
        "nodes_missing_value_tracks_true": np.concatenate([tree.missing_left for tree in trees]).astype(int).tolist(),
        "target_treeids": chosen,
        "target_ids": chosen,
        "target_nodeids": np.concatenate(numbers)[is_leaf].tolist(),
    }
    thresholds = np.where(is_leaf, 0.0, thresholds)
    if doubles:
        return found | {"nodes_values_as_tensor": tensor(thresholds), "target_weights_as_tensor": tensor(places.astype(float))}
    return found | {"nodes_values": _rounded_down(thresholds).tolist(), "target_weights": places.astype(float).tolist()}


def _rounded_down(thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The float32 w for which float32(x) <= threshold exactly where float32(x) <= w."""
    nearest = thresholds.astype(np.float32)
    return np.where(nearest > thresholds, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def forest(scope: Any, operator: Any, container: Any) -> None:
    """One tree, or the mean of several."""
    graph, model = Graph(scope, operator, container), operator.raw_operator
    members = model.estimators_ if hasattr(model, "estimators_") else [model]
    width = int(model.n_classes_ if is_classifier(model) else model.n_outputs_)
    total = _summed(graph, [_plain(member, width) for member in members], width, doubles=False)
    mean = graph.add("Div", total, graph.constant(float(len(members))))
    if not is_classifier(model):
        graph.add("Identity", mean, output=graph.outputs[0])
        return
    graph.add("Identity", mean, output=graph.outputs[1])
    labels.give_label(graph, model, graph.add("ArgMax", mean, axis=1, keepdims=0))


def boosting(scope: Any, operator: Any, container: Any) -> None:
    """Gradient boosting: a start, and the trees' leaves added to it, each by the learning rate."""
    graph, model = Graph(scope, operator, container), operator.raw_operator
    labels.want_probabilities(container, model)
    if model.init not in (None, "zero"):
        raise UnsupportedModel(f"{type(model).__name__}: init= an estimator of its own")
    trees = [_plain(member, 1) for member in model.estimators_.ravel()]
    scaled = [Tree(t.feature, t.threshold, t.left, t.right, t.missing_left, t.values * model.learning_rate) for t in trees]
    start = model._raw_predict_init(np.zeros((1, model.n_features_in_), np.float32))
    raw = graph.add("Add", _summed(graph, scaled, start.shape[1], doubles=False), graph.constant(start))
    _answer(graph, model, raw, "GreaterOrEqual")


def histogram_boosting(scope: Any, operator: Any, container: Any) -> None:
    graph, model = Graph(scope, operator, container), operator.raw_operator
    labels.want_probabilities(container, model)
    if model.is_categorical_ is not None:
        raise UnsupportedModel(f"{type(model).__name__} on categorical features; encode them in a step of the pipeline")
    trees = [_histogram(member) for members in model._predictors for member in members]
    start = np.asarray(model._baseline_prediction, float).reshape(1, -1)
    raw = graph.add("Add", _summed(graph, trees, start.shape[1], doubles=True), graph.constant(start))
    _answer(graph, model, raw, "Greater")


def _answer(graph: Graph, model: Any, raw: str, positive: str) -> None:
    """positive: the comparison with 0 that makes the second of two classes the label."""
    link = type(model._loss.link).__name__
    if not is_classifier(model):
        if link not in ("IdentityLink", "LogLink"):
            raise UnsupportedModel(f"{type(model).__name__}: loss {model.loss}")
        graph.add("Exp" if link == "LogLink" else "Identity", raw, output=graph.outputs[0])
        return
    if link == "MultinomialLogit":
        graph.add("Softmax", raw, output=graph.outputs[1], axis=1)
        labels.give_label(graph, model, graph.add("ArgMax", raw, axis=1, keepdims=0))
        return
    if link not in ("LogitLink", "HalfLogitLink"):
        raise UnsupportedModel(f"{type(model).__name__}: loss {model.loss}")
    logits = raw if link == "LogitLink" else graph.add("Mul", raw, graph.constant(2.0))
    second = graph.add("Sigmoid", logits)
    first = graph.add("Sub", graph.constant(1.0), second)
    graph.add("Concat", first, second, output=graph.outputs[1], axis=1)
    above = graph.cast(graph.add(positive, raw, graph.constant(0.0)), TensorProto.INT64)
    labels.give_label(graph, model, graph.add("Squeeze", above, graph.constant([1])))


_FORESTS = (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreeClassifier,
    ExtraTreeRegressor,
    ensembles.RandomForestClassifier,
    ensembles.RandomForestRegressor,
    ensembles.ExtraTreesClassifier,
    ensembles.ExtraTreesRegressor,
)
CONVERTERS: dict[type, Callable[..., None]] = {
    **dict.fromkeys(_FORESTS, forest),
    ensembles.GradientBoostingClassifier: boosting,
    ensembles.GradientBoostingRegressor: boosting,
    ensembles.HistGradientBoostingClassifier: histogram_boosting,
    ensembles.HistGradientBoostingRegressor: histogram_boosting,
}
SHAPES: dict[type, Callable[..., None]] = dict.fromkeys(CONVERTERS, labels.shape)
