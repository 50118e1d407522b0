"""Rows that are made up: the same each time, of values that matter, and none that the original refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, OneHotEncoder, RobustScaler, StandardScaler

from tables import NUMBERS, patients, risk, saved
from tensign.errors import UnsupportedModel
from tensign_converters.tables.known import known_values
from tensign_converters.tables.original import read_original
from tensign_converters.tables.rows import ROWS, Rows, rows

TARGET = [{"name": "target", "type": "long", "required": True}]


def rows_of(target: Path, estimator: Any, table: pd.DataFrame, example: Any = None) -> Rows:
    estimator.fit(table, (risk(table) > 0).astype(int))
    original = read_original(saved(target, estimator, table, TARGET), trust=True)
    return rows(original, None if example is None else {name: example[name].to_numpy() for name in example})


def refused(step: Any) -> None:
    raise ValueError("nothing is right")


def test_the_same_rows_each_time_and_those_of_the_example_first(tmp_path: Path) -> None:
    table = patients()[NUMBERS]
    once, again = (rows_of(tmp_path / name, RandomForestClassifier(5, random_state=0), table, table[:7]) for name in ("a", "b"))
    for name in table:
        assert len(once.table[name]) == ROWS + 7 and once.table[name].dtype == table[name].dtype
        np.testing.assert_array_equal(once.table[name][:7], table[name][:7])
        np.testing.assert_array_equal(once.table[name], again.table[name])
    assert once.said.startswith(f"the 7 rows of the saved example, {ROWS} made up")


def test_without_an_example_values_come_from_what_the_estimator_knows(tmp_path: Path) -> None:
    table = patients()
    columns = [("text", OneHotEncoder(), ["thal"]), ("codes", OneHotEncoder(), ["cp"]), ("numbers", StandardScaler(), NUMBERS)]
    made = rows_of(tmp_path / "model", make_pipeline(ColumnTransformer(columns), LogisticRegression()), table)
    assert set(made.table["thal"]) == {"fixed", "normal", "reversible"} and set(made.table["cp"]) == {0, 1, 2, 3}
    assert 30 < np.median(made.table["age"]) < 70 and 150 < np.median(made.table["chol"]) < 250
    assert made.refused == {"IsNaN": ["chol", "peak"], "IsInf": ["chol", "peak"], "missing": ["thal"]}
    assert len(made.refusals) == 3 + 6  # an unknown text, none, an unknown code; NaN and both infinities in two columns


def test_what_is_missing_or_unknown_is_asked_where_the_original_answers(tmp_path: Path) -> None:
    table = patients()
    table.loc[::5, "chol"], table["thal"] = np.nan, table.thal.astype(object).where(table.index % 7 != 0, None)
    columns = [("text", OneHotEncoder(handle_unknown="ignore"), ["thal"]), ("numbers", SimpleImputer(), NUMBERS)]
    made = rows_of(tmp_path / "model", make_pipeline(ColumnTransformer(columns), LogisticRegression(max_iter=2000)), table)
    assert 5 < np.isnan(made.table["chol"]).sum() < 60 and 5 < sum(one is None for one in made.table["thal"]) < 60
    assert len(set(made.table["thal"]) - {None}) == 4
    assert made.refused == {"IsNaN": [], "IsInf": ["chol", "peak"], "missing": []}


def test_numbers_that_nothing_is_known_of_have_every_size(tmp_path: Path) -> None:
    table = patients()[NUMBERS]
    sizes = np.abs(rows_of(tmp_path / "model", LogisticRegression(max_iter=2000), table).table["chol"])
    assert sizes.min() < 0.1 and sizes.max() > 1000


def test_a_model_that_answers_nothing_is_said_to_be_one(tmp_path: Path) -> None:
    table = patients()[NUMBERS]
    estimator = make_pipeline(StandardScaler(), LogisticRegression())
    estimator.fit(table, (risk(table) > 0).astype(int))
    estimator.steps.insert(0, ("refused", FunctionTransformer(refused)))
    original = read_original(saved(tmp_path / "model", estimator, table, TARGET), trust=True)
    with pytest.raises(UnsupportedModel, match=r"answers none of 50 rows made up; log it again with input_example="):
        rows(original, None)


@pytest.mark.parametrize(
    ("step", "values"),
    [
        (StandardScaler(), [0.0, 2.0, 4.0]),
        (RobustScaler(), [-2.0, 2.0, 6.0]),
        (MinMaxScaler(), [1.0, 3.0]),
        (ColumnTransformer([("one", StandardScaler(), [0])]), [0.0, 2.0, 4.0]),
        (ColumnTransformer([("one", StandardScaler(), slice(0, 1))]), [0.0, 2.0, 4.0]),
        (ColumnTransformer([("one", StandardScaler(), [True])]), [0.0, 2.0, 4.0]),
    ],
    ids=["standard", "robust", "minimum and maximum", "by place", "by slice", "by mask"],
)
def test_scalers_tell_where_numbers_lie(step: Any, values: list[float]) -> None:
    step.fit(pd.DataFrame({"x": [1.0, 1.0, 3.0, 3.0, 1.0, 3.0]}))
    kind, known = known_values(step, ["x"])["x"]
    assert kind == "numbers" and known == pytest.approx(values)


def test_trees_tell_thresholds_of_columns_that_reach_them_as_they_are() -> None:
    table = patients()
    columns = ColumnTransformer([("text", OneHotEncoder(), ["thal"])], remainder="passthrough")
    for forest in (RandomForestClassifier(3, random_state=0), HistGradientBoostingClassifier(max_iter=3)):
        pipeline = make_pipeline(columns, forest).fit(table, (risk(table) > 0).astype(int))
        known = known_values(pipeline, list(table))
        assert known["thal"] == ("categories", ["fixed", "normal", "reversible"])
        assert known["age"][0] == "numbers" and all(20 <= value <= 80 for value in known["age"][1])


def test_words_are_made_sentences(tmp_path: Path) -> None:
    table = pd.DataFrame({"note": ["heart pain", "no pain", "weak heart"] * 20, "age": range(60)})
    columns = ColumnTransformer([("note", CountVectorizer(), "note"), ("age", StandardScaler(), ["age"])])
    estimator = make_pipeline(columns, LogisticRegression()).fit(table, [0, 1, 1] * 20)
    made = rows(read_original(saved(tmp_path / "model", estimator, table, TARGET), trust=True), None)
    words = {word.strip(",.-").lower() for note in made.table["note"] for word in note.replace("-", " ").split()}
    assert {"heart", "pain", "no", "weak"} < words and len(set(made.table["note"])) > 300
