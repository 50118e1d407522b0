"""A real fastai MLmodel becomes one that is served: fidelity over gRPC, provenance, MLflow's own opinion, refusals."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import yaml

from conftest import CPU, SHARED
from tensign.client import Client
from tensign.conversion import convert
from tensign.errors import ParityFailed, UnsupportedModel
from tensign.mlmodel import read_mlmodel
from tensign.model import Model
from tensign.plan import ModelPlan
from tensign.signature import Signature
from tensign.testing import serving

LOADABLE = ("faces-fastai-2.8", "digits-multilabel-fastai-2.8")  # by the fastai installed here, with --trust
OLD = ("faces-fastai-2.4.1", "faces-fastai-2.7.19")  # which plain fastai 2.8 cannot load
ALL = (*LOADABLE, *OLD)
# On the network's input: golden.npz of 2.4.1 was made on torch 1.9.1 and Pillow 9.5, which differ by so much themselves.
INPUT_TOLERANCE = dict.fromkeys(ALL, 5e-6) | {"faces-fastai-2.4.1": 5e-5}
TOLERANCE = 1e-5  # on probabilities, against the framework the fixture was made with


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory, fixture_dir: Callable[[str], Path]) -> Callable[..., Path]:
    """The converted directory of a fixture, converted once."""

    @cache
    def once(name: str, trust: bool = False) -> Path:
        target = tmp_path_factory.mktemp("converted") / name
        convert(fixture_dir(name), target, trust=trust, crops=16)
        return target

    return once


def golden(name: str) -> dict[str, npt.NDArray[Any]]:
    with np.load(SHARED / "fixtures" / name / "golden.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def golden_images(name: str) -> list[Path]:
    return [SHARED / "fixtures" / name / "golden_images" / str(file) for file in golden(name)["images"]]


@pytest.mark.parametrize("name", ALL)
def test_served_answers_are_the_frameworks_own(converted: Callable[..., Path], name: str) -> None:
    """Raw rows in one request, one row a request over a stream, and the encoded files: all over gRPC."""
    path, expected = converted(name), golden(name)
    with serving(Model.load(path, CPU)) as address, Client(address) as client:
        raw = client.infer({"input-0": expected["inputs"]})["output-0"]
        rows = [client.request(row) for row in expected["inputs"]]
        streamed = np.stack([_only_row(response) for response in client.send_stream(rows)])
        files = [client.request(image) for image in golden_images(name)]
        encoded = np.stack([_only_row(response) for response in client.send_stream(files)])
    assert np.abs(raw - expected["outputs"]).max() <= TOLERANCE
    assert np.abs(streamed - expected["outputs"]).max() <= TOLERANCE
    assert np.abs(encoded - expected["outputs_images"]).max() <= TOLERANCE


def _only_row(response: Any) -> npt.NDArray[np.float32]:
    from tensign.rpc.codec import decode_response

    assert not response.error_message
    row: npt.NDArray[np.float32] = decode_response(response.infer_response)["output-0"][0]
    return row


@pytest.mark.parametrize("name", ALL)
def test_the_networks_input_and_logits_are_the_frameworks_own(converted: Callable[..., Path], name: str) -> None:
    """Probabilities saturate, and a wrong preprocessing can hide behind 1.000; these cannot."""
    from tensign.proof.parity import LOGITS, NETWORK_INPUT
    from tensign_converters.graph import INPUT
    from tensign_converters.prove import with_inner_outputs

    plan, expected = ModelPlan.of(converted(name)), golden(name)
    assert plan.preprocess is not None
    session = onnxruntime.InferenceSession(with_inner_outputs(plan.file)[0], providers=["CPUExecutionProvider"])
    encoded = [image.read_bytes() for image in golden_images(name)]
    for suffix, pixels in (
        ("", plan.preprocess.arrays(expected["inputs"])),
        ("_images", plan.preprocess.encoded(encoded, height=-1, width=-1, max_pixels=10**8)),
    ):
        seen, logits = session.run([NETWORK_INPUT, LOGITS], {INPUT: pixels})
        assert seen.shape[1:] == tuple(expected["net_shape"])
        assert np.abs(seen[:, :, ::17, ::17] - expected[f"net_input_sample{suffix}"]).max() <= INPUT_TOLERANCE[name]
        assert np.abs(seen.mean((2, 3)) - expected[f"net_input_mean{suffix}"]).max() <= 5e-6
        assert np.abs(logits - expected[f"logits{suffix}"]).max() <= 5e-5


@pytest.mark.parametrize("name", ALL)
def test_mlflow_opens_what_we_write_and_gives_the_golden_answers(converted: Callable[..., Path], name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own
        import mlflow.pyfunc

        model = mlflow.pyfunc.load_model(str(converted(name)))
        predicted = model.predict(golden(name)["inputs"])
    assert predicted.dtype == np.float32
    assert np.abs(predicted - golden(name)["outputs"]).max() <= TOLERANCE
    assert (converted(name) / "requirements.txt").read_text().startswith("mlflow\n")  # which serves it
    source = Signature.load(SHARED / "fixtures" / name)
    assert str(Signature.load(converted(name))) == str(source)
    assert [str(spec.type) for spec in model.metadata.signature.inputs.inputs] == [str(spec.dtype) for spec in source.inputs]


@pytest.mark.parametrize("name", ALL)
def test_a_converted_model_carries_its_proof_and_its_origin(converted: Callable[..., Path], name: str) -> None:
    made = read_mlmodel(converted(name))
    kept = made.metadata["tensign"]
    assert kept["source"]["sha256"] == read_mlmodel(SHARED / "fixtures" / name).digest
    assert {"tensign", "fastai", "torch"} <= set(kept["source"]["versions"])
    assert kept["parity"]["max_difference"] <= 1e-5
    assert kept["parity"]["top1_agreement"] == 1.0
    assert kept["parity"]["rows"] >= 16
    assert "the original Learner was not loaded" in kept["parity"]["against"]
    assert len(kept["preprocess"]["sha256"]) == 64
    assert "onnx" not in made.flavors  # other tools would skip the resize
    everything = "".join(file.read_text(errors="replace") for file in made.path.iterdir())
    assert str(SHARED) not in everything and str(Path.home()) not in everything


def test_labels_threshold_and_activation_come_along(converted: Callable[..., Path]) -> None:
    faces, digits = (ModelPlan.of(converted(name)) for name in LOADABLE)
    assert (faces.labels, faces.activation, faces.threshold) == (("face", "other"), "softmax", None)
    assert (digits.labels, digits.activation) == (tuple("012345"), "sigmoid")
    assert digits.threshold == pytest.approx(0.4)


def test_the_stream_gives_the_frameworks_decoded_labels(converted: Callable[..., Path]) -> None:
    name = "faces-fastai-2.8"
    with serving(Model.load(converted(name), CPU)) as address, Client(address) as client:
        labels = [answer.checked().label for answer in client.stream(golden_images(name))]
    assert labels == [str(label) for label in golden(name)["decoded_images"]]


@pytest.mark.parametrize("name", ("faces-fastai-2.8", "faces-fastai-2.7.19"))
def test_with_trust_the_original_is_loaded_where_it_can_be_and_read_as_data_where_not(
    converted: Callable[..., Path], name: str
) -> None:
    against = read_mlmodel(converted(name, True)).metadata["tensign"]["parity"]["against"]
    assert (against == "the original Learner") == (name in LOADABLE)
    plan, same = ModelPlan.of(converted(name)), ModelPlan.of(converted(name, True))
    assert plan.preprocess == same.preprocess and plan.labels == same.labels
    assert plan.file.read_bytes() == same.file.read_bytes()  # data and code tell of the same network


def test_an_existing_target_is_not_touched(fixture_dir: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="give a directory that does not"):
        convert(fixture_dir("faces-fastai-2.8"), tmp_path, trust=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_onnx_model_is_served_as_it_is_external_weights_and_all(fixture_dir: Callable[[str], Path]) -> None:
    path, expected = fixture_dir("digits-onnx"), golden("digits-onnx")
    with serving(Model.load(path, CPU)) as address, Client(address) as client:
        answer = client.infer({"image": expected["inputs"]})["probabilities"]
    assert np.abs(answer - expected["outputs"]).max() <= 1e-6


def test_a_network_that_onnx_cannot_express_is_refused_with_the_reason(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch

        from tensign_converters.learners.learned import learn
        from tensign_converters.learners.recording import Loss, Recording
        from tensign_converters.pictures import export

    class Chooses(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))

    loss = Loss("torch.nn.modules.loss.MSELoss")
    chooses = Recording(Chooses(), (), (), ("PILImage", "TensorFloat"), (), loss, 1, {}, False, None)
    with pytest.raises(UnsupportedModel, match="the network cannot be exported to ONNX: "):
        export.export(learn(chooses, (8, 8)), tmp_path / "model.onnx")


def test_a_signature_that_the_learner_contradicts_is_refused(fixture_dir: Callable[[str], Path], tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(fixture_dir("faces-fastai-2.8"), source)
    (source / "MLmodel").chmod(0o644)
    document = yaml.safe_load((source / "MLmodel").read_text())
    document["signature"]["outputs"] = json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}])
    source.chmod(0o755)
    (source / "MLmodel").write_text(yaml.safe_dump(document))
    with pytest.raises(UnsupportedModel, match="promises 3 classes, the Learner knows 2 labels"):
        convert(source, tmp_path / "out", trust=True)


def test_predictions_beyond_the_tolerance_are_refused(
    fixture_dir: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph of a network whose last bias was changed behind the proof's back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch

        from tensign.proof.samples import samples
        from tensign_converters.learners.learned import learn
        from tensign_converters.learners.learner import load
        from tensign_converters.pictures import export
        from tensign_converters.prove import prove

        learned = learn(load(fixture_dir("faces-fastai-2.8") / "model.fastai", "2.8.12"), (300, 300))
        model = tmp_path / "model.onnx"
        export.export(learned, model)
        manifest = read_mlmodel(fixture_dir("faces-fastai-2.8"))
        subject = learned.subject(Signature.parse(manifest.signature))
        rows = samples(subject.signature, subject.preprocess, crops=6)
        assert prove(subject, model, rows)[0].parity.max_difference <= 1e-5
        *_, bias = learned.network.parameters()
        with torch.no_grad():
            bias.add_(torch.tensor([30.0, 0.0]))
        with pytest.raises(ParityFailed, match="does not predict as the original: greatest difference"):
            prove(subject, model, rows)
