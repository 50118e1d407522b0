"""Models of every source, converted as their users would, without trust, served, and held against golden answers."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
import yaml

from conftest import CPU, SHARED, tensor, write_mlmodel
from tensign.client import Client
from tensign.conversion import convert, servable
from tensign.errors import InvalidConfig, UnsupportedModel, UntrustedModel
from tensign.mlmodel import read_mlmodel
from tensign.model import Model
from tensign.plan import ModelPlan
from tensign.proof.verification import verify
from tensign.testing import serving

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")

    from tensign_converters.confined import absolute
    from tensign_converters.declared.declaration import Declaration
    from tensign_converters.source import read_source

DIGITS = ("digits-pytorch-mlflow2", "digits-pytorch-mlflow3")
STEPS = [{"op": "resize_shorter", "size": 36}, {"op": "centre_crop", "height": 32, "width": 32}]
DECLARED = {
    "steps": STEPS,
    "divide": 255,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "activation": "softmax",
    "labels": ["cat", "dog", "horse"],
}


def golden(name: str) -> dict[str, npt.NDArray[Any]]:
    with np.load(SHARED / "fixtures" / name / "golden.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def declared(path: Path, **changed: Any) -> Path:
    path.write_text(yaml.safe_dump({**DECLARED, **changed}))
    return path


def network() -> Any:
    torch.manual_seed(3)
    layers = (torch.nn.Conv2d(3, 8, 3, 2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    return torch.nn.Sequential(*layers, torch.nn.Linear(32, 3)).eval()


def expected(module: Any, files: list[Path]) -> npt.NDArray[np.float32]:
    """By torchvision's own transforms."""
    transforms = torchvision.transforms
    prepare = transforms.Compose(
        [
            transforms.Resize(36),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize(DECLARED["mean"], DECLARED["std"]),
        ]
    )
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = torch.stack([prepare(PIL.Image.open(io.BytesIO(file.read_bytes())).convert("RGB")) for file in files])
        return np.asarray(module(batch).softmax(1))


def told(path: Path, files: list[Path]) -> npt.NDArray[np.float32]:
    """What a server answers to files."""
    with serving(Model.load(path, CPU)) as address, Client(address) as client:
        answers = [answer.checked() for answer in client.stream(files)]
    assert {label for answer in answers for label in answer.labels} <= {"cat", "dog", "horse"}
    return np.stack([next(iter(answer.outputs.values())) for answer in answers])


