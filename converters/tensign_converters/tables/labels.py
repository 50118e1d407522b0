"""A classifier's classes -> the label that its graph gives, and the types of what a converter of ours gives."""

from __future__ import annotations

from typing import Any

import numpy as np
from skl2onnx.common.data_types import DoubleTensorType, Int64TensorType, StringTensorType
from sklearn.base import is_classifier

from tensign.errors import UnsupportedModel
from tensign_converters.tables.nodes import Graph


def give_label(graph: Graph, model: Any, index: str) -> None:
    """index: int64 [n], of the class."""
    known = np.asarray(model.classes_).astype(str if _are_text(model) else np.int64)
    graph.add("Gather", graph.constant(known), index, output=graph.outputs[0], axis=0)


def want_probabilities(container: Any, model: Any) -> None:
    """Raises UnsupportedModel where another estimator round this one asks for what its decision function gives."""
    if is_classifier(model) and container.get_options(model, {"raw_scores": False})["raw_scores"]:
        raise UnsupportedModel(f"{type(model).__name__}: inside an estimator that asks for its decision function")


def shape(operator: Any) -> None:
    """Labels [n] and doubles [n,classes]; of a regressor doubles [n,outputs]."""
    model = operator.raw_operator
    if is_classifier(model):
        operator.outputs[0].type = (StringTensorType if _are_text(model) else Int64TensorType)([None])
        operator.outputs[1].type = DoubleTensorType([None, len(model.classes_)])
    else:
        operator.outputs[0].type = DoubleTensorType([None, getattr(model, "n_outputs_", 1)])


def _are_text(model: Any) -> bool:
    return all(isinstance(label, str) for label in np.asarray(model.classes_).tolist())
