"""The HTTP faces as their clients see them: a real server, real bytes."""

from __future__ import annotations

import base64
import http.client
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from conftest import CPU
from tensign.client import Client
from tensign.config import ModelConfig
from tensign.demo import MODEL, PICTURES
from tensign.http.openapi import description
from tensign.model import Model
from tensign.server import Server
from tensign.testing import running
from tensign.version import __version__

JSON = {"content-type": "application/json"}


def asked(
    server: Server, path: str, body: Any = None, headers: dict[str, str] | None = None, method: str = ""
) -> tuple[int, Any]:
    """Status and answer of one request; what is no bytes is sent as JSON, JSON that comes is parsed."""
    assert server.http_address is not None
    sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    with closing(http.client.HTTPConnection(server.http_address, timeout=60)) as connection:
        connection.request(method or ("GET" if body is None else "POST"), path, sent, JSON if headers is None else headers)
        answer = connection.getresponse()
        content = answer.read()
    try:
        return answer.status, json.loads(content)
    except ValueError:
        return answer.status, content.decode()


@pytest.fixture(scope="module")
def demo() -> Iterator[Server]:
    """A running server of the bundled EfficientNet-Lite0, over gRPC and HTTP."""
    with running(Model.load(MODEL, CPU, name="demo")) as server:
        yield server


@pytest.mark.parametrize(("path", "text"), [("/ping", "\n"), ("/health", "\n"), ("/version", __version__)])
def test_what_probes_ask(demo: Server, path: str, text: str) -> None:
    assert asked(demo, path) == (200, text)


def test_both_faces_answer_the_same(demo: Server) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), np.uint8)
    status, answer = asked(demo, "/invocations", {"inputs": pixels.tolist()})
    with Client(demo.grpc_address) as client:
        expected = client.infer({"image": pixels})["probabilities"]
    assert status == 200
    assert np.abs(np.array(answer["predictions"]["probabilities"]) - expected).max() < 1e-6


def test_a_picture_as_base64_is_the_picture_as_bytes(demo: Server, pictures: list[Path]) -> None:
    contents = [file.read_bytes() for file in pictures]
    texts = [base64.b64encode(content).decode() for content in contents]
    with Client(demo.grpc_address) as client:
        expected = client.infer({"image": np.array(contents, object)})["probabilities"]
    forms: list[tuple[str, Any]] = [
        ("/invocations", {"inputs": texts}),
        ("/invocations", {"inputs": [{"b64": text} for text in texts]}),
        ("/invocations", {"inputs": {"image": texts}}),
        ("/invocations", {"inputs": {"image": [f"data:image/jpeg;base64,{text}" for text in texts]}}),
        ("/invocations", {"instances": [{"image": {"b64": text}} for text in texts]}),
        ("/invocations", {"dataframe_split": {"columns": ["image"], "data": [[text] for text in texts]}}),
        ("/invocations", {"dataframe_records": [{"image": text} for text in texts]}),
        ("/score", {"input_data": {"columns": ["image"], "index": list(range(8)), "data": [[text] for text in texts]}}),
        ("/score", {"input_data": {"image": texts}}),
        ("/score", {"input_data": texts}),
    ]
    for path, body in forms:
        status, answer = asked(demo, path, body)
        assert status == 200, (path, list(body), answer)
        named = answer["predictions"] if path == "/invocations" else answer
        assert np.abs(np.array(named["probabilities"]) - expected).max() < 1e-6


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["not base64!"], "image 0: wanted base64"),
        ([{"b64": "QUJD"}], "row 0|image 0"),
        (["QUJD", "*"], "image 1: wanted base64"),
        ([{"b64": 1}], "missing input"),
        (["QUJD", 1], "expected uint8"),
    ],
)
def test_a_picture_that_is_none(demo: Server, value: Any, text: str) -> None:
    status, answer = asked(demo, "/invocations", {"inputs": value})
    assert status == 400
    assert re.search(text, answer["message"])


def test_what_azure_asks(demo: Server) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (1, 256, 256, 3), np.uint8)
    expected = asked(demo, "/invocations", {"inputs": pixels.tolist()})[1]["predictions"]
    assert asked(demo, "/") == (200, "Healthy")
    assert asked(demo, "/score", {"input_data": pixels.tolist()}) == (200, expected)
    assert asked(demo, "/score", {"input_data": {"image": pixels.tolist()}, "params": None}) == (200, expected)
    flat = {"columns": ["image"], "index": [7], "data": [[pixels.ravel().tolist()]]}
    assert asked(demo, "/score", {"input_data": flat}) == (200, expected)


@pytest.mark.parametrize(
    "body", [{}, {"inputs": [1]}, [], {"input_data": None}, {"input_data": {"columns": ["image"], "data": 1}}]
)
def test_what_azure_refuses(demo: Server, body: Any) -> None:
    status, answer = asked(demo, "/score", body)
    assert status == 400
    assert list(answer) == ["message"]


