"""The heart model, 13 columns in and one out, over gRPC: answers, refusals, and what the server says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tensign.client import Client
from tensign.config import ModelConfig
from tensign.errors import InvalidInput, ModelFailed, SignatureMismatch
from tensign.model import Model
from tensign.signature import Signature
from tensign.testing import serving

FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"

pytest.importorskip("sklearn")


@pytest.fixture(scope="module", params=["heart-sklearn", "heart-sklearn-skops"])
def heart(request: pytest.FixtureRequest) -> Iterator[tuple[Client, dict[str, Any], Signature]]:
    path = FIXTURES / request.param
    if not path.is_dir():
        pytest.skip(f"shared/fixtures/{request.param} is not beside this checkout")
    model = Model.load(path, ModelConfig(device="cpu", trust=True))
    with serving(model) as address, Client(address) as client:
        yield client, json.loads((path / "golden.json").read_text()), model.signature


def columns(golden: dict[str, Any], signature: Signature) -> dict[str, npt.NDArray[Any]]:
    table = dict(zip(golden["columns"], zip(*golden["data"], strict=True), strict=True))
    return {spec.name: np.array(table[spec.name], spec.dtype) for spec in signature.inputs}


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)], ids=["[n]", "[n,1]"])
def test_columns_over_grpc_give_the_golden_answers(
    heart: tuple[Client, dict[str, Any], Signature], shape: tuple[int, ...]
) -> None:
    client, golden, signature = heart
    answer = client.infer({name: array.reshape(shape) for name, array in columns(golden, signature).items()})
    assert answer["target"].dtype == np.int64
    assert answer["target"].tolist() == golden["outputs"]


@pytest.mark.parametrize(
    ("name", "array", "text"),
    [
        ("thal", np.array([b"\xff"], object), 'input "thal", row 0: not UTF-8 at byte 0'),
        ("age", np.array([60.0]), 'input "age": expected long, got float64 [1]'),
        ("oldpeak", np.array([2**53 + 1]), 'input "oldpeak": expected double, got int64 [1]'),
        ("weight", np.array([80.0]), 'unexpected input "weight"'),
        ("age", np.array([60, 61]), "disagree on the number of rows"),
        ("age", None, 'missing input "age"'),
    ],
    ids=["not UTF-8", "float for long", "long beyond double", "extra", "rows", "missing"],
)
def test_a_bad_column_is_named(
    heart: tuple[Client, dict[str, Any], Signature], name: str, array: npt.NDArray[Any] | None, text: str
) -> None:
    client, golden, signature = heart
    row = {column: values[:1] for column, values in columns(golden, signature).items()}
    changed = {**row, name: array}
    with pytest.raises(SignatureMismatch) as caught:
        client.infer({column: values for column, values in changed.items() if values is not None})
    assert text in str(caught.value)


def test_the_server_tells_the_columns(heart: tuple[Client, dict[str, Any], Signature]) -> None:
    client, _, signature = heart
    told = client.metadata()
    assert told.platform == "mlflow_sklearn"
    assert [(spec.name, spec.dtype, spec.shape) for spec in told.inputs] == [
        (spec.name, spec.dtype, (-1,)) for spec in signature.inputs
    ]


def test_records_and_dataframes_go_as_columns(heart: tuple[Client, dict[str, Any], Signature]) -> None:
    pandas = pytest.importorskip("pandas")
    client, golden, _ = heart
    records = [dict(zip(golden["columns"], row, strict=True)) for row in golden["data"]]
    for inputs in (records, pandas.DataFrame(records)):
        assert client.infer(inputs)["target"].tolist() == golden["outputs"]
    assert client.infer(records[0])["target"].tolist() == golden["outputs"][:1]
    with pytest.raises(InvalidInput, match='input "thal", row 0: missing'):
        client.infer(pandas.DataFrame(records).assign(thal=None))
    with pytest.raises(ModelFailed, match="the model raised ValueError; the server"):  # scikit-learn takes no NaN
        client.infer(pandas.DataFrame(records).assign(oldpeak=np.nan))
    with pytest.raises(SignatureMismatch, match='missing input "age"'):
        client.infer([{name: value for name, value in record.items() if name != "age"} for record in records])