@pytest.mark.parametrize("name", DIGITS)
def test_a_pytorch_model_is_served_without_trust(fixture_dir: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    path, wanted = servable(fixture_dir(name), trust=False, cache=tmp_path), golden(name)
    plan = ModelPlan.of(path)
    assert (plan.choice.engine, plan.choice.runs) == ("onnx", "")
    assert str(plan.signature) == str(ModelPlan.of(fixture_dir(name)).signature)
    with serving(Model.load(path, CPU)) as address, Client(address) as client:
        (taken,), (given,) = plan.signature.inputs, plan.signature.outputs
        answer = client.infer({taken.name: wanted["inputs"]})[given.name]
    assert np.abs(answer - wanted["outputs"]).max() <= 1e-5
    assert verify(path, CPU).parity.max_difference <= 1e-4


def with_code(path: Path, forward: str, code: str = "code") -> Path:
    """As MLflow writes a class whose module it was given as code_paths."""
    source = write_mlmodel(
        path,
        signature={"inputs": [tensor("float32", [-1, 4])], "outputs": [tensor("float32", [-1, 4])]},
        flavors={"pytorch": {"model_data": "data", "code": code}},
    )
    (source / "data").mkdir()
    (source / "code").mkdir()
    (source / "code" / "custom.py").write_text(
        f"import torch\nclass Odd(torch.nn.Module):\n    def forward(self, x):\n        return {forward}\n"
    )
    made = "import sys; sys.path.insert(0, 'code'); import custom, torch; torch.save(custom.Odd(), 'data/model.pth')"
    subprocess.run([sys.executable, "-W", "ignore", "-c", made], cwd=source, check=True)
    return source


def test_a_class_of_its_own_needs_trust_and_then_runs_by_its_own_engine(tmp_path: Path) -> None:
    source = with_code(tmp_path / "model", "x * 2 if x.sum() > 0 else x")
    with pytest.raises(UntrustedModel, match=r"custom\.Odd"):
        servable(source, trust=False, cache=tmp_path / "cache")
    assert servable(source, trust=True, cache=tmp_path / "cache") == source
    model = Model.load(source, replace(CPU, engine="torch", trust=True))
    (answer,) = model.infer({"input-0": np.ones((1, 4), np.float32)}).values()
    model.close()
    assert answer.tolist() == [[2, 2, 2, 2]]


def test_a_class_that_mlflow_kept_the_code_of_is_converted_where_it_is_trusted(tmp_path: Path) -> None:
    source = with_code(tmp_path / "model", "x * 3")
    with pytest.raises(UntrustedModel, match=r"custom\.Odd"):
        convert(source, tmp_path / "made", trust=False, crops=4)
    convert(source, tmp_path / "made", trust=True, crops=4)
    model = Model.load(tmp_path / "made", CPU)
    (answer,) = model.infer({"input-0": np.ones((1, 4), np.float32)}).values()
    model.close()
    assert answer.tolist() == [[3, 3, 3, 3]]


def test_the_confined_process_finds_relative_places_though_it_starts_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("code::/opt/lib") == f"{tmp_path}/code:/opt/lib"


@pytest.mark.parametrize("code", ["../outside", "nowhere"])
def test_code_outside_of_the_model_is_not_run(tmp_path: Path, code: str) -> None:
    source = with_code(tmp_path / "model", "x * 3", code)
    shutil.copytree(source / "code", tmp_path / "outside")
    with pytest.raises(UnsupportedModel, match="which is no file of the directory"):
        convert(source, tmp_path / "made", trust=True, crops=4)


class Crossed(torch.nn.Module):  # type: ignore[name-defined, misc]  # torch is imported where it is
    """Names its inputs and outputs in another order than its signature does."""

    def forward(self, y: Any, x: Any) -> Any:
        return {"b": x * 2 + y, "a": x * 1000 - y}


def test_inputs_and_outputs_of_a_program_are_found_by_name(tmp_path: Path) -> None:
    example, rows = (torch.rand(2, 4), torch.rand(2, 4)), {0: torch.export.Dim("rows")}
    program = torch.export.export(Crossed(), example, dynamic_shapes=(rows, rows))
    sides = {"inputs": "xy", "outputs": "ab"}
    signature = {side: [tensor("float32", [-1, 4], name) for name in names] for side, names in sides.items()}
    write_mlmodel(tmp_path / "model", signature=signature, flavors={"pytorch": {"model_data": "data"}})
    (tmp_path / "model" / "data").mkdir()
    torch.export.save(program, tmp_path / "model" / "data" / "model.pt2")
    convert(tmp_path / "model", tmp_path / "made", trust=False, crops=4)
    x, y = np.array([[1, 2, 3, 4]], np.float32), np.array([[5, 6, 7, 8]], np.float32)
    model = Model.load(tmp_path / "made", CPU)
    answer = model.infer({"y": y, "x": x})
    model.close()
    np.testing.assert_array_equal(answer["a"], x * 1000 - y)
    np.testing.assert_array_equal(answer["b"], x * 2 + y)


@pytest.mark.parametrize("kind", ["unsigned MLmodel", "state dict", "onnx"])
def test_declared_pictures_are_torchvisions(tmp_path: Path, kind: str, pictures: list[Path]) -> None:
    module, extra = network(), {}
    if kind == "state dict":
        torch.manual_seed(3)
        module = torchvision.models.get_model("squeezenet1_1", num_classes=3, weights=None).eval()
        extra = {"architecture": "torchvision.squeezenet1_1", "arguments": {"num_classes": 3}}
        torch.save(module.state_dict(), tmp_path / "bare.pth")
    elif kind == "unsigned MLmodel":
        data = write_mlmodel(tmp_path / "unsigned", flavors={"pytorch": {"model_data": "data"}}) / "data"
        data.mkdir()
        torch.save(module, data / "model.pth")
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            example = torch.zeros(1, 3, 32, 32)
            torch.onnx.export(module, (example,), tmp_path / "bare.onnx", dynamo=True, verbose=False)
    file = tmp_path / {"onnx": "bare.onnx", "state dict": "bare.pth"}.get(kind, "unsigned")
    said = convert(file, tmp_path / "made", trust=False, crops=8, preprocess=declared(tmp_path / "p.yaml", **extra))
    assert "uint8 [-1,32,32,3]" in said or "uint8 [-1,-1,-1,3]" in said
    np.testing.assert_allclose(told(tmp_path / "made", pictures), expected(module, pictures), rtol=0, atol=1e-5)
    assert verify(tmp_path / "made", CPU).parity.top1_agreement == 1.0
    assert (tmp_path / "made" / "conversion.html").is_file()


def test_an_onnx_model_of_mlflow_gets_its_pictures(fixture_dir: Callable[[str], Path], tmp_path: Path) -> None:
    source, said = fixture_dir("digits-onnx"), json.loads((fixture_dir("digits-onnx") / "golden.json").read_text())
    assert said
    file = declared(
        tmp_path / "p.yaml", steps=[{"op": "resize", "height": 64, "width": 64}], activation="none", labels=list("0123456789")
    )
    with pytest.raises(UnsupportedModel, match="needs no conversion"):
        convert(source, tmp_path / "made", trust=False)
    convert(source, tmp_path / "made", trust=False, crops=8, preprocess=file)
    made = ModelPlan.of(tmp_path / "made")
    assert made.preprocess is not None and made.image is not None
    assert read_mlmodel(tmp_path / "made").metadata["tensign"]["source"]["flavor"] == "onnx"


@pytest.mark.parametrize(
    ("name", "file", "error", "message"),
    [
        ("faces-fastai-2.8", "p.yaml", InvalidConfig, "a Learner says itself how its pictures are prepared"),
        ("heart-sklearn", "p.yaml", (InvalidConfig, UnsupportedModel), "preprocess|pictures|columns"),
        (
            "digits-pytorch-mlflow2",
            "p.yaml",
            UnsupportedModel,
            r"end in 32x32 pixels.*step {op: resize, height: 64, width: 64}",
        ),
        (
            "digits-onnx",
            "p.yaml",
            UnsupportedModel,
            r"\[-1, 3, 32, 32\].*\[-1, 3, 64, 64\]; a last step {op: resize, height: 64",
        ),
        ("digits-pytorch-mlflow2", "missing.yaml", (InvalidConfig, OSError), r"missing\.yaml"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(
    fixture_dir: Callable[[str], Path], tmp_path: Path, name: str, file: str, error: Any, message: str
) -> None:
    declared(tmp_path / "p.yaml")
    with pytest.raises(error, match=message):
        convert(fixture_dir(name), tmp_path / "made", trust=False, preprocess=tmp_path / file)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["digits-onnx", "digits-pytorch-mlflow2"])
def test_an_architecture_of_a_whole_network_is_refused(fixture_dir: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    said = Declaration.parse({**DECLARED, "architecture": "torchvision.resnet18"}, tmp_path)
    with pytest.raises(InvalidConfig, match=r"^architecture: is for weights alone, and model\.(onnx|pth) is a whole network$"):
        read_source(fixture_dir(name), said, trust=False)


def test_a_bare_file_without_a_declaration_says_what_to_do(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "bare.pth")
    with pytest.raises(UnsupportedModel, match=r"nothing says what pictures it takes: declare that, --preprocess YAML"):
        convert(tmp_path / "bare.pth", tmp_path / "made", trust=False)


@pytest.mark.parametrize("trust", [False, True])
def test_a_bare_learner_is_sent_to_its_mlmodel(fixture_dir: Callable[[str], Path], trust: bool) -> None:
    for said in (None, Declaration()):
        with pytest.raises(
            UnsupportedModel, match="exported: give the MLmodel directory that it lies in, or log the Learner with"
        ):
            read_source(fixture_dir("faces-fastai-2.8") / "model.fastai", said, trust=trust)


def test_half_a_signature_says_which_half_is_wanted(tmp_path: Path) -> None:
    inputs = {"inputs": [tensor("float32", [-1, 3, 32, 32])]}
    path = write_mlmodel(tmp_path / "half", signature=inputs, flavors={"pytorch": {"model_data": "data"}})
    for said in (None, Declaration()):
        with pytest.raises(
            UnsupportedModel, match=r"^the signature has no outputs: tensign sign MODEL --input \.\.\. --output"
        ):
            read_source(path, said, trust=False)


def test_pictures_of_any_size_go_through_a_network_for_any(tmp_path: Path, pictures: list[Path]) -> None:
    torch.save(network(), tmp_path / "bare.pth")
    file = declared(tmp_path / "p.yaml", steps=[])
    said = convert(tmp_path / "bare.pth", tmp_path / "made", trust=False, crops=8, preprocess=file)
    assert "uint8 [-1,-1,-1,3]" in said
    opened = [np.asarray(PIL.Image.open(io.BytesIO(picture.read_bytes())).convert("RGB")) for picture in pictures]
    assert len({array.shape for array in opened}) > 2
    with torch.no_grad():
        prepare = torchvision.transforms.Compose(
            [torchvision.transforms.ToTensor(), torchvision.transforms.Normalize(DECLARED["mean"], DECLARED["std"])]
        )
        wanted = np.concatenate([network()(prepare(PIL.Image.fromarray(array))[None]).softmax(1) for array in opened])
    np.testing.assert_allclose(told(tmp_path / "made", pictures), wanted, rtol=0, atol=1e-5)
    shutil.rmtree(tmp_path / "made")
