"""Trees and ensembles to the last bit: ties, thresholds between two floats, missing values; and trees that nobody grew."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from conftest import tensor
from tensign.errors import UnsupportedModel
from tensign.signature import Signature
from tensign_converters.tables.columns import exported
from tensign_converters.tables.trees import Tree, _rounded_down


def predicted(estimator: Any, x: npt.NDArray[np.float64]) -> list[Any]:
    """What the graph gives: labels and probabilities, or numbers."""
    kind = "int64" if hasattr(estimator, "classes_") else "float64"
    signature = Signature.parse({"inputs": [tensor("float64", [-1, x.shape[1]], "x")], "outputs": [tensor(kind, [-1], "y")]})
    content, precision = exported(estimator, signature, "predict", {})
    assert precision == "double"
    model = onnx.load_from_string(content)
    model.graph.output.extend(model.graph.value_info)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(None, {"x": x})
    return found


def test_a_tie_goes_to_the_first_class_as_in_scikit_learn() -> None:
    random = np.random.default_rng(3)
    x, y = random.normal(size=(80, 3)), random.integers(0, 3, 80)
    forest = RandomForestClassifier(6, random_state=0).fit(x, y)
    asked = random.normal(size=(600, 3))
    probabilities = forest.predict_proba(asked)
    ties = (probabilities == probabilities.max(axis=1, keepdims=True)).sum(axis=1) > 1
    assert ties.sum() > 50
    labels, given = predicted(forest, asked)
    np.testing.assert_array_equal(labels, forest.predict(asked))
    np.testing.assert_array_equal(given, probabilities)


def test_thresholds_lie_where_they_lay() -> None:
    """Half a float32 step round each threshold, scikit-learn rounds first and compares then."""
    random = np.random.default_rng(1)
    x, y = random.normal(size=(200, 1)) * 1e4, random.normal(size=200)
    tree = DecisionTreeRegressor(random_state=0).fit(x, y)
    thresholds = tree.tree_.threshold[tree.tree_.feature == 0]
    steps = np.spacing(thresholds.astype(np.float32)).astype(float)
    asked = np.concatenate([thresholds + steps * part for part in np.linspace(-1.5, 1.5, 13)])[:, None]
    np.testing.assert_array_equal(predicted(tree, asked)[0], tree.predict(asked))


def test_a_float_that_is_not_greater_stays_on_its_side() -> None:
    thresholds = np.array([0.1, -0.1, 1.0, 16777217.0, 1e-50, np.inf])
    rounded = _rounded_down(thresholds).astype(float)
    assert (rounded <= thresholds).all() and (np.nextafter(rounded.astype(np.float32), np.float32(np.inf)) > thresholds)[
        :5
    ].all()


@pytest.mark.parametrize(
    "estimator",
    [
        DecisionTreeClassifier(random_state=0),
        RandomForestRegressor(7, random_state=0),
        HistGradientBoostingRegressor(max_iter=5),
    ],
    ids=["tree", "forest", "histogram boosting"],
)
def test_missing_values_go_where_the_tree_sends_them(estimator: Any) -> None:
    random = np.random.default_rng(2)
    x = random.normal(size=(300, 3))
    x[random.random(x.shape) < 0.3] = np.nan
    estimator.fit(x, (np.nan_to_num(x[:, 0], nan=2) + x[:, 1] ** 2 > 1).astype(int))
    np.testing.assert_allclose(predicted(estimator, x)[0], estimator.predict(x), atol=1e-14)


def test_a_tree_of_one_leaf_is_a_tree() -> None:
    x = np.zeros((4, 2))
    tree = DecisionTreeRegressor().fit(x, [2.5] * 4)
    assert predicted(tree, x)[0].tolist() == [2.5] * 4


@pytest.mark.parametrize(("left", "right"), [([1, 0, 0], [1, 0, 3]), ([2, 0, 1], [1, 0, 1]), ([1, 0], [9, 0])])
def test_children_before_their_parents_or_nowhere_are_refused(left: list[int], right: list[int]) -> None:
    nodes = len(left)
    numbers = np.zeros(nodes)
    if (left, right) == ([1, 0, 0], [1, 0, 3]):  # the right of a leaf is nobody's
        Tree(numbers.astype(int), numbers, np.array(left), np.array(right), numbers.astype(bool), numbers[:, None])
        return
    with pytest.raises(UnsupportedModel, match="not in the order in which scikit-learn writes them"):
        Tree(numbers.astype(int), numbers, np.array(left), np.array(right), numbers.astype(bool), numbers[:, None])


def test_labels_that_are_neither_text_nor_whole_numbers_are_refused() -> None:
    x = np.arange(6.0)[:, None]
    forest = RandomForestClassifier(2).fit(x, ["a", "b"] * 3)
    forest.classes_ = np.array([0.5, 1.5])
    with pytest.raises(UnsupportedModel, match="at least one label is not an integer"):
        predicted(forest, x)
