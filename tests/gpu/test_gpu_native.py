"""torch's own engine on a GPU, in every precision and with every accelerator it has, beside the same network on a CPU."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import ondevice
from conftest import tensor, write_mlmodel
from tensign.config import ModelConfig
from tensign.model import Model

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

CLASSES, SIDE = 8, 64
WAYS: dict[str, tuple[dict[str, str], float]] = {
    "fp32": ({}, 1e-4),
    "tf32": ({"variant": "tf32"}, 5e-3),
    "fp16": ({"variant": "fp16"}, 5e-3),
    "bf16": ({"variant": "bf16"}, 3e-2),
    "compile": ({"accelerator": "compile"}, 1e-4),
    "compile fp16": ({"accelerator": "compile", "variant": "fp16"}, 5e-3),
    "cuda-graphs": ({"accelerator": "cuda-graphs"}, 1e-4),
    "cuda-graphs fp16": ({"accelerator": "cuda-graphs", "variant": "fp16"}, 5e-3),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported network of convolutions: float32 [-1,3,SIDE,SIDE] -> probabilities [-1,CLASSES]."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layers = torch.nn.Sequential(
        *(torch.nn.Conv2d(3, 32, 3, stride=2, padding=1), torch.nn.BatchNorm2d(32), torch.nn.ReLU()),
        *(torch.nn.Conv2d(32, 64, 3, stride=2, padding=1), torch.nn.BatchNorm2d(64), torch.nn.ReLU()),
        *(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(64, CLASSES), torch.nn.Softmax(1)),
    ).eval()
    rows = {0: torch.export.Dim("rows", max=1024)}
    program = torch.export.export(layers, (torch.zeros(2, 3, SIDE, SIDE),), dynamic_shapes=(rows,))
    target = tmp_path_factory.mktemp("native") / "model"
    (target / "data").mkdir(parents=True)
    torch.export.save(program, target / "data" / "model.pt2")
    signature = {"inputs": [tensor("float32", [-1, 3, SIDE, SIDE])], "outputs": [tensor("float32", [-1, CLASSES])]}
    return write_mlmodel(target, signature=signature, flavors={"pytorch": {"model_data": "data"}})


def batch(rows: int) -> npt.NDArray[Any]:
    return np.random.default_rng(rows).standard_normal((rows, 3, SIDE, SIDE), np.float32)


@pytest.fixture(scope="module")
def wanted(path: Path) -> dict[int, npt.NDArray[Any]]:
    """Answers of a CPU, by rows."""
    with closing(Model.load(path, ModelConfig(device="cpu", engine="torch", trust=True, max_batch_size=16))) as model:
        return {rows: next(iter(model.infer(batch(rows)).values())) for rows in (1, 3, 8, 16)}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_answers_as_a_cpu_does(
    device: str, way: str, path: Path, wanted: dict[int, npt.NDArray[Any]], tmp_path: Path
) -> None:
    options, tolerance = WAYS[way]
    given = {"max_batch_size": 16, "engine": "torch", "trust": True, "cache_dir": str(tmp_path), **options}
    with closing(Model.load(path, ondevice.config(device, **given))) as model:
        assert model.device == device
        for _ in range(2):
            for rows, answer in wanted.items():
                np.testing.assert_allclose(next(iter(model.infer(batch(rows)).values())), answer, atol=tolerance)
