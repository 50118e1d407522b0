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

from tables import NUMBERS, patients, risk, saved
from tensign.errors import ParityFailed
from tensign_converters.tables.agreement import agree
from tensign_converters.tables.columns import exported
from tensign_converters.tables.original import Original, read_original
from tensign_converters.tables.rows import Rows, rows

TARGET = [{"name": "target", "type": "long", "required": True}]


def asked(target: Path, estimator: Any, columns: Sequence[str] = NUMBERS) -> tuple[Original, Rows]:
    table = patients()
    estimator.fit(table[columns], (risk(table) > 0).astype(int))
    table = table[columns]
    original = read_original(saved(target, estimator, table, TARGET), trust=True)
    return original, rows(original, None)


def graph_of(original: Original, estimator: Any, refused: Any) -> bytes:
    return exported(estimator, original.signature, "predict", refused)[0]


def test_a_model_that_predicts_otherwise_fails(tmp_path: Path) -> None:
    original, made = asked(tmp_path / "model", make_pipeline(StandardScaler(), LogisticRegression()))
    agreement = agree(original, graph_of(original, original.estimator, made.refused), made)
    assert agreement.rows == 400 and agreement.max_difference < 1e-12 and agreement.at_threshold == 0
    assert "labels equal 100%" in str(agreement)
    other = copy.deepcopy(original.estimator)
    other[-1].intercept_ += 1e-3
    with pytest.raises(ParityFailed, match=r"of 400 rows differ by more than 1e-05 or have another label, 0 of"):
        agree(original, graph_of(original, other, made.refused), made)


def test_a_model_that_answers_what_the_original_refuses_fails(tmp_path: Path) -> None:
    original, made = asked(tmp_path / "model", LogisticRegression(max_iter=2000))
    with pytest.raises(ParityFailed, match="the original refuses 6 rows, of which the converted one answers 4"):
        agree(original, graph_of(original, original.estimator, {**made.refused, "IsInf": []}), made)


def test_rows_at_a_threshold_are_left_out_and_counted(tmp_path: Path) -> None:
    """A tree beside the original's, its first threshold one float32 step lower: only a row in between can tell."""
    original, made = asked(tmp_path / "model", DecisionTreeClassifier(max_depth=1, random_state=0), ["chol"])
    tree = original.estimator.tree_
    threshold = float(np.float32(tree.threshold[0]))
    tree.threshold[0] = threshold
    below = copy.deepcopy(original.estimator)
    below.tree_.threshold[0] = np.nextafter(np.float32(threshold), np.float32(-np.inf))
    table = {"chol": np.where(made.table["chol"] == threshold, threshold + 1, made.table["chol"])}
    table["chol"][5] = threshold
    model = graph_of(original, below, made.refused)
    agreement = agree(original, model, replace(made, table=table))
    assert agreement.at_threshold == 1 and agreement.rows == 399 and "1 more at a threshold" in str(agreement)
    table["chol"][5:50] = threshold
    with pytest.raises(ParityFailed, match="45 of 400 rows differ"):
        agree(original, model, replace(made, table=table))


def test_rows_of_which_two_classes_are_alike_are_left_out(tmp_path: Path) -> None:
    """At 50 years the second class wins by a hair in the original and the first one beside it."""
    original, made = asked(tmp_path / "model", make_pipeline(StandardScaler(), LogisticRegression()))
    scaler, last = (step for _, step in original.estimator.steps)
    scaler.mean_[0], last.coef_[:], last.intercept_[:] = 50.0, [[1, 0, 0]], 1e-12
    other = copy.deepcopy(original.estimator)
    other[-1].intercept_[:] = -1e-12
    made.table["age"][:10] = 50
    agreement = agree(original, graph_of(original, other, made.refused), made)
    assert agreement.at_threshold == (made.table["age"] == 50).sum() >= 10
