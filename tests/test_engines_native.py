"""Every trained fixture, run natively by its own framework in a worker: the predictions that it gave when it was saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tensign.client import Client
from tensign.config import ModelConfig
from tensign.errors import UndecodableImage, UnsupportedModel, UntrustedModel
from tensign.form import Form
from tensign.model import Model
from tensign.testing import serving

Native = tuple[Path, Model, str]

ARRAY, TABLE = Form("ndarray"), Form("dataframe", ("predictions",))

FIXTURES = {  # (directory, engine asked for): (engine that runs, form of the answer)
    ("digits-onnx", "auto"): ("onnx", Form("dict", ("probabilities",))),
    ("digits-onnx", "pyfunc"): ("pyfunc", Form("dict", ("probabilities",))),
    ("digits-pytorch-mlflow2", "auto"): ("torch", ARRAY),
    ("digits-pytorch-mlflow3", "auto"): ("torch", ARRAY),
    ("digits-pytorch-mlflow3", "pyfunc"): ("pyfunc", ARRAY),
    ("heart-sklearn", "auto"): ("sklearn", ARRAY),
    ("heart-sklearn", "pyfunc"): ("pyfunc", ARRAY),
    ("heart-sklearn-skops", "auto"): ("sklearn", ARRAY),
    ("faces-fastai-2.8", "fastai"): ("fastai", TABLE),
    ("digits-multilabel-fastai-2.8", "fastai"): ("fastai", TABLE),
}


def config(engine: str = "auto", *, trust: bool = True) -> ModelConfig:
    return ModelConfig(device="cpu", trust=trust, engine=engine, max_batch_size=4)


def golden(path: Path) -> tuple[dict[str, npt.NDArray[Any]] | npt.NDArray[Any], npt.NDArray[Any]]:
    """Inputs and what the framework answered."""
    if (path / "golden.npz").exists() and not path.name.startswith("heart"):
        with np.load(path / "golden.npz") as stored:
            if "inputs" in stored and stored["inputs"].dtype != object:
                return stored["inputs"], stored["outputs"]
    told = json.loads((path / "golden.json").read_text())
    dtypes = {"int64": np.int64, "float64": np.float64}
    columns = {
        name: np.array([row[index] for row in told["data"]], dtypes.get(told["dtypes"][name], object))
        for index, name in enumerate(told["columns"])
    }
    return columns, np.array(told["outputs"])


@pytest.fixture(scope="module")
def native(request: pytest.FixtureRequest, fixture_dir: Callable[[str], Path]) -> Iterator[Native]:
    """A fixture's directory, its model and the address where that is served; one process at a time, for each takes seconds."""
    directory, engine = request.param
    path = fixture_dir(directory)
    model = Model.load(path, config(engine), name="fixture")
    with serving(model) as address:
        yield path, model, address


@pytest.mark.parametrize(
    ("native", "runs", "form"), [(key, *row) for key, row in FIXTURES.items()], indirect=["native"], ids=map("-".join, FIXTURES)
)
def test_it_predicts_what_it_predicted_here_and_over_grpc(native: Native, runs: str, form: Form) -> None:
    path, model, address = native
    inputs, wanted = golden(path)
    assert model.plan.choice.engine == runs
    (predicted,) = model.infer(inputs).values()
    _close(predicted, wanted)
    assert model.form == form
    with Client(address) as client:
        (predicted,) = client.infer(inputs).values()
    _close(predicted, wanted)
    if runs == "fastai":  # here, for its Learner takes long to load
        _takes_picture_files_of_any_size(path, model)


def _close(predicted: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> None:
    if predicted.dtype.kind == "f":
        np.testing.assert_allclose(predicted, wanted, rtol=0, atol=1e-5)
    else:
        np.testing.assert_array_equal(predicted, wanted)


def _takes_picture_files_of_any_size(path: Path, model: Model) -> None:
    """In one batch; the answers are those of test_dl(list_of_paths). A bad picture fails alone, before the Learner."""
    with np.load(path / "golden.npz") as file:
        stored = dict(file)
    files = [path / "golden_images" / Path(str(name)).name for name in stored["images"]]
    encoded = np.array([file.read_bytes() for file in files], object)
    assert model.plan.labels == tuple(map(str, stored["vocab"]))
    assert model.plan.threshold == (pytest.approx(float(stored["thresh"])) if "thresh" in stored else None)
    (predicted,) = model.infer({"input-0": encoded}).values()
    np.testing.assert_allclose(predicted, stored["outputs_images"], rtol=0, atol=1e-5)
    with pytest.raises(UndecodableImage, match="row 1: 4 bytes are no"):
        model.infer({"input-0": np.array([encoded[0], b"none"], object)})


@pytest.mark.parametrize("version", ["2.4.1", "2.7.19"])
def test_exports_of_an_old_fastai_name_the_versions(fixture_dir: Callable[[str], Path], version: str) -> None:
    with pytest.raises(UnsupportedModel, match=rf"written by fastai {version}, .*fastai 2[0-9.]+ cannot load"):
        Model.load(fixture_dir(f"faces-fastai-{version}"), config("fastai"))


def test_skops_that_skops_itself_trusts_needs_no_trust(fixture_dir: Callable[[str], Path]) -> None:
    path = fixture_dir("heart-sklearn-skops")
    inputs, wanted = golden(path)
    model = Model.load(path, config(trust=False))
    np.testing.assert_array_equal(model.infer(inputs)["target"], wanted)
    model.close()


@pytest.mark.parametrize(
    ("directory", "engine", "says"),
    [
        ("heart-sklearn", "auto", "engine sklearn unpickles model.pkl, which runs the model's own code.*--trust"),
        ("heart-sklearn", "pyfunc", "engine pyfunc loads it with mlflow.sklearn, which runs the model's own code.*--trust"),
        ("digits-pytorch-mlflow2", "auto", "engine torch unpickles model.pth.*--trust"),
        ("digits-pytorch-mlflow3", "auto", r"engine torch opens model.pt2 with torch.export.*--trust"),
        ("faces-fastai-2.8", "fastai", "engine fastai unpickles model.fastai.*--trust"),
    ],
)
def test_what_would_run_needs_trust(fixture_dir: Callable[[str], Path], directory: str, engine: str, says: str) -> None:
    with pytest.raises(UntrustedModel, match=says):
        Model.load(fixture_dir(directory), config(engine, trust=False))
