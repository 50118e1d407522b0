"""A custom PythonModel that MLflow saved, with params and an input example; and what becomes of what models return."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tensign.client import Client
from tensign.config import ModelConfig
from tensign.engines.answers import named
from tensign.engines.sklearn import SklearnEngine
from tensign.errors import EngineError, InvalidInput, SignatureMismatch, UnsupportedModel
from tensign.form import Form
from tensign.model import Model
from tensign.request import Formed
from tensign.testing import serving

ROWS = pd.DataFrame({"word": ["a", "bb", "ccc"], "n": [1, 2, 3], "weight": [0.5, 1.5, 2.5]})


def _save_words(path: Path) -> None:
    import mlflow.pyfunc

    class Words(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            scores = model_input["n"] * model_input["weight"] * params["times"]
            answer = pd.DataFrame({"text": model_input["word"] + params["sign"], "score": scores})
            return answer.to_dict("records") if params["sign"] == "[" else answer

    params = {"times": 2, "sign": "!"}
    signature = mlflow.models.infer_signature(ROWS, Words().predict(None, ROWS, params), params)
    mlflow.pyfunc.save_model(path, python_model=Words(), signature=signature, input_example=(ROWS, params), pip_requirements=[])


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Model, str]]:
    """word, n, weight -> text, score; params times and sign. Pickled by MLflow itself; the answer is a DataFrame."""

    path = tmp_path_factory.mktemp("words") / "model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own
        _save_words(path)
    model = Model.load(path, ModelConfig(device="cpu", trust=True, max_batch_size=8), name="words")
    with serving(model) as address:
        yield model, address


def columns() -> dict[str, Any]:
    return {name: ROWS[name].to_numpy(object if name == "word" else None) for name in ROWS}


@pytest.mark.parametrize(
    ("params", "text", "score"),
    [(None, ["a!", "bb!", "ccc!"], [1.0, 6.0, 15.0]), ({"times": 10, "sign": "?"}, ["a?", "bb?", "ccc?"], [5.0, 30.0, 75.0])],
    ids=["defaults", "given"],
)
def test_columns_and_params_reach_a_python_model(words: tuple[Model, str], params: Any, text: Any, score: Any) -> None:
    model, _ = words
    answer = model.infer(columns(), params)
    assert answer["text"].tolist() == text
    np.testing.assert_allclose(answer["score"], score)
    assert model.form == Form("dataframe", ("text", "score"))
    assert len(model.buckets.rows) > 0


def test_each_answer_keeps_the_form_that_its_own_params_asked_for(words: tuple[Model, str]) -> None:
    model, _ = words
    signs = ["[", "!"] * 40
    answers = [(sign, model.submit(columns(), params={"sign": sign})) for sign in signs]
    for sign, answer in answers:
        outputs = answer.result(30)
        assert isinstance(outputs, Formed) and outputs.form is not None
        assert outputs.form.kind == ("records" if sign == "[" else "dataframe")
        assert outputs["text"].tolist() == [word + sign for word in ROWS["word"]]


def test_over_grpc(words: tuple[Model, str]) -> None:
    with Client(words[1], model="words") as client:
        for inputs in (columns(), ROWS, ROWS.to_dict("records")):
            answer = client.infer(inputs)
            assert answer["text"].tolist() == ["a!", "bb!", "ccc!"]
            np.testing.assert_allclose(answer["score"], [1.0, 6.0, 15.0])
        assert client.infer(ROWS, {"sign": "?", "times": 10})["text"].tolist() == ["a?", "bb?", "ccc?"]
        with pytest.raises(InvalidInput, match='param "times"'):
            client.infer(ROWS, {"times": "many"})


def test_requests_of_unequal_params_share_no_batch(words: tuple[Model, str]) -> None:
    model, _ = words
    futures = [model.submit(columns(), params={"times": times}) for times in (1, 2, 3) * 5]
    for times, future in zip((1, 2, 3) * 5, futures, strict=True):
        np.testing.assert_allclose(future.result(30)["score"], np.array([0.5, 3.0, 7.5]) * times)


def test_what_the_signature_refuses_never_reaches_it(words: tuple[Model, str]) -> None:
    model, _ = words
    executions = model.statistics.snapshot().executions
    with pytest.raises(SignatureMismatch, match='"n"'):
        model.infer({**columns(), "n": np.array(["1", "2", "3"], object)})
    with pytest.raises(SignatureMismatch, match="times"):
        model.infer(columns(), {"times": "many"})
    assert model.statistics.snapshot().executions == executions


def spec(name: str, dtype: str = "<f4", *, column: bool = False, is_named: bool = True) -> dict[str, Any]:
    return {"name": name, "named": is_named, "dtype": dtype, "shape": [-1], "column": column}


ONE, UNNAMED = [spec("y")], [spec("output-0", is_named=False)]
TWO = [spec("a", "<i8", column=True), spec("b", "|O", column=True)]
MATRIX = np.arange(6.0).reshape(3, 2)

ANSWERS: dict[str, tuple[Any, list[dict[str, Any]], dict[str, Any], Form]] = {
    "array": (MATRIX, ONE, {"y": MATRIX}, Form("ndarray")),
    "array for two columns": (MATRIX, TWO, {"a": MATRIX[:, 0], "b": MATRIX[:, 1]}, Form("ndarray")),
    "array without a promise": (MATRIX, [], {"output-0": MATRIX}, Form("ndarray")),
    "one column of a matrix": (MATRIX[:, :1], [spec("y", column=True)], {"y": MATRIX[:, 0]}, Form("ndarray")),
    "frame": (pd.DataFrame({"b": ["x"], "a": [1]}), TWO, {"a": [1], "b": ["x"]}, Form("dataframe", ("b", "a"))),
    "frame for a matrix": (pd.DataFrame(MATRIX), UNNAMED, {"output-0": MATRIX}, Form("dataframe", ("0", "1"))),
    "series": (pd.Series([1.0, 2.0], name="s"), ONE, {"y": [1.0, 2.0]}, Form("series", ("s",))),
    "map": ({"y": [1.0], "more": [2]}, ONE, {"y": [1.0]}, Form("dict", ("y", "more"))),
    "map by position": ({"logits": MATRIX}, UNNAMED, {"output-0": MATRIX}, Form("dict", ("logits",))),
    "tuple": (
        ([1], ["x"]),
        [spec("p", is_named=False), spec("q", is_named=False)],
        {"p": [1], "q": ["x"]},
        Form("tuple", ("0", "1")),
    ),
    "records": ([{"a": 1, "b": "x"}, {"a": 2, "b": None}], TWO, {"a": [1, 2], "b": ["x", None]}, Form("records", ("a", "b"))),
    "list of numbers": ([1, 2], ONE, {"y": [1.0, 2.0]}, Form("list")),
    "list of text": (["a", "b"], [spec("y", "|O")], {"y": ["a", "b"]}, Form("list")),
    "list of lists": ([[1, 2], [3]], [spec("y", "|O")], {"y": [[1, 2], [3]]}, Form("list")),
    "list of maps": ([{"k": 1}], [spec("y", "|O")], {"y": [{"k": 1}]}, Form("list")),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_what_a_model_returns_becomes_the_outputs(case: str) -> None:
    value, declared, wanted, form = ANSWERS[case]
    outputs, told = named(value, declared)
    assert told == form
    assert list(outputs) == list(wanted)
    for name, array in wanted.items():
        assert np.asarray(outputs[name]).tolist() == (array.tolist() if isinstance(array, np.ndarray) else array)


def test_whole_numbers_of_a_list_get_the_declared_dtype_only_where_they_keep_their_value() -> None:
    assert named([1, 2], [spec("y", "<i4")])[0]["y"].dtype == np.int32
    assert named([1, 1 << 40], [spec("y", "<i4")])[0]["y"].dtype == np.int64


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ([70000.0], "<f2"),
        ([1 + 2j], "<f4"),
        ([0.1], "<f4"),
        ([2**53 + 1], "<f8"),
        ([2**64 - 1], "<f8"),
        ([2**53 + 1, 0.5], "<f8"),
        ([2.0**63], "<i8"),
        ([-1], "|u1"),
        ([2], "|b1"),
    ],
)
def test_a_list_is_never_cast_where_that_changes_a_value(value: Any, dtype: str) -> None:
    assert named(value, [spec("y", dtype)])[0]["y"].tolist() == value
    kept = named([0.5, float("nan")], [spec("y", "<f2")])[0]["y"]
    assert kept.dtype == np.float16


@pytest.mark.parametrize(
    "value", [pd.DataFrame([[1, "x"]], columns=["a", "a"]), {1: [1], "1": [2]}, pd.DataFrame([[1, 2]], columns=[1, "1"])]
)
def test_two_columns_of_one_name_are_no_answer(value: Any) -> None:
    with pytest.raises(EngineError, match="two columns called"):
        named(value, TWO)


def test_columns_that_make_no_matrix_without_a_change_of_value() -> None:
    with pytest.raises(EngineError, match="the model returned"):
        named(pd.DataFrame({"0": [2**53 + 1], "1": [0.5]}), UNNAMED)


@pytest.mark.parametrize("method", ["get_params", "fit", "__reduce__", "_repr_html_"])
def test_sklearn_runs_no_other_method_than_those_that_predict(tmp_path: Path, method: str) -> None:
    engine = SklearnEngine(str(tmp_path), "model.pkl", {}, {"predict_fn": method}, True, [], [])
    with pytest.raises(UnsupportedModel, match=f"predict_fn: wanted one of predict, .*, got '{method}'"):
        engine.load()


@pytest.mark.parametrize("value", [None, "text", 7, object(), np.float32(1), {1, 2}], ids=lambda value: type(value).__name__)
def test_what_holds_no_rows_is_no_answer(value: Any) -> None:
    with pytest.raises(EngineError, match="holds no rows"):
        named(value, ONE)
