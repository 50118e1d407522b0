"""The proof of columns: what it lets through, what it leaves out, and what it fails on."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from tables import NUMBERS, patients, proved, risk, saved
from tensign.errors import ParityFailed
from tensign.proof.parity import LOGITS, Parity
from tensign_converters.tables.columns import exported
from tensign_converters.tables.original import Original, read_original
from tensign_converters.tables.rows import Rows, rows
from tensign_converters.tables.tabular import Tabular

TARGET = [{"name": "target", "type": "long", "required": True}]


def asked(target: Path, estimator: Any, columns: Sequence[str] = NUMBERS) -> tuple[Original, Rows]:
    table = patients()
    estimator.fit(table[columns], (risk(table) > 0).astype(int))
    table = table[columns]
    original = read_original(saved(target, estimator, table, TARGET), trust=True)
    return original, rows(original, None)


def parity(original: Original, estimator: Any, made: Rows, file: Path) -> Parity:
    """Of the graph of that estimator, held against the original."""
    model, _ = exported(estimator, original.signature, "predict", made.refused)
    return proved(Tabular(original, model, made, ()), file)


def with_column(original: Original, made: Rows, **columns: Any) -> Rows:
    """The same rows but for these columns."""
    table = {**made.table, **columns}
    return replace(made, table=table, answers=original.answered(table))


def test_a_model_that_predicts_otherwise_fails(tmp_path: Path) -> None:
    """One that differs in its probabilities alone fails too, where it only gives labels."""
    original, made = asked(tmp_path / "model", make_pipeline(StandardScaler(), LogisticRegression()))
    found = parity(original, original.estimator, made, tmp_path / "model.onnx")
    assert found.rows == 400 and 0 < found.relative_difference < 1e-12 and found.equal_values == 1
    other = copy.deepcopy(original.estimator)
    other[-1].intercept_ += 1e-4
    with pytest.raises(
        ParityFailed, match=r"relative to the row's largest 2\.[45]e-05, 100\.0% of labels .* equal, on 400 rows"
    ):
        parity(original, other, made, tmp_path / "model.onnx")


def test_labels_that_are_floats_are_exact_beside_their_probabilities(tmp_path: Path) -> None:
    """The classes' names are turned round, and nothing else."""
    table = patients()[NUMBERS]
    estimator = DecisionTreeClassifier(max_depth=2, random_state=0).fit(table, (risk(table) > 0).astype(float))
    original = read_original(saved(tmp_path / "model", estimator, table, [{**TARGET[0], "type": "double"}]), trust=True)
    made = rows(original, None)
    assert parity(original, estimator, made, tmp_path / "model.onnx").relative_difference == 0
    other = copy.deepcopy(original.estimator)
    other.classes_ = other.classes_[::-1]
    with pytest.raises(
        ParityFailed, match=r"greatest difference 1\.0e\+00, relative to the row's largest 1\.0e\+00, on 400 rows"
    ):
        parity(original, other, made, tmp_path / "model.onnx")


def test_a_column_may_be_called_as_the_inner_tensor_is(tmp_path: Path) -> None:
    table = patients()[NUMBERS].rename(columns={"age": LOGITS})
    estimator = LogisticRegression(max_iter=2000).fit(table, np.digitize(table[LOGITS], [50]))
    original = read_original(saved(tmp_path / "model", estimator, table, TARGET), trust=True)
    tabular = Tabular(
        original, exported(estimator, original.signature, "predict", (made := rows(original, None)).refused)[0], made, ()
    )
    assert proved(tabular, tmp_path / "model.onnx").equal_values == 1 and "probabilities" not in tabular.subject().against


def test_a_model_that_answers_what_the_original_refuses_fails(tmp_path: Path) -> None:
    original, made = asked(tmp_path / "model", LogisticRegression(max_iter=2000))
    with pytest.raises(ParityFailed, match="the original refuses 6 rows, of which the converted one answers 4"):
        parity(original, original.estimator, replace(made, refused={**made.refused, "IsInf": []}), tmp_path / "model.onnx")


def test_rows_at_a_threshold_are_left_out_and_counted(tmp_path: Path) -> None:
    """A tree beside the original's, its first threshold one float32 step lower: only a row in between can tell."""
    original, made = asked(tmp_path / "model", DecisionTreeClassifier(max_depth=1, random_state=0), ["chol"])
    tree = original.estimator.tree_
    threshold = float(np.float32(tree.threshold[0]))
    tree.threshold[0] = threshold
    below = copy.deepcopy(original.estimator)
    below.tree_.threshold[0] = np.nextafter(np.float32(threshold), np.float32(-np.inf))
    chol = np.where(made.table["chol"] == threshold, threshold + 1, made.table["chol"])
    chol[5] = threshold
    made = with_column(original, made, chol=chol)
    assert parity(original, below, made, tmp_path / "model.onnx").rows == 399
    model, _ = exported(below, original.signature, "predict", made.refused)
    subject = Tabular(original, model, made, ("a note",)).subject()
    assert subject.unchecked == ("a note", "1 rows at a threshold of the original, where a float32 step decides")
    chol[5:50] = threshold
    with pytest.raises(ParityFailed, match=r"8[89]\.\d% of labels and whole numbers equal, on 400 rows"):
        parity(original, below, with_column(original, made, chol=chol), tmp_path / "model.onnx")


def test_a_row_that_differs_elsewhere_fails_whatever_else_lies_at_a_threshold(tmp_path: Path) -> None:
    original, made = asked(tmp_path / "model", DecisionTreeClassifier(max_depth=1, random_state=0), ["chol"])
    threshold = float(original.estimator.tree_.threshold[0])
    below = copy.deepcopy(original.estimator)
    below.tree_.threshold[0] = threshold - 1
    chol = np.where(np.abs(made.table["chol"] - threshold) < 1, threshold + 2, made.table["chol"])
    chol[:2] = threshold, threshold - 0.5
    with pytest.raises(ParityFailed, match=r"99\.5% of labels and whole numbers equal, on 400 rows"):
        parity(original, below, with_column(original, made, chol=chol), tmp_path / "model.onnx")


def test_rows_of_which_two_classes_are_alike_are_left_out(tmp_path: Path) -> None:
    """At 50 years the second class wins by a hair in the original and the first one beside it."""
    original, made = asked(tmp_path / "model", make_pipeline(StandardScaler(), LogisticRegression()))
    scaler, last = (step for _, step in original.estimator.steps)
    scaler.mean_[0], last.coef_[:], last.intercept_[:] = 50.0, [[1, 0, 0]], 1e-12
    other = copy.deepcopy(original.estimator)
    other[-1].intercept_[:] = -1e-12
    age = made.table["age"].copy()
    age[:10] = 50
    made = with_column(original, made, age=age)
    left_out = (age == 50).sum()
    assert parity(original, other, made, tmp_path / "model.onnx").rows == 400 - left_out and left_out >= 10
