"""A converted model with variants: calibrated on digits, served, asked, shown and verified by the name of each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import yaml
from typer.testing import CliRunner

from conftest import CPU
from tensign.child import served
from tensign.cli import app
from tensign.client import Client
from tensign.demo import MODEL
from tensign.errors import ParityFailed, UnsupportedModel
from tensign.inspection import inspected
from tensign.mlmodel import read_mlmodel
from tensign.model import Model
from tensign.plan import ModelPlan
from tensign.proof.record import Record
from tensign.proof.verification import verify

pytest.importorskip("torch")

BOTH = ("fp16", "int8")
INT8 = replace(CPU, variant="int8")
DIGITS = {
    "steps": [{"op": "resize", "height": 64, "width": 64, "method": "squish"}],
    "divide": 255.0,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "labels": list("0123456789"),
}


def drawn_digits(count: int, seed: int) -> list[PIL.Image.Image]:
    """Handwritten digits in colours of their own on others, as those that the fixture was trained on."""
    datasets = pytest.importorskip("sklearn.datasets")
    random, digits = np.random.default_rng(seed), datasets.load_digits().images / 16
    made = []
    for number in random.choice(len(digits), count, replace=False):
        ink, paper = random.integers(120, 256, 3), random.integers(0, 100, 3)
        large = PIL.Image.fromarray((digits[number] * 255).astype(np.uint8)).resize((128, 128), PIL.Image.Resampling.BICUBIC)
        cover = np.asarray(large)[..., None] / 255
        made.append(PIL.Image.fromarray((paper + (ink - paper) * cover).astype(np.uint8)))
    return made


@pytest.fixture(scope="module")
def digits(fixture_dir: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits fixture, converted by the command with both variants, on its own pictures alone: photographs are no digits."""
    folder = tmp_path_factory.mktemp("digits")
    (folder / "pictures.yaml").write_text(yaml.safe_dump(DIGITS))
    source = fixture_dir("digits-onnx")
    pictures = folder / "pictures"
    pictures.mkdir()
    for number, image in enumerate(drawn_digits(40, seed=1)):
        image.save(pictures / f"{number:03}.png")
    shutil.copytree(source / "golden_images", pictures / "golden")
    options = ["--preprocess", str(folder / "pictures.yaml"), "--variant", "fp16", "--variant", "int8"]
    command = ["convert", str(source), str(folder / "made"), *options, "--calibrate", str(pictures)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "calibrated on: 31 pictures" in done.output and "\nint8: 0." in done.output
    return folder / "made"


def test_eight_bits_read_digits_as_fp32_does(digits: Path) -> None:
    pixels = np.stack([np.asarray(image.resize((64, 64))) for image in drawn_digits(300, seed=2)])
    said = []
    for config in (CPU, INT8, replace(CPU, variant="fp16")):
        model = Model.load(digits, config)
        said.append(model.infer({model.signature.inputs[0].name: pixels})[model.signature.outputs[0].name])
        model.close()
    full, eight, half = said
    assert len(set(full.argmax(axis=1))) == 10
    assert (full.argmax(axis=1) == eight.argmax(axis=1)).mean() >= 0.99
    assert 0 < np.abs(full - half).max() < 5e-3 < np.abs(full - eight).max()


def test_what_is_kept_of_a_variant_is_its_proof_size_and_speed(digits: Path) -> None:
    record, _ = Record.read(digits)
    assert set(record.proofs) == {"fp32", *BOTH}
    for name, proof in record.proofs.items():
        assert proof.file == ("model.onnx" if name == "fp32" else f"model.{name}.onnx")
        assert proof.bytes == (digits / proof.file).stat().st_size
        assert 0.05 < proof.speed < 20 and proof.parity.rows == record.proofs["fp32"].parity.rows == 218
    own = record.proofs["int8"].held
    assert own and own.inputs == "15 pictures held back from calibration and 85 pieces of them"
    assert own.top1_agreement is not None and own.top1_agreement >= 0.99
    assert (record.proofs["int8"].parity.top1_agreement or 0) < 0.97  # on photographs, by which it would be refused
    assert record.proofs["fp32"].speed == 1 and record.proofs["int8"].tolerance.agreement == 0.97
    assert {"model.onnx", "model.fp16.onnx", "model.int8.onnx"} <= set(record.files)
    told = inspected(digits)["variants"]
    assert told["int8"]["bytes"] < told["fp16"]["bytes"] and told["int8"]["top1_agreement"] >= 0.99
    assert told["int8"]["judged_on"] == own.inputs
    assert str(Path.home()) not in json.dumps(inspected(digits)["source"])


def test_a_variant_is_served_by_name(digits: Path) -> None:
    picture = digits.parent / "pictures" / "000.png"
    with served(digits, "--device", "cpu", "--variant", "int8") as address, Client(address) as client:
        (served_one,) = client.stream([picture])
    given = {}
    for variant in ("fp32", "int8"):
        model = Model.load(digits, replace(CPU, variant=variant))
        encoded = np.array([picture.read_bytes()], object)
        given[variant] = model.infer({model.signature.inputs[0].name: encoded})[model.signature.outputs[0].name][0]
        model.close()
    (answered,) = served_one.checked().outputs.values()
    np.testing.assert_allclose(answered, given["int8"], atol=1e-6)
    assert np.abs(answered - given["fp32"]).max() > 1e-5


def test_predict_takes_the_variant_of_the_environment_and_keeps_its_answers_apart(digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    command = ["predict", str(digits), str(digits.parent / "pictures" / "000.png"), "--device", "cpu", "--out", str(out)]
    done = CliRunner().invoke(app, command, env={"TENSIGN_VARIANT": "int8"})
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text().splitlines()[0])["model"].endswith(" int8")
    with pytest.raises(UnsupportedModel, match="variant 'int4': there is fp32, fp16, int8"):
        CliRunner().invoke(app, [*command, "--variant", "int4"], catch_exceptions=False)


def test_each_variant_is_verified_by_its_own_proof(digits: Path, tmp_path: Path) -> None:
    for variant in ("fp32", *BOTH):
        found = verify(digits, replace(CPU, variant=variant))
        assert found.parity.top1_agreement is not None and found.parity.top1_agreement >= 0.9
    done = CliRunner().invoke(app, ["verify", str(digits), "--device", "cpu", "--variant", "int8"])
    assert done.exit_code == 0, done.output
    with pytest.raises(UnsupportedModel, match=r"variant 'int4': there is fp32, fp16, int8, with --device cuda tf32$"):
        verify(digits, replace(CPU, variant="int4"))
    broken = shutil.copytree(digits, tmp_path / "broken")
    document = json.loads((broken / "conversion.json").read_text())
    document["proofs"]["int8"]["parity"]["top1_agreement"] = 1.0
    (broken / "conversion.json").write_text(json.dumps(document))
    with pytest.raises(ParityFailed, match="on this machine its int8 variant does not predict as its original did"):
        verify(broken, INT8)
    del document["proofs"]["int8"]
    (broken / "conversion.json").write_text(json.dumps(document))
    with pytest.raises(UnsupportedModel, match=r"variant int8: conversion\.json has no proof of it"):
        verify(broken, INT8)


def test_a_model_that_was_not_converted_with_it_says_how(fixture_dir: Callable[[str], Path]) -> None:
    for name in ("faces-fastai-2.8", "digits-pytorch-mlflow3", "digits-onnx"):
        command = ["serve", str(fixture_dir(name)), "--variant", "int8", "--grpc-port", "0"]
        with pytest.raises(UnsupportedModel, match=r"there is fp32, .*; tensign convert SRC DST --variant int8 writes it"):
            CliRunner().invoke(app, command, catch_exceptions=False)


@pytest.mark.parametrize(
    ("variants", "told"),
    [
        (["model.onnx"], "wanted variants as a map of files, got list"),
        ({"int8": "../other.onnx"}, "which is no file of the directory"),
        ({"int8": "missing.onnx"}, "which is no file of the directory"),
    ],
)
def test_variants_that_nobody_wrote_are_refused(variants: Any, told: str, tmp_path: Path) -> None:
    document = dict(read_mlmodel(MODEL).document)
    document["flavors"] = {"tensign": {**document["flavors"]["tensign"], "variants": variants}}
    for name in ("model.onnx", "labels.json"):
        shutil.copy(MODEL / name, tmp_path)
    (tmp_path / "MLmodel").write_text(yaml.safe_dump(document))
    with pytest.raises(UnsupportedModel, match=told):
        ModelPlan.of(tmp_path, variant="int8")
    assert ModelPlan.of(tmp_path).file.name == "model.onnx"
