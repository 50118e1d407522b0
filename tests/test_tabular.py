"""A scikit-learn MLmodel, converted and served: the same answers over gRPC and /invocations, the same refusals."""

from __future__ import annotations

import http.client
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import yaml
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from conftest import CPU, tensor
from tables import NUMBERS, column, patients, risk, saved, with_example
from tensign.client import Client
from tensign.errors import ModelFailed, ParityFailed, UnsupportedModel, UntrustedModel
from tensign.mlmodel import ModelManifest, read_mlmodel
from tensign.model import Model
from tensign.proof.record import Record
from tensign.proof.verification import verify
from tensign.pyfunc import PyFuncModel
from tensign.testing import running
from tensign_converters.package import write_model
from tensign_converters.tables.tabular import Tabular, read_tabular

AGE = [column("age", patients(9).age)]
TARGET = [{"name": "target", "type": "long", "required": True}]


def written(target: Path, tabular: Tabular) -> Path:
    """As an MLmodel directory."""
    target.mkdir()
    write_model(tabular.subject(), target, origin={"flavor": "sklearn"})
    return target


@dataclass(frozen=True)
class Heart:
    """The heart model, converted and served."""

    tabular: Tabular
    path: Path
    golden: dict[str, Any]
    table: pd.DataFrame
    client: Client
    http: str

    def post(self, body: Any, kind: str = "application/json") -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self.http, timeout=60)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", "/invocations", content, {"content-type": kind})
        answer = connection.getresponse()
        told = json.loads(answer.read())
        connection.close()
        return answer.status, told


@pytest.fixture(scope="module", params=["heart-sklearn", "heart-sklearn-skops"])
def heart(
    request: pytest.FixtureRequest, fixture_dir: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Heart]:
    source = fixture_dir(request.param)
    tabular = read_tabular(read_mlmodel(source), trust=request.param == "heart-sklearn")
    path = written(tmp_path_factory.mktemp("heart") / "model", tabular)
    golden = json.loads((source / "golden.json").read_text())
    table = pd.DataFrame(golden["data"], columns=golden["columns"])
    with running(Model.load(path, CPU)) as server:
        assert server.http_address is not None
        with Client(server.grpc_address) as client:
            yield Heart(tabular, path, golden, table, client, server.http_address)


def test_the_golden_answers_over_grpc(heart: Heart) -> None:
    columns = {name: np.array(heart.table[name].tolist(), object if name == "thal" else None) for name in heart.table}
    for inputs in (heart.table, columns, {name: array[:, None] for name, array in columns.items()}):
        answer = heart.client.infer(inputs)["target"]
        assert answer.dtype == np.int64 and answer.tolist() == heart.golden["outputs"]
    one = heart.client.infer(heart.table.iloc[3].to_dict())
    assert one["target"].tolist() == heart.golden["outputs"][3:4]


def test_the_golden_answers_over_http_in_the_form_of_the_original(heart: Heart) -> None:
    parquet = io.BytesIO()
    heart.table.to_parquet(parquet)
    bodies: list[tuple[Any, str]] = [
        ({"dataframe_split": {"columns": heart.golden["columns"], "data": heart.golden["data"]}}, "application/json"),
        ({"dataframe_records": heart.table.to_dict("records")}, "application/json"),
        ({"inputs": {name: heart.table[name].tolist() for name in heart.table}}, "application/json"),
        (heart.table.to_csv(index=False).encode(), "text/csv"),
        (parquet.getvalue(), "application/vnd.apache.parquet"),
    ]
    for body, kind in bodies:
        assert heart.post(body, kind) == (200, {"predictions": heart.golden["outputs"]})


def test_the_golden_probabilities_and_the_proof(heart: Heart) -> None:
    samples = heart.table.to_dict("records")
    answers = heart.tabular.subject().answers(samples)
    assert answers.outputs["target"].tolist() == heart.golden["outputs"]
    kept, _ = Record.read(heart.path)
    parity = kept.proofs["fp32"].parity
    assert len(heart.tabular.asked) == parity.rows >= 400 and parity.equal_values == 1
    assert 0 < parity.relative_difference < 1e-12 and parity.spread > 0.5
    assert kept.against.startswith("the original Pipeline of ColumnTransformer, ")
    assert kept.against.endswith(", its probabilities too, which stay inside; 3 rows that it refuses were refused")
    assert verify(heart.path, CPU).parity.equal_values == 1.0


def test_the_graph_is_one_of_columns(heart: Heart) -> None:
    model = onnx.load(heart.path / "model.onnx")
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    assert model.ir_version == 10 and [*opsets.items()] == [("", 20), ("ai.onnx.ml", 4)]
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    assert [*kinds] == heart.golden["columns"] and kinds["thal"] == onnx.TensorProto.STRING
    assert kinds["oldpeak"] == onnx.TensorProto.DOUBLE and kinds["age"] == onnx.TensorProto.INT64
    assert [value.name for value in model.graph.output] == ["target"]
    assert not any(node.op_type == "ZipMap" for node in model.graph.node)


def test_what_the_original_refuses_is_refused(heart: Heart) -> None:
    with pytest.raises(ModelFailed, match="the model refuses NaN"):
        heart.client.infer(heart.table.assign(oldpeak=np.nan))
    with pytest.raises(ModelFailed, match="the model refuses infinity"):
        heart.client.infer(heart.table.assign(oldpeak=-np.inf))


