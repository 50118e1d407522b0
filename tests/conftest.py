"""What tests share: the bundled model, small ONNX models built on the spot, and the trained fixtures beside the checkout."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from tensign.config import ModelConfig
from tensign.demo import MODEL, PICTURES
from tensign.doctor.lacks import without_gpu
from tensign.model import Model
from tensign.testing import serving

SHARED = Path(__file__).resolve().parents[2] / "shared"
CPU = ModelConfig(device="cpu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The whole promise first, the parts after it."""
    items.sort(key=lambda item: item.path.name != "test_tiny.py")


@pytest.fixture(scope="session")
def fixture_dir() -> Callable[[str], Path]:
    """Path of a trained MLmodel under shared/fixtures; skips, by name, where it is not beside the checkout."""

    def find(name: str) -> Path:
        path = SHARED / "fixtures" / name
        if not path.is_dir():
            pytest.skip(f"shared/fixtures/{name} is not beside this checkout")
        return path

    return find


@pytest.fixture(scope="session")
def device() -> str:
    """Where the tests marked gpu run: the first GPU, or what TENSIGN_TEST_DEVICE names: "cpu" tries the tests themselves."""
    if asked := os.environ.get("TENSIGN_TEST_DEVICE"):
        return asked
    if lack := without_gpu("cuda:0"):
        pytest.skip(lack)
    return "cuda:0"


@pytest.fixture
def mlmodel(tmp_path: Path) -> Callable[..., Path]:
    """Writes an MLmodel directory from keyword arguments: signature parts as lists, everything else as it is."""

    def write(name: str = "model", **document: Any) -> Path:
        return write_mlmodel(tmp_path / name, **document)

    return write


def write_mlmodel(target: Path, **document: Any) -> Path:
    """The same for any directory."""
    target.mkdir(exist_ok=True)
    if "signature" in document:
        document["signature"] = {part: json.dumps(specs) for part, specs in document["signature"].items()}
    document.setdefault("flavors", {"onnx": {"data": "model.onnx"}})
    (target / "MLmodel").write_text(yaml.safe_dump(document))
    return target


def tensor(dtype: str, shape: list[int], name: str | None = None) -> dict[str, Any]:
    """A tensor-spec as MLflow writes it."""
    spec: dict[str, Any] = {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}
    return spec if name is None else {**spec, "name": name}


@pytest.fixture
def mean_model(tmp_path: Path) -> Path:
    """What `save_mean_model` writes."""
    return save_mean_model(tmp_path / "mean")


def save_mean_model(path: Path) -> Path:
    """uint8 [-1,4,5,3] -> float32 [-1,3]: the mean of each channel. Unnamed in the signature, near-free to run."""
    write_mlmodel(path, signature={"inputs": [tensor("uint8", [-1, 4, 5, 3])], "outputs": [tensor("float32", [-1, 3])]})
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2], keepdims=0),
    ]
    save_onnx(
        path / "model.onnx", nodes, {"image": (TensorProto.UINT8, ["n", 4, 5, 3])}, {"mean": (TensorProto.FLOAT, ["n", 3])}
    )
    return path


def save_onnx(file: Path, nodes: list[onnx.NodeProto], inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
    """Writes a graph; inputs and outputs are {name: (element type, shape)}."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, file)


@pytest.fixture
def tracemalloc_peak() -> Iterator[Callable[[Callable[[], object]], int]]:
    """Bytes that a call took at most, beyond what was there before it."""

    def peak(call: Callable[[], object]) -> int:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    yield peak
    tracemalloc.stop()


@pytest.fixture
def mean_address(mean_model: Path) -> Iterator[str]:
    """A running server of `mean_model`, called "mean"."""
    with serving(Model.load(mean_model, CPU, name="mean")) as address:
        yield address


@pytest.fixture(scope="session")
def demo_address() -> Iterator[str]:
    """A running server of the bundled EfficientNet-Lite0."""
    with serving(Model.load(MODEL, CPU)) as address:
        yield address


@pytest.fixture(scope="session")
def pictures() -> list[Path]:
    """The bundled photographs."""
    return sorted(PICTURES.iterdir())
