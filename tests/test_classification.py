"""Scores to the best classes of each row."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tensign.classification import Prediction, classified, predictions
from tensign.errors import InvalidInput

SCORES = np.array([[0.25, 0.5, 0.125], [1.0, -2.0, 3.5]], np.float32)
LABELS = ("cat", "dog", "bird")


def test_best_first_with_labels() -> None:
    assert classified(SCORES, 2, LABELS).tolist() == [
        [b"0.500000:1:dog", b"0.250000:0:cat"],
        [b"3.500000:2:bird", b"1.000000:0:cat"],
    ]


def test_without_labels_the_index_ends_the_text() -> None:
    assert classified(SCORES, 1).tolist() == [[b"0.500000:1"], [b"3.500000:2"]]


def test_class_beyond_the_labels_has_none() -> None:
    assert classified(SCORES, 1, ("cat", "dog")).tolist() == [[b"0.500000:1:dog"], [b"3.500000:2"]]


def test_more_classes_than_there_are_gives_all() -> None:
    assert classified(SCORES, 100).shape == (2, 3)


def test_equal_scores_keep_the_order_of_the_classes() -> None:
    assert [text[-1:] for text in classified(np.zeros((1, 12), np.float32), 4)[0]] == [b"0", b"1", b"2", b"3"]


def test_not_a_number_comes_last() -> None:
    assert classified(np.array([[np.nan, 0.5, np.inf]]), 3).tolist() == [[b"inf:2", b"0.500000:1", b"nan:0"]]


@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float64"]
)
def test_scores_of_every_number_type_are_ordered_by_their_value(dtype: str) -> None:
    limits: Any = np.finfo(dtype) if np.dtype(dtype).kind == "f" else np.iinfo(dtype)
    scores = np.array([[limits.min, 3, limits.max, 1]], dtype)
    order = np.argsort([-float(score) for score in scores[0]], kind="stable")
    assert [one.index for one in predictions(scores, 4)[0]] == order.tolist()


def test_bool_scores_put_true_first() -> None:
    assert [one.index for one in predictions(np.array([[False, True, False]]), 3)[0]] == [1, 0, 2]


def test_text_cannot_be_ranked() -> None:
    with pytest.raises(InvalidInput):
        classified(np.array([[b"a", b"b"]], object), 1)


@pytest.mark.parametrize("shape", [(3,), (1, 2, 3), ()])
def test_another_rank_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="classification needs an output of rank 2, got shape"):
        classified(np.zeros(shape, np.float32), 1)


@pytest.mark.parametrize(
    ("text", "prediction"),
    [
        (b"0.500000:1:dog", Prediction("dog", 0.5, 1)),
        (b"0.500000:1", Prediction("1", 0.5, 1)),
        (b"-2.000000:0:ratio 4:3", Prediction("ratio 4:3", -2.0, 0)),
        ("1.000000:7:Käfer".encode(), Prediction("Käfer", 1.0, 7)),
    ],
)
def test_text_is_read_back(text: bytes, prediction: Prediction) -> None:
    assert Prediction.parse(text) == prediction


@pytest.mark.parametrize("labels", [(), LABELS, ("a:b", "ü", "")])
def test_predictions_are_what_was_classified(labels: tuple[str, ...]) -> None:
    scores: npt.NDArray[np.float32] = SCORES
    (first, second) = predictions(scores, 3, labels)
    assert [one.index for one in first] == [1, 0, 2]
    assert [one.score for one in second] == [3.5, 1.0, -2.0]
    assert [one.label for one in first] == ([labels[1], labels[0], labels[2]] if labels else ["1", "0", "2"])
