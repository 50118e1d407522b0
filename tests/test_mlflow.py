"""A Learner into a real MLflow server and out again: registered, scored by MLflow, served by tensign, with the same answers."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
import yaml

from conftest import CPU
from small_learner import LABELS, SIZE, noise, predictions, small_learner
from tensign.client import Client
from tensign.errors import InvalidConfig, InvalidInput, SignatureMismatch, UnsupportedModel
from tensign.mlflow import log_learner, log_module, save_learner, save_module
from tensign.mlmodel import read_mlmodel
from tensign.model import Model
from tensign.proof.verification import verify
from tensign.testing import serving
from test_invocations import mlflow_serving

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mlflow
    import torch
    from mlflow.models import get_model_info, infer_signature
    from torch import nn

PICTURES = noise(7, seed=1)
TOLERANCE = 1e-5  # on probabilities


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own, and fastai's
        yield


@dataclass(frozen=True)
class Logged:
    """What one Learner became on the server, and what it said itself of PICTURES. directory: what the server gave back."""

    info: Any
    run: str
    expected: npt.NDArray[np.float32]
    directory: Path

    def example(self) -> npt.NDArray[np.uint8]:
        return np.asarray(mlflow.models.Model.load(str(self.directory)).load_input_example(str(self.directory)))


@contextmanager
def tracking_server(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A real MLflow server, with its store and registry on SQLite and its artifacts in a folder, that is about to listen."""
    command = [sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", "0", "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts")]
    command += ["--uvicorn-opts", "--no-access-log"]
    variables = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(command, env=os.environ | variables, stderr=subprocess.PIPE, text=True, process_group=0)
    assert server.stderr is not None
    try:
        yield server
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # and the uvicorn that it started
        server.wait()
        server.stderr.close()


def address(server: subprocess.Popen[str]) -> str:
    """Its URI, once it listens."""
    assert server.stderr is not None
    lines = []
    for line in server.stderr:
        lines.append(line)
        if found := re.search(r"running on (http://\S+)", line):
            return found[1]
    raise AssertionError("".join(lines))


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    folder = tmp_path_factory.mktemp("mlflow")
    with tracking_server(folder) as server, pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        learner = small_learner()
        expected = predictions(learner, PICTURES)
        patch.setenv("MLFLOW_TRACKING_URI", address(server))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        with mlflow.start_run() as run:
            mlflow.log_param("epochs", 3)
            info = log_learner(
                learner, "birds", registered_model_name="birds", metadata={"owner": "me"}, tags={"a": "b"}, crops=10
            )
        directory = mlflow.artifacts.download_artifacts("models:/birds/1", dst_path=str(folder / "downloaded"))
        yield Logged(info, run.info.run_id, expected, Path(directory))


def test_mlflow_predicts_as_the_learner(logged: Logged) -> None:
    predicted = mlflow.pyfunc.load_model("models:/birds/1").predict(PICTURES)
    assert np.ptp(logged.expected[:, 0]) > 0.01
    assert predicted.dtype == np.float32 and np.abs(predicted - logged.expected).max() <= TOLERANCE


def test_tensign_serves_what_the_registry_gives_with_its_labels_and_without_trust(logged: Logged) -> None:
    with serving(Model.load(logged.directory, CPU)) as address, Client(address) as client:
        served = client.infer({"input-0": PICTURES})["output-0"]
        labels = [answer.checked().label for answer in client.stream(list(PICTURES))]
    assert np.abs(served - logged.expected).max() <= TOLERANCE
    assert labels == [LABELS[best] for best in logged.expected.argmax(1)]


def test_mlflows_scoring_server_answers_the_input_example(logged: Logged) -> None:
    request = (logged.directory / "serving_input_example.json").read_bytes()
    with mlflow_serving(sys.executable, {"birds": Path("models:/birds/1")}) as address:
        connection = http.client.HTTPConnection(address)
        connection.request("POST", "/birds/invocations", request, {"Content-Type": "application/json"})
        answer = json.load(connection.getresponse())
        connection.close()
    assert logged.example().dtype == np.uint8 and logged.example().shape == (1, SIZE, SIZE, 3)
    expected = predictions(small_learner(), logged.example())
    assert np.abs(np.array(answer["predictions"]) - expected).max() <= TOLERANCE


def test_the_registry_and_the_run_know_the_model(logged: Logged) -> None:
    client = mlflow.MlflowClient()
    version, outputs = client.get_model_version("birds", "1"), client.get_run(logged.run).outputs
    assert logged.info.registered_model_version == version.version == "1" and version.run_id == logged.run
    assert outputs is not None and [model.model_id for model in outputs.model_outputs] == [logged.info.model_id]
    model = mlflow.get_logged_model(logged.info.model_id)
    assert (model.name, model.status, model.params, model.tags["a"]) == ("birds", "READY", {"epochs": "3"}, "b")


def test_mlflow_shows_what_the_learner_told(logged: Logged) -> None:
    info = get_model_info("models:/birds/1")
    inputs, outputs = info.signature.inputs.inputs, info.signature.outputs.inputs
    assert [(spec.name, spec.type, spec.shape) for spec in inputs] == [(None, np.dtype("uint8"), (-1, SIZE, SIZE, 3))]
    assert [(spec.name, spec.type, spec.shape) for spec in outputs] == [(None, np.dtype("float32"), (-1, 2))]
    assert info.flavors.keys() == {"python_function", "tensign"}
    assert info.flavors["python_function"]["loader_module"] == "tensign.pyfunc"
    metadata = info.metadata or {}
    kept = metadata["tensign"]
    assert metadata["owner"] == "me" and kept["parity"]["against"].startswith("a copy of the live Learner")
    assert kept["parity"]["max_difference"] <= TOLERANCE and kept["preprocess"]["steps"][0]["op"] == "resize"
    requirements = (logged.directory / "requirements.txt").read_text().splitlines()
    assert requirements[0] == f"mlflow=={mlflow.__version__}" and requirements[1].startswith("tensign[cpu]==")


def test_names_and_an_example_of_ones_own(tmp_path: Path) -> None:
    learner, path = small_learner(resize=False, channels=1), tmp_path / "grey"
    grey = PICTURES[..., 0]
    expected = predictions(learner, grey)
    signature = infer_signature({"picture": grey}, {"scores": expected})
    report = save_learner(learner, path, signature=signature, input_example={"picture": grey[:2]}, crops=5)
    assert "\nagainst: a copy of the live Learner, " in report
    assert read_mlmodel(path).metadata["tensign"]["parity"]["inputs"].startswith("2 rows of the saved input example, ")
    assert verify(path, CPU).parity.top1_agreement == 1
    model = mlflow.pyfunc.load_model(str(path))
    assert model.input_example["picture"].tolist() == grey[:2].tolist()
    assert np.abs(model.predict({"picture": grey})["scores"] - expected).max() <= TOLERANCE


class Net(nn.Module):
    """[n,3,h,w] -> logits [n,2]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.last = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.last(self.layers(x)))


DECLARED = {
    "input": "uint8[-1,40,48,3]",
    "steps": [{"op": "resize", "height": SIZE, "width": SIZE, "method": "squish", "interpolation": "nearest"}],
    "divide": 255,
    "mean": [0.5],
    "std": [0.25],
    "activation": "softmax",
    "labels": list(LABELS),
}


def test_a_module_is_logged_with_a_declaration_and_stays_as_it_was(logged: Logged, tmp_path: Path) -> None:
    module, pictures, declared = Net().train(), noise(4, 40, 48), tmp_path / "spec.yaml"
    declared.write_text(yaml.safe_dump(DECLARED))
    before = [tensor.tolist() for tensor in module.state_dict().values()]
    info = log_module(module, "modules", preprocess=declared, registered_model_name="modules", crops=5)
    assert module.training and before == [tensor.tolist() for tensor in module.state_dict().values()]
    nearest = PIL.Image.Resampling.NEAREST
    squished = [np.asarray(PIL.Image.fromarray(picture).resize((SIZE, SIZE), nearest)) for picture in pictures]
    with torch.no_grad():
        given = (torch.from_numpy(np.stack(squished)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
        expected = module.eval()(given).softmax(1).numpy()
    assert np.ptp(expected[:, 0]) > 0.01
    predicted = mlflow.pyfunc.load_model("models:/modules/1").predict(pictures)
    assert np.abs(predicted - expected).max() <= TOLERANCE
    model = Model.load(mlflow.artifacts.download_artifacts(info.model_uri, dst_path=str(tmp_path)), CPU)
    assert np.abs(model.infer(pictures)["output-0"] - expected).max() <= TOLERANCE
    assert (model.plan.labels, model.plan.activation) == (LABELS, "softmax")
    model.close()


@pytest.mark.parametrize(
    ("module", "changes", "kind", "said"),
    [
        (Net, {"divides": 255}, InvalidConfig, "divides"),
        (lambda: nn.Sequential(Net(), nn.Softmax(1)), {}, InvalidConfig, "the network's rows sum to 1 already"),
        (Net, {"labels": ["bird"]}, UnsupportedModel, "1 labels are declared, the network gives"),
        (Net, {"architecture": "torchvision.resnet18"}, InvalidConfig, "is for weights alone, and here is a module"),
        (Path, {}, InvalidInput, "the module: wanted a torch module, got pathlib.PosixPath"),
    ],
)
def test_a_module_that_the_declaration_does_not_fit_is_refused(
    module: Any, changes: dict[str, Any], kind: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=said):
        save_module(module(), tmp_path / "out", preprocess={**DECLARED, **changes})
    assert not list(tmp_path.iterdir())


def test_an_example_that_the_signature_refuses_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(SignatureMismatch, match=r"expected uint8 \[-1,32,32,3\], got uint8 \[32,32,3\]"):
        save_learner(small_learner(), tmp_path / "birds", input_example=PICTURES[0])
    assert not list(tmp_path.iterdir())


def test_what_is_not_installed_is_named_with_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastai", None)
    with pytest.raises(UnsupportedModel, match=r"this needs fastai: pip install 'tensign\[cpu,convert\]' mlflow"):
        save_learner(None, tmp_path / "birds")
