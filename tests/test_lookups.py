"""Encoders and the imputer, category by category: the graph's table is the encoder's own."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pandas as pd
import pytest
from onnx import TensorProto, helper
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from tensign.engines.onnx import text
from tensign.errors import UnsupportedModel
from tensign_converters.tables.sklearngraph import converted

TEXTS = pd.DataFrame({"t": ["a", "b", "b", "c", "é", "b"]}, dtype=object)
NUMBERS = pd.DataFrame({"x": [1.0, 2.5, -3.0, 0.0, 1.0, np.nan]})
BOTH = pd.concat([TEXTS, NUMBERS], axis=1)


def graph_of(transformer: Any, table: pd.DataFrame) -> npt.NDArray[np.float64]:
    """[n,width]: what the graph of a fitted transformer of these columns makes of them."""
    columns = {name: table[name].to_numpy()[:, None] for name in table}
    body = converted(transformer, {name: int(array.dtype != object) for name, array in columns.items()})
    kinds = [TensorProto.DOUBLE if array.dtype != object else TensorProto.STRING for array in columns.values()]
    inputs = [helper.make_tensor_value_info(name, kind, ["n", 1]) for name, kind in zip(body.inputs, kinds, strict=True)]
    outputs = [helper.make_tensor_value_info(body.outputs[0], TensorProto.DOUBLE, ["n", None])]
    graph = helper.make_graph(list(body.nodes), "test", inputs, outputs, list(body.constants))
    opsets = [helper.make_opsetid(domain, version) for domain, version in body.versions.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    arrays = [text(array) if array.dtype == object else array for array in columns.values()]
    return np.asarray(session.run(None, dict(zip(body.inputs, arrays, strict=True)))[0])


def dense(found: Any) -> Any:
    return found.toarray() if hasattr(found, "toarray") else found


@pytest.mark.parametrize(
    "encoder",
    [
        OneHotEncoder(handle_unknown="ignore"),
        OneHotEncoder(handle_unknown="ignore", drop="first"),
        OneHotEncoder(handle_unknown="ignore", drop="if_binary", dtype=np.int8),
        OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=2),
        OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=2),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=7),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, min_frequency=2),
    ],
    ids=["one hot", "drop first", "drop if binary", "rare", "most", "codes", "missing has a code", "unknown is NaN"],
)
def test_known_unknown_and_missing_categories(encoder: Any) -> None:
    encoder.fit(BOTH)
    table = {"t": np.array(["a", "c", "é", "unseen", "", "A"], object), "x": [1.0, 1.5, -0.0, 7.0, np.nan, 2.5]}
    asked = pd.DataFrame(table)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is unknown
        expected = dense(encoder.transform(asked))
    np.testing.assert_array_equal(graph_of(encoder, asked), expected)


def test_missing_text_is_a_category_where_the_encoder_knows_it() -> None:
    table = pd.DataFrame({"t": ["a", np.nan, "b"]}, dtype=object)
    encoder = OneHotEncoder(handle_unknown="ignore").fit(table)
    np.testing.assert_array_equal(graph_of(encoder, table), dense(encoder.transform(table)))
    without = OneHotEncoder(handle_unknown="ignore").fit(TEXTS)
    np.testing.assert_array_equal(graph_of(without, table), dense(without.transform(table)))


@pytest.mark.parametrize("encoder", [OneHotEncoder(), OrdinalEncoder()], ids=["one hot", "codes"])
@pytest.mark.parametrize("value", ["unseen", 1.5], ids=["text", "number"])
def test_an_unknown_category_is_refused_where_the_encoder_refuses_it(encoder: Any, value: Any) -> None:
    known = TEXTS if isinstance(value, str) else NUMBERS
    encoder.fit(known)
    np.testing.assert_array_equal(graph_of(encoder, known), dense(encoder.transform(known)))
    with pytest.raises(Exception, match="Name:'refuses_an_unknown_category"):
        graph_of(encoder, pd.DataFrame({name: [value] for name in known}).astype(known.dtypes))


@pytest.mark.parametrize(
    ("imputer", "table"),
    [
        (SimpleImputer(strategy="median", add_indicator=True), NUMBERS),
        (SimpleImputer(missing_values=1.0, strategy="constant", fill_value=1e17 + 16), NUMBERS.fillna(4.0)),
        (SimpleImputer(strategy="most_frequent"), pd.DataFrame({"t": ["b", np.nan, "b", "a"]}, dtype=object)),
        (SimpleImputer(strategy="most_frequent"), TEXTS.assign(u=np.array(["x", "y", np.nan, "x", "x", "é"], object))),
        (SimpleImputer(missing_values="b", strategy="constant", fill_value="ü"), TEXTS),
    ],
    ids=["median", "a number", "text", "two texts", "a text"],
)
def test_what_is_missing_is_filled_in(imputer: Any, table: pd.DataFrame) -> None:
    imputer.fit(table)
    if table.dtypes.iloc[0].kind == "f":
        np.testing.assert_array_equal(graph_of(imputer, table), imputer.transform(table))
        return
    filled = make_pipeline(imputer, OneHotEncoder(handle_unknown="ignore")).fit(table)
    np.testing.assert_array_equal(graph_of(filled, table), dense(filled.transform(table)))


def test_text_and_numbers_in_one_step_are_told_apart_or_refused() -> None:
    together = ColumnTransformer([("all", SimpleImputer(strategy="most_frequent"), ["t", "x"])])
    mixed = make_pipeline(together, OneHotEncoder()).fit(BOTH)
    with pytest.raises(UnsupportedModel, match="OneHotEncoder: wanted text as categories of column 1, each once; a step takes"):
        graph_of(mixed, BOTH)
    with pytest.raises(UnsupportedModel, match="SimpleImputer: a column of which nothing was there"):
        graph_of(SimpleImputer(keep_empty_features=False).fit(NUMBERS.assign(x=np.nan)), NUMBERS)
