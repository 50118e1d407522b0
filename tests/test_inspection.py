"""What is told of a model: all that MLflow wrote, and what follows from it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import tensor
from tensign.demo import MODEL
from tensign.inspection import inspected, layout
from tensign.specs import TensorSpec


@pytest.mark.parametrize(
    ("name", "served", "says"),
    [
        ("digits-onnx", "as onnx, model.onnx, by engine onnx", "in the server's own process"),
        ("digits-pytorch-mlflow2", "as ONNX: serve and predict convert it first", ""),
        ("digits-pytorch-mlflow3", "as ONNX: serve and predict convert it first", ""),
        ("heart-sklearn", "as sklearn, model.pkl, by engine sklearn; with --trust", "unpickles model.pkl"),
        ("heart-sklearn-skops", "as sklearn, model.skops, by engine sklearn", "runs nothing of the model's own code"),
        ("faces-fastai-2.8", "as ONNX: serve and predict convert it first", ""),
        ("faces-fastai-2.4.1", "as ONNX: serve and predict convert it first", ""),
    ],
)
def test_the_engine_and_why(name: str, served: str, says: str, fixture_dir: Callable[[str], Path]) -> None:
    facts = inspected(fixture_dir(name))
    assert facts["served"].startswith(served)
    assert says in facts.get("why", "")
    assert "python_function" in facts["other flavors"]
    assert json.loads(json.dumps(facts)) == facts


def test_a_converted_model_is_the_same_one_for_mlflow(tmp_path: Path) -> None:
    assert inspected(MODEL)["other flavors"] == {"python_function": "this same model, as mlflow.pyfunc.load_model opens it"}
    for name in ("model.onnx", "labels.json"):
        shutil.copy(MODEL / name, tmp_path)
    said = (MODEL / "MLmodel").read_text()
    (tmp_path / "MLmodel").write_text(said.replace("tensign.pyfunc", "other.pyfunc"))
    assert "so it needs --trust" in inspected(tmp_path)["other flavors"]["python_function"]


def test_columns_params_and_every_key_are_told(mlmodel: Callable[..., Path]) -> None:
    columns = [
        {"type": "long", "name": "age", "required": True},
        {"type": "array", "items": {"type": "string"}, "name": "tags", "required": False},
    ]
    params = [{"name": "t", "default": 0.5, "shape": None, "type": "double"}]
    facts = inspected(
        mlmodel(
            signature={"inputs": columns, "outputs": [{"type": "double", "required": True}], "params": params},
            flavors={"strange": {"a": 1}, "python_function": {"env": "conda.yaml", "loader_module": "x"}},
            metadata={"owner": "me"},
            model_id="m-1",
            of_the_future=[1],
        )
    )
    assert facts["inputs"] == [
        {"name": "age", "type": "long", "required": True},
        {"name": "tags", "type": "array<string>", "required": False},
    ]
    assert facts["params"] == [{"name": "t", "type": "double", "default": 0.5}]
    assert facts["mlmodel"] == {"model_id": "m-1", "of_the_future": [1]}
    assert facts["metadata"] == {"owner": "me"} and facts["environment"] == {"conda": "conda.yaml"}
    assert facts["served"].startswith("as python_function") and facts["batching"].startswith("none: each request")
    assert facts["other flavors"] == {"strange": "no engine runs it; its python_function flavor may"}


@pytest.mark.parametrize(
    ("dtype", "shape", "says"),
    [
        ("uint8", (-1, 300, 200, 3), "pictures NHWC, RGB of 200x300"),
        ("float32", (-1, 3, 300, 200), "pictures NCHW, RGB of 200x300"),
        ("float32", (-1, 1, 28, 28), "pictures NCHW, grey of 28x28"),
        ("uint8", (-1, -1, -1, 4), "pictures NHWC, RGBA of any size"),
        ("int64", (-1, 3, 8, 8), "plain tensor"),
        ("float32", (-1, 8, 8, 8), "plain tensor"),
        ("float32", (-1, 3), "plain tensor"),
    ],
)
def test_layout_of_an_input(dtype: str, shape: tuple[int, ...], says: str) -> None:
    assert layout(TensorSpec("x", np.dtype(dtype), shape)) == says


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ([-1, 3], "in sizes that warm-up measures"),
        ([-1, -1], "equal shapes share a batch"),
        ([4, 3], "fixed: 4 rows at a time"),
    ],
    ids=str,
)
def test_batching_follows_from_the_shape(shape: list[int], says: str, mlmodel: Callable[..., Path]) -> None:
    path = mlmodel(signature={"inputs": [tensor("float32", shape)], "outputs": [tensor("float32", [-1])]})
    (path / "model.onnx").touch()
    facts = inspected(path)
    assert facts["batching"].endswith(says) and "task" not in facts


@pytest.mark.parametrize("signature", [None, {"inputs": "[", "outputs": "[]"}, 5], ids=str)
def test_a_model_without_a_usable_signature_is_still_told(signature: Any, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(json.dumps({"flavors": {"onnx": {"data": "model.onnx"}}, "signature": signature}))
    facts = inspected(tmp_path / "MLmodel")
    assert facts["signature"].startswith("none that can be used: ") and facts["served"].startswith("no: ")
    assert facts["flavors"] == {"onnx": {"data": "model.onnx"}}


def test_the_text_fits_80_columns_and_holds_what_the_json_does() -> None:
    command = [sys.executable, "-m", "tensign", "inspect", str(MODEL / "MLmodel")]
    text = subprocess.run(command, capture_output=True, text=True, check=True, env={"COLUMNS": "80"}).stdout
    assert max(map(len, text.splitlines())) <= 80
    for key in inspected(MODEL):
        assert any(line.startswith(f"{key} ") for line in text.splitlines()), key
    assert "image: uint8 [-1,256,256,3], pictures NHWC, RGB of 256x256" in text