def test_missing_text_is_no_category(heart: Heart) -> None:
    """MLflow lets null through for a required column of text, and scikit-learn takes it for a category unknown to it."""
    rows = heart.table.assign(thal=None)
    expected = heart.tabular.original.estimator.predict(rows)
    assert heart.post({"dataframe_records": rows.to_dict("records")}) == (200, {"predictions": expected.tolist()})
    assert expected.tolist() != heart.golden["outputs"]


def test_mlflow_gets_the_array_that_the_original_gave(heart: Heart) -> None:
    answer = PyFuncModel(heart.path).predict(heart.table)
    assert isinstance(answer, np.ndarray) and answer.tolist() == heart.golden["outputs"]


def test_a_pickle_needs_trust(fixture_dir: Callable[[str], Path]) -> None:
    with pytest.raises(UntrustedModel, match=r"model\.pkl is a pickle"):
        read_tabular(read_mlmodel(fixture_dir("heart-sklearn")), trust=False)


def converted(manifest: ModelManifest, target: Path) -> tuple[Tabular, Model]:
    tabular = read_tabular(manifest, trust=True)
    return tabular, Model.load(written(target, tabular), CPU)


def test_missing_values_are_served_where_the_signature_says_optional(tmp_path: Path) -> None:
    """A category may be missing, a number too, and one category is refused: zeros would be no warm-up."""
    table = patients()
    target = (risk(table) > 0).astype(int)
    table.loc[::5, "chol"], table["thal"] = np.nan, table.thal.where(table.index % 7 != 0)
    table["smokes"], table["peak"], table["age"] = table.age > 50, table.peak.astype("float32"), table.age.astype("int32")
    text = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    columns = [("text", text, ["thal"]), ("codes", OneHotEncoder(), ["cp"]), ("number", SimpleImputer(), NUMBERS)]
    estimator = make_pipeline(ColumnTransformer(columns, remainder="passthrough"), StandardScaler(), LogisticRegression())
    estimator.fit(table, target)
    source = tmp_path / "source"
    manifest = saved(source, estimator, table, TARGET)
    manifest = read_mlmodel(rewritten(source, saved_input_example_info=with_example(source, table[1:9])))
    tabular, model = converted(manifest, tmp_path / "model")
    assert "the 8 rows of the saved example" in tabular.asked.said
    assert str(model.signature.inputs[4]) == "string, optional" and str(model.signature.inputs[5]) == "boolean"
    assert model.infer(table)["target"].tolist() == estimator.predict(table).tolist()
    with running(model) as server:
        records = json.loads(table[:9].to_json(orient="records"))
        heart = Heart(tabular, source, {}, table, None, server.http_address or "")  # type: ignore[arg-type]
        assert heart.post({"dataframe_records": records}) == (200, {"predictions": estimator.predict(table[:9]).tolist()})
        status, answer = heart.post({"dataframe_records": [{**records[0], "cp": 9}]})
        assert status == 500 and "the model refuses an unknown category" in json.dumps(answer)


def rewritten(source: Path, **changes: Any) -> Path:
    document = yaml.safe_load((source / "MLmodel").read_text())
    (source / "MLmodel").write_text(yaml.safe_dump({**document, **changes}))
    return source


def test_tensors_in_and_probabilities_out(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(150, 64))
    forest = RandomForestClassifier(9, random_state=0).fit(x, np.where(x[:, 0] > 0, "yes", "no"))
    signature = {"inputs": [tensor("float64", [-1, 64])], "outputs": [tensor("float64", [-1, 2])]}
    flavors = {"python_function": {"predict_fn": "predict_proba"}}
    manifest = saved(tmp_path / "source", forest, pd.DataFrame(), [], signature=signature, flavors=flavors)
    tabular, model = converted(manifest, tmp_path / "model")
    np.testing.assert_array_equal(model.infer(x)["output-0"], forest.predict_proba(x))
    assert tabular.subject().head.labels == ("no", "yes") and tabular.subject().head.task == "classification"
    model.close()


@pytest.mark.parametrize(
    ("inputs", "outputs", "text"),
    [
        ([{"name": "age", "type": "binary"}], TARGET, 'input "age": binary; wanted boolean, integer, long'),
        (AGE, [{"name": "age", "type": "long"}], '"age" is the name of an input and of an output'),
        (
            [tensor("float64", [-1, -1])],
            TARGET,
            r'input "input-0": float64 \[-1,-1\]; wanted columns, or one tensor of numbers',
        ),
        (AGE, [tensor("int64", [-1, 1, 1])], r'output "output-0": int64 \[-1,1,1\]; wanted a column'),
    ],
    ids=["binary", "one name twice", "any width", "rank 3"],
)
def test_signatures_that_no_graph_has(tmp_path: Path, inputs: list[Any], outputs: list[Any], text: str) -> None:
    signature = {"inputs": inputs, "outputs": outputs}
    with pytest.raises(UnsupportedModel, match=text):
        read_tabular(saved(tmp_path / "source", None, pd.DataFrame(), [], signature=signature), trust=True)


def test_labels_that_are_not_the_originals_are_no_proof(heart: Heart, tmp_path: Path) -> None:
    path = tmp_path / "model"
    shutil.copytree(heart.path, path)
    with np.load(path / "proof.npz") as kept:
        turned = {name: 1 - array for name, array in kept.items()}
    np.savez(path / "proof.npz", **turned)
    with pytest.raises(ParityFailed, match=r"0\.0% of labels and whole numbers equal"):
        verify(path, CPU)
