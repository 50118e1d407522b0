"""A step before a pipeline's last, which refuses the numbers that the last refuses: ONNX's operators take any."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from tensign_converters.tables.nodes import ODD, Graph


class Guard(BaseEstimator):  # type: ignore[misc]  # has no types
    """kinds: of numbers, of ODD."""

    def __init__(self, kinds: tuple[str, ...] = ()) -> None:
        self.kinds = kinds


def guarded(estimator: Any) -> Any:
    """The same estimator, its last step behind a Guard where steps come before it: what is odd may come of these."""
    if not isinstance(estimator, Pipeline) or len(estimator.steps) < 2:
        return estimator
    *others, last = estimator.steps
    return Pipeline([*others, ("guard", Guard(tuple(_refused(last[1])))), last])


def _refused(estimator: Any) -> list[str]:
    """Found out by asking."""
    width = getattr(estimator, "n_features_in_", None)
    if width is None or not _takes(estimator, np.zeros((1, width))):
        return []
    odd = {kind: [np.full((1, width), value) for value in ODD[kind][1]] for kind in ("IsNaN", "IsInf")}
    return [kind for kind, tables in odd.items() if not all(_takes(estimator, table) for table in tables)]


def _takes(estimator: Any, table: Any) -> bool:
    try:
        estimator.predict(table)
    except Exception:  # whatever an estimator raises
        return False
    return True


def guard(scope: Any, operator: Any, container: Any) -> None:
    graph = Graph(scope, operator, container)
    x = graph.joined()
    for kind in operator.raw_operator.kinds:
        x = graph.refusing(x, kind, x)
    graph.add("Identity", x, output=graph.outputs[0])


def shape(operator: Any) -> None:
    first = operator.inputs[0].type
    operator.outputs[0].type = type(first)([None, sum(variable.type.shape[1] for variable in operator.inputs)])


CONVERTERS = {Guard: guard}
SHAPES = {Guard: shape}