def test_several_models_are_asked_by_name(mean_model: Path, fixture_dir: Callable[[str], Path]) -> None:
    models = [Model.load(mean_model, CPU, name="mean"), Model.load(fixture_dir("digits-onnx"), CPU, name="digits/onnx")]
    body = {"inputs": np.ones((1, 4, 5, 3), int).tolist()}
    with running(*models) as server:
        assert asked(server, "/models/mean/invocations", body) == (200, {"predictions": {"mean": [[1.0, 1.0, 1.0]]}})
        assert asked(server, "/models/mean/score", {"input_data": body["inputs"]}) == (200, {"mean": [[1.0, 1.0, 1.0]]})
        status, answer = asked(server, "/invocations", body)
        assert (status, answer["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
        assert "/models/NAME/invocations" in answer["message"] and "mean" in answer["message"]
        assert asked(server, "/swagger.json")[0] == 404
        assert asked(server, "/models/mean/swagger.json")[1]["servers"] == [{"url": "/models/mean"}]


def test_rows_beyond_the_queue_are_answered_in_order(mean_model: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (1500, 4, 5, 3), np.uint8)
    with running(Model.load(mean_model, CPU, name="mean")) as server:
        status, answer = asked(server, "/invocations", {"inputs": pixels.tolist()})
    assert status == 200
    assert np.allclose(answer["predictions"]["mean"], pixels.mean(axis=(1, 2)), atol=1e-4)


def test_a_client_that_goes_takes_its_work_with_it() -> None:
    model = Model.load(MODEL, CPU, name="demo")
    picture = base64.b64encode((PICTURES / "coffee_palette_480x320.png").read_bytes()).decode()
    with running(model) as server:
        assert server.http_address is not None
        connection = http.client.HTTPConnection(server.http_address, timeout=60)
        connection.request("POST", "/invocations", json.dumps({"inputs": [picture] * 500}), JSON)
        while not model.statistics.snapshot().rows:
            time.sleep(0.001)
        connection.close()
    assert model.statistics.snapshot().rows < 400  # the drain did not wait for all of them either


def test_swagger_is_valid(fixture_dir: Callable[[str], Path]) -> None:
    """By openapi-spec-validator, which lives in the environment of MLflow 2."""
    python = Path(__file__).parents[1] / "build" / "mlflow2" / "bin" / "python"
    if not python.exists():
        pytest.skip("build/mlflow2 is missing: .ci/environment mlflow2 makes it")
    documents = []
    for name in ("digits-onnx", "heart-sklearn", "faces-fastai-2.8", "demo"):
        path = MODEL if name == "demo" else fixture_dir(name)
        config = ModelConfig(device="cpu", trust=True, engine="fastai" if "fastai" in name else "auto", max_batch_size=1)
        with closing(Model.load(path, config, name=name)) as model:
            documents.append(description(model, ""))
    program = "import json, sys, openapi_spec_validator as v; [v.validate(each) for each in json.load(sys.stdin)]"
    done = subprocess.run([python, "-c", program], input=json.dumps(documents), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_input_without_a_name_goes_by_ours(mean_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.ones((1, 4, 5, 3), int).tolist()
    with running(Model.load(mean_model, CPU, name="mean")) as server:
        for body in ({"inputs": {"input-0": pixels}}, {"instances": [{"input-0": pixels[0]}]}):
            assert asked(server, "/invocations", body) == (200, {"predictions": {"mean": [[1.0, 1.0, 1.0]]}})
        for _ in range(2):
            assert asked(server, "/invocations", {"inputs": pixels, "params": {"colour": 1}})[0] == 200
    assert [record.getMessage() for record in caplog.records if "colour" in record.getMessage()] == [
        "mean: param 'colour' is not in the signature, and ignored"
    ]


def test_pictures_as_instances_of_an_input_without_a_name(tmp_path: Path) -> None:
    """TensorFlow Serving's usual form."""
    unnamed = tmp_path / "unnamed"
    shutil.copytree(MODEL, unnamed)
    file = unnamed / "MLmodel"
    document = yaml.safe_load(file.read_text())
    specs = json.loads(document["signature"]["inputs"])
    document["signature"]["inputs"] = json.dumps(
        [{key: value for key, value in spec.items() if key != "name"} for spec in specs]
    )
    file.write_text(yaml.safe_dump(document))
    text = base64.b64encode((PICTURES / "coffee_palette_480x320.png").read_bytes()).decode()
    with running(Model.load(unnamed, CPU, name="demo")) as server:
        by_inputs = asked(server, "/invocations", {"inputs": [{"b64": text}]})
        assert by_inputs[0] == 200
        assert asked(server, "/invocations", {"instances": [{"b64": text}]}) == by_inputs


GOLDEN = (
    "digits-onnx",
    "digits-pytorch-mlflow2",
    "digits-pytorch-mlflow3",
    "heart-sklearn",
    "heart-sklearn-skops",
    "faces-fastai-2.8",
)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_predictions(name: str, fixture_dir: Callable[[str], Path]) -> None:
    """What the training library predicted, over HTTP: numbers to 1e-5, labels exactly."""
    path = fixture_dir(name)
    tensors = "heart" not in name
    if tensors:
        arrays = np.load(path / "golden.npz")
        body, expected = {"inputs": arrays["inputs"].tolist()}, arrays["outputs"]
    else:
        golden = json.loads((path / "golden.json").read_text())
        body, expected = {"dataframe_split": {"columns": golden["columns"], "data": golden["data"]}}, golden["outputs"]
    config = ModelConfig(device="cpu", trust=True, engine="fastai" if "fastai" in name else "auto", max_batch_size=8)
    with running(Model.load(path, config, name="golden")) as server:
        status, answer = asked(server, "/invocations", body)
    assert status == 200, answer
    got = answer["predictions"]
    if isinstance(got, dict):
        (got,) = got.values()
    if isinstance(got[0], dict):
        got = [row["predictions"] for row in got]
    if tensors:
        assert np.abs(np.array(got) - expected).max() < 1e-5
        assert np.argmax(got, axis=1).tolist() == np.argmax(expected, axis=1).tolist()
    else:
        assert got == expected
