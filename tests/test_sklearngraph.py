"""Estimators of scikit-learn through skl2onnx and our own converters: each answers as the original, or is refused by name."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from tables import NUMBERS, patients, proved, risk, saved
from tensign.errors import UnsupportedModel
from tensign.proof.parity import Parity
from tensign_converters.tables.columns import exported
from tensign_converters.tables.original import read_original, single_threaded
from tensign_converters.tables.rows import Rows, rows
from tensign_converters.tables.tabular import Tabular

TARGET = [{"name": "target", "type": "long", "required": True}]
TEXT = [{"name": "target", "type": "string", "required": True}]
NUMBER = [{"name": "target", "type": "double", "required": True}]


def scaled(estimator: Any) -> Any:
    return make_pipeline(StandardScaler(), estimator)


def mixed(estimator: Any, encoder: Any, numbers: Any = "passthrough") -> Any:
    return make_pipeline(ColumnTransformer([("text", encoder, ["thal", "cp"])], remainder=numbers), estimator)


ONE_HOT = OneHotEncoder(handle_unknown="ignore")
CODES = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
RARE = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=70, drop="if_binary")
CLASSIFIERS: dict[str, Callable[[], Any]] = {  # of three texts, from NUMBERS
    "logistic regression, PCA": lambda: make_pipeline(StandardScaler(), PCA(2), LogisticRegression()),
    "random forest": lambda: RandomForestClassifier(20, random_state=0),
    "extra trees": lambda: scaled(ExtraTreesClassifier(10, max_depth=6, random_state=0)),
    "decision tree": lambda: DecisionTreeClassifier(random_state=0),
    "gradient boosting": lambda: GradientBoostingClassifier(n_estimators=15, random_state=0),
    "histogram boosting": lambda: scaled(HistGradientBoostingClassifier(max_iter=15, random_state=0)),
    "nearest neighbours": lambda: scaled(KNeighborsClassifier()),
    "perceptron": lambda: scaled(MLPClassifier((8,), max_iter=20, random_state=0)),
    "naive Bayes": lambda: scaled(GaussianNB()),
    "discriminant": lambda: scaled(LinearDiscriminantAnalysis()),
    "support vectors": lambda: scaled(SVC()),
    "linear support vectors": lambda: scaled(LinearSVC()),
    "ridge": lambda: scaled(RidgeClassifier()),
    "bagging": lambda: scaled(BaggingClassifier(n_estimators=4, random_state=0)),
    "voting": lambda: scaled(VotingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], voting="soft")),
    "calibrated": lambda: scaled(CalibratedClassifierCV(GaussianNB(), cv=2)),
    "search": lambda: GridSearchCV(scaled(LogisticRegression()), {"logisticregression__C": [1, 2]}, cv=2),
    "union": lambda: make_pipeline(FeatureUnion([("a", StandardScaler()), ("b", PCA(2))]), LogisticRegression()),
    "polynomial": lambda: make_pipeline(StandardScaler(), PolynomialFeatures(3), LogisticRegression(max_iter=500)),
    "bins": lambda: make_pipeline(KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf"), LogisticRegression()),
    "power": lambda: make_pipeline(PowerTransformer(), LogisticRegression()),
    "function": lambda: make_pipeline(FunctionTransformer(np.abs), StandardScaler(), LogisticRegression()),
}
BINARY: dict[str, Callable[[], Any]] = {  # of 0 and 1, from all columns but for those of NUMBERS
    "one hot": lambda: mixed(LogisticRegression(), ONE_HOT, StandardScaler()),
    "one hot, rare": lambda: mixed(LogisticRegression(), RARE, StandardScaler()),
    "one hot, no unknown": lambda: mixed(LogisticRegression(), OneHotEncoder(), StandardScaler()),
    "codes": lambda: mixed(RandomForestClassifier(10, random_state=0), CODES),
    "boosting": lambda: mixed(GradientBoostingClassifier(n_estimators=20, loss="exponential", random_state=0), ONE_HOT),
    "histogram boosting": lambda: mixed(HistGradientBoostingClassifier(max_iter=10, random_state=0), CODES),
    "discriminant": lambda: mixed(LinearDiscriminantAnalysis(), OneHotEncoder(drop="first", handle_unknown="ignore")),
}
REGRESSORS: dict[str, Callable[[], Any]] = {
    "linear": lambda: scaled(LinearRegression()),
    "random forest": lambda: RandomForestRegressor(8, random_state=0),
    "gradient boosting": lambda: GradientBoostingRegressor(n_estimators=15, loss="huber", random_state=0),
    "histogram boosting": lambda: HistGradientBoostingRegressor(max_iter=15, random_state=0),
    "support vectors": lambda: scaled(SVR()),
    "nearest neighbours": lambda: scaled(KNeighborsRegressor()),
}


def converted(
    tmp_path: Path, estimator: Any, table: Any, target: Any, outputs: list[dict[str, Any]], example: Any = None
) -> tuple[Parity, Rows, str]:
    """Its proof, the rows that were asked, and the precision of its last step."""
    with single_threaded(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn, about what it was fitted with
        estimator.fit(table, target)
    original = read_original(saved(tmp_path / "model", estimator, table, outputs), trust=True)
    asked = rows(original, None if example is None else {name: example[name].to_numpy() for name in example})
    model, precision = exported(original.estimator, original.signature, original.engine.method, asked.refused)
    return proved(Tabular(original, model, asked, ()), tmp_path / "model.onnx"), asked, precision


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_of_three_classes(tmp_path: Path, name: str) -> None:
    table = patients()[NUMBERS]
    target = np.array(["low", "middle", "high"])[np.digitize(risk(table), [-1, 1])]
    parity, asked, precision = converted(tmp_path, CLASSIFIERS[name](), table.abs(), target, TEXT)
    assert parity.equal_values == 1 and len({*asked.answers.outputs["target"]}) == 3 and parity.rows >= len(asked) - 2
    assert parity.relative_difference < 1e-12 or precision == "float"


@pytest.mark.parametrize("name", BINARY)
def test_classifiers_of_two_classes_and_columns_of_text(tmp_path: Path, name: str) -> None:
    table = patients()
    parity, asked, precision = converted(tmp_path, BINARY[name](), table, (risk(table) > 0).astype(int), TARGET)
    assert parity.equal_values == 1 and parity.spread > 0.5 and parity.rows >= len(asked) - 2
    assert parity.relative_difference < 1e-12 and precision == "double"


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressors(tmp_path: Path, name: str) -> None:
    table = patients()[NUMBERS]
    parity, asked, precision = converted(tmp_path, REGRESSORS[name](), table, 100 + 4 * risk(table), NUMBER)
    assert parity.equal_values is None and len({*asked.answers.outputs["target"]}) > 50
    assert parity.relative_difference < (1e-12 if name != "support vectors" else 1e-6)
    assert precision == ("double" if name != "support vectors" else "float")


def test_several_targets_of_a_regression_are_several_columns(tmp_path: Path) -> None:
    table = patients()[NUMBERS]
    outputs = [{"name": name, "type": "double", "required": True} for name in ("risk", "its opposite")]
    target = np.stack([risk(table), -risk(table)], axis=1)
    parity, *_ = converted(tmp_path, RandomForestRegressor(5, random_state=0), table, target, outputs)
    assert parity.relative_difference == 0 and parity.spread > 1


def test_probabilities_of_support_vectors_and_boosted_stumps_are_floats(tmp_path: Path) -> None:
    table = patients()[NUMBERS]
    for number, estimator in enumerate((SVC(probability=True, random_state=0), AdaBoostClassifier(n_estimators=3))):
        (tmp_path / str(number)).mkdir()
        parity, *_ = converted(tmp_path / str(number), scaled(estimator), table, (risk(table) > 0).astype(int), TARGET)
        assert 0 < parity.relative_difference < 2e-6 and parity.equal_values == 1


def test_words_of_any_script_count_and_texts_of_any_case(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    words = np.array("the heart is weak strong schmerz чувство no smoking Ärzte x1 a_b".split())
    table = pd.DataFrame({"note": [" ".join(random.choice(words, 7)) for _ in range(200)], "age": patients(200).age})
    target = table.note.str.contains("schmerz").astype(int)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), max_features=60)
    columns = ColumnTransformer([("note", vectorizer, "note"), ("age", StandardScaler(), ["age"])])
    parity, *_ = converted(tmp_path, make_pipeline(columns, LogisticRegression()), table, target, TARGET)
    assert parity.equal_values == 1 and parity.relative_difference < 1e-6 and parity.spread > 0.3


def test_what_an_earlier_step_makes_of_a_number_is_refused_as_well(tmp_path: Path) -> None:
    """Of -2 a logarithm makes NaN, which the estimator behind it refuses, and the graph with it."""
    table = patients()[["age", "peak"]]
    estimator = make_pipeline(FunctionTransformer(np.log1p), StandardScaler(), LogisticRegression())
    parity, asked, _ = converted(tmp_path, estimator, table, (table.age > 50).astype(int), TARGET, example=table[:40])
    assert parity.relative_difference < 1e-12 and len(asked.refusals) > 6


def test_clusters_are_labels(tmp_path: Path) -> None:
    table = patients()[NUMBERS]
    outputs = [{"name": "cluster", "type": "integer", "required": True}]
    parity, asked, _ = converted(tmp_path, scaled(KMeans(3, n_init=1, random_state=0)), table, None, outputs)
    assert parity.equal_values == 1 and {*asked.answers.outputs["cluster"]} == {0, 1, 2}


@pytest.mark.parametrize(
    ("estimator", "text"),
    [
        (DummyClassifier(), r"no ONNX for DummyClassifier: skl2onnx has no converter for sklearn\.dummy\.DummyClassifier"),
        (scaled(FunctionTransformer(np.cbrt)), "FunctionTransformer: cbrt; wanted one of numpy's log1p"),
        (
            HistGradientBoostingClassifier(max_iter=2, categorical_features=[0]),
            "Classifier on categorical features",
        ),
        (CalibratedClassifierCV(GradientBoostingClassifier(n_estimators=2), cv=2), "asks for its decision function"),
        (scaled(PowerTransformer(method="box-cox")), "PowerTransformer: method box-cox; wanted yeo-johnson"),
        (GradientBoostingClassifier(n_estimators=2, init=LogisticRegression(max_iter=500)), "init= an estimator of its own"),
    ],
    ids=["no converter", "function", "categorical", "decision function", "box-cox", "init"],
)
def test_what_has_no_counterpart_is_named(tmp_path: Path, estimator: Any, text: str) -> None:
    table = patients()[NUMBERS].abs() + 1
    if not hasattr(estimator, "predict_proba"):
        estimator = make_pipeline(*(step for _, step in estimator.steps[1:]), LogisticRegression(max_iter=500))
    with pytest.raises(UnsupportedModel, match=text):
        converted(tmp_path, estimator, table, (risk(table) > 0).astype(int), TARGET, example=table[:5])


def test_a_classifier_of_several_targets_is_refused(tmp_path: Path) -> None:
    table = patients()[NUMBERS]
    target = np.stack([risk(table) > 0, risk(table) > 1], axis=1).astype(int)
    outputs = [{"name": name, "type": "long", "required": True} for name in ("a", "b")]
    with pytest.raises(UnsupportedModel, match="MultiOutputClassifier: a classifier of several targets; wanted one of one"):
        converted(tmp_path, scaled(MultiOutputClassifier(LogisticRegression())), table, target, outputs)


def test_text_is_split_by_known_patterns_alone(tmp_path: Path) -> None:
    table = pd.DataFrame({"note": ["a b", "c d"] * 10})
    columns = ColumnTransformer([("note", TfidfVectorizer(token_pattern=r"\S+"), "note")])
    with pytest.raises(UnsupportedModel, match=r"TfidfVectorizer: analyzer 'word', token_pattern '\\\\S\+'; wanted words by"):
        converted(tmp_path, make_pipeline(columns, LogisticRegression()), table, [0, 1] * 10, TARGET)


def test_the_same_estimator_gives_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    table = patients()
    text = make_pipeline(SimpleImputer(strategy="most_frequent"), ONE_HOT)
    columns = ColumnTransformer([("text", text, ["thal"]), ("codes", CODES, ["cp"])], remainder="passthrough")
    estimator = make_pipeline(columns, RandomForestClassifier(3, random_state=0)).fit(table, (risk(table) > 0).astype(int))
    original = read_original(saved(tmp_path / "model", estimator, table, TARGET), trust=True)
    refused = {"IsNaN": ["chol", "peak"], "missing": ["thal"]}
    content, _ = exported(original.estimator, original.signature, "predict", refused)
    program = (
        "import hashlib, sys; from tensign.mlmodel import read_mlmodel;"
        "from tensign_converters.tables.original import read_original;"
        "from tensign_converters.tables.columns import exported; o = read_original(read_mlmodel(sys.argv[1]), trust=True);"
        f"print(hashlib.sha256(exported(o.estimator, o.signature, 'predict', {refused})[0]).hexdigest())"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "model")]
    environment = {**os.environ, "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert told.strip() == hashlib.sha256(content).hexdigest()
