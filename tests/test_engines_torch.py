"""torch on the CPU: bf16 and torch.compile run for real, and what cannot be combined is refused in one line."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml

pytest.importorskip("torch")

import torch

from tensign.cli.serve import _way
from tensign.config import ModelConfig
from tensign.engines import torch as engine_module
from tensign.engines import torchdevice, ways
from tensign.engines.torch import TorchEngine
from tensign.errors import InvalidConfig, ParityFailed, ProviderUnavailable, TensignError, UnsupportedModel
from tensign.model import Model

OUTPUTS = [{"name": "y", "named": True, "dtype": "<f4", "column": False}]
NATIVE = ModelConfig(device="cpu", trust=True, engine="torch", max_batch_size=2)
TENSOR = {"type": "tensor", "name": "x", "tensor-spec": {"dtype": "float32", "shape": [-1, 3, 8, 8]}}
ANSWER = {"type": "tensor", "name": "y", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}


def convolutions() -> Any:
    torch.manual_seed(0)
    layers = (torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return torch.nn.Sequential(*layers, torch.nn.Linear(8, 4))


def cancelling() -> Any:
    """What is left of a small number after 1000 was added and taken away: with 8 bits, nothing."""
    up, down = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    for layer, constant in ((up, 1000.0), (down, -1000.0)):
        layer.weight.data, layer.bias.data = torch.eye(4), torch.full((4,), constant)
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 4, bias=False), up, down)


class Printing(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        print("no graph has this")
        return x.mean((2, 3))


def rows(count: int, seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    return {"x": np.random.default_rng(seed).random((count, 3, 8, 8), np.float32)}


def loaded(folder: Path, network: Any, **options: Any) -> TorchEngine:
    torch.save(network, folder / "model.pth")
    engine = TorchEngine(str(folder), str(folder / "model.pth"), options.pop("device", "cpu"), {}, OUTPUTS, **options)
    engine.load()
    return engine


def expected(network: Any, batch: Mapping[str, Any]) -> Any:
    with torch.no_grad():
        return network.eval()(torch.from_numpy(batch["x"])).numpy()


def logged(path: Path, network: Any) -> Path:
    """As MLflow's pytorch flavor logs it."""
    (path / "data").mkdir(parents=True)
    torch.save(network, path / "data" / "model.pth")
    document = {
        "flavors": {"pytorch": {"model_data": "data"}},
        "signature": {"inputs": json.dumps([TENSOR]), "outputs": json.dumps([ANSWER])},
    }
    (path / "MLmodel").write_text(yaml.safe_dump(document))
    return path


def test_bf16_is_bf16_and_answers_in_fp32(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In a worker, on a CPU; batches of a kind that nobody warmed too."""
    caplog.set_level(logging.INFO)
    network = convolutions()
    model = Model.load(logged(tmp_path / "model", network), replace(NATIVE, variant="bf16"))
    for count in (1, 2, 5):
        wanted = expected(network, rows(count))
        (answers,) = model.infer(rows(count)).values()
        assert answers.dtype == np.float32
        assert 1e-6 < np.abs(answers - wanted).max() < 0.04 * np.abs(wanted).max()
    found = re.search(r"on cpu: at warm-up off plain fp32 by (\S+) of the largest value", caplog.text)
    assert found and 1e-6 < float(found[1]) < 0.04
    assert _way(model) == " with engine torch, variant bf16"
    model.close()


def test_bf16_of_an_exported_network(fixture_dir: Callable[[str], Path]) -> None:
    path = fixture_dir("digits-pytorch-mlflow3")
    with np.load(path / "golden.npz") as golden:
        inputs, wanted = golden["inputs"], golden["outputs"]
    model = Model.load(path, replace(NATIVE, variant="bf16"))
    (answers,) = model.infer(inputs).values()
    assert (answers.argmax(1) == wanted.argmax(1)).all()
    assert 1e-6 < np.abs(answers - wanted).max() < 0.04 * np.abs(wanted).max()
    model.close()


def test_bf16_that_changes_the_answers_is_refused_with_both_figures(tmp_path: Path) -> None:
    """Of a made-up batch of zeros alone that would not show."""
    says = r'variant bf16: a batch of 1 rows differs from plain fp32 by [\d.]+ of the largest value of "y", and may by 0.04'
    with pytest.raises(ParityFailed, match=says):
        Model.load(logged(tmp_path / "model", cancelling()), replace(NATIVE, variant="bf16"))


class Half(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return x.mean((2, 3)).to(torch.float16 if torch.is_autocast_enabled("cpu") else torch.float32)


def test_bf16_that_changes_the_dtype_is_refused(tmp_path: Path) -> None:
    engine = loaded(tmp_path, Half(), variant="bf16")
    with pytest.raises(ParityFailed, match=r'answers with float16 \[2, 3\] for "y", plain fp32 with float32 \[2, 3\]'):
        engine.warmup(rows(2))


def test_compiled_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Inductor; what it makes is kept in the cache; nothing is compiled for a kind of batch that nobody warmed."""
    from torch._inductor import config

    monkeypatch.setattr(config, "cpp_cache_precompile_headers", False)  # for the one kernel of this test that takes longer
    monkeypatch.setattr(config.cpp, "vec_isa_ok", True)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 4))
    engine = loaded(tmp_path, network, accelerator="compile", cache=str(tmp_path / "cache"))
    engine.warmup(rows(2))
    compiled = {*(tmp_path / "cache").rglob("*.so")}
    assert compiled
    for count in (2, 3):
        np.testing.assert_allclose(engine.run(rows(count))["y"], expected(network, rows(count)), atol=1e-6)
    assert {*(tmp_path / "cache").rglob("*.so")} == compiled
    engine.close()


def traced(monkeypatch: pytest.MonkeyPatch, backend: Any = "eager") -> None:
    """Nothing but the last step, machine code, is left out, which takes seconds."""
    monkeypatch.setattr(engine_module, "compiled", lambda network: torchdevice.compiled(network, backend))
    torch._dynamo.reset()


def test_each_kind_is_compiled_at_warm_up_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More kinds than torch compiles unless it is told to; in half precision too."""
    shapes: list[int] = []

    def backend(graph: Any, examples: list[Any]) -> Any:
        shapes.extend(len(example) for example in examples if example.shape[1:] == (3, 8, 8))
        return graph

    traced(monkeypatch, backend)
    engine = loaded(tmp_path, convolutions(), accelerator="compile", variant="bf16")
    counts = [*range(1, 12)]
    for count in counts:
        engine.warmup(rows(count))
    assert shapes == counts
    for count in (*counts, 12):
        wanted = expected(convolutions(), rows(count))
        assert 1e-6 < np.abs(engine.run(rows(count))["y"] - wanted).max() < 0.04 * np.abs(wanted).max()
    assert shapes == counts


def test_what_cannot_be_compiled_whole_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    traced(monkeypatch)
    engine = loaded(tmp_path, Printing(), accelerator="compile")
    with pytest.raises(
        UnsupportedModel, match="accelerator compile: this network does not run so: Unsupported: Failed to trace"
    ):
        engine.warmup(rows(2))


def test_compiling_that_changes_the_answers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traced(monkeypatch, lambda graph, examples: lambda *given: [1.1 * answer for answer in graph(*given)])
    engine = loaded(tmp_path, convolutions(), accelerator="compile")
    with pytest.raises(ParityFailed, match=r"accelerator compile: a batch of 2 rows differs from plain fp32 by 0\.1"):
        engine.warmup(rows(2))


REFUSED = {  # (accelerator, variant, engine): what is said
    ("", "fp16", "torch"): (
        ProviderUnavailable,
        r"variant fp16: torch runs it on CUDA alone \(--device cuda\); on a CPU bf16 does",
    ),
    ("", "tf32", "torch"): (ProviderUnavailable, "variant tf32: torch runs it on CUDA alone"),
    ("cuda-graphs", "fp32", "torch"): (
        ProviderUnavailable,
        "accelerator cuda-graphs: runs on CUDA alone; on a CPU compile does",
    ),
    ("tensorrt", "fp32", "torch"): (
        InvalidConfig,
        "accelerator tensorrt: is of engine onnx, and this model runs on torch, which knows cuda-graphs and compile",
    ),
    ("compile", "fp32", "onnx"): (
        InvalidConfig,
        "accelerator compile: is of engine torch, and this model runs on onnx, which knows cuda-graphs and tensorrt",
    ),
    ("compile", "fp32", "fastai"): (InvalidConfig, "is of engine torch, and this model runs on fastai, which knows none"),
    ("", "bf16", "onnx"): (UnsupportedModel, "variant bf16: is of engine torch, fastai, and this model runs on onnx"),
    ("", "bf16", "sklearn"): (UnsupportedModel, "variant bf16: is of engine torch, fastai, and this model runs on sklearn"),
    ("", "int8", "torch"): (UnsupportedModel, "of --engine torch bf16, .*; tensign convert SRC DST --variant int8 writes it"),
}
OF_ENGINE = {"torch": "digits-pytorch-mlflow2", "onnx": "digits-onnx", "fastai": "faces-fastai-2.8", "sklearn": "heart-sklearn"}


@pytest.mark.parametrize(("asked", "said"), REFUSED.items(), ids=["-".join(filter(None, asked)) for asked in REFUSED])
def test_what_cannot_be_combined_is_refused(
    fixture_dir: Callable[[str], Path], asked: tuple[str, str, str], said: tuple[type[TensignError], str]
) -> None:
    accelerator, variant, engine = asked
    config = replace(NATIVE, engine=engine, accelerator=accelerator, variant=variant)
    with pytest.raises(said[0], match=said[1]):
        Model.load(fixture_dir(OF_ENGINE[engine]), config)


def test_an_accelerator_that_nobody_knows() -> None:
    with pytest.raises(InvalidConfig, match='accelerator: wanted one of cuda-graphs, tensorrt, compile, got "warp"'):
        ModelConfig(accelerator="warp")


@pytest.mark.parametrize(
    ("mine", "its", "says"),
    [
        ([1.0, 2.0], [1.0, 2.019], ""),
        ([1.0, 2.0], [1.0, 2.1], "differs from plain fp32 by 0.0476"),
        ([0.0, 0.0], [0.0, 0.0], ""),
        ([1.0, np.inf], [1.0, np.inf], ""),
        ([np.nan, 1.0], [np.nan, 1.0], ""),
        ([1.0, np.inf], [1.0, 2.0], "by inf"),
        ([np.nan, 1.0], [1.0, 1.0], "by nan"),
        ([1, 2], [1, 2], ""),
        ([1, 2], [1, 3], "by 0.5"),
        ([1.0], [1.0, 2.0], r"float64 \[1\] for"),
    ],
)
def test_answers_that_are_alike(mine: list[float], its: list[float], says: str) -> None:
    given, wanted = {"y": np.array(mine)}, {"y": np.array(its)}
    if not says:
        ways.check_alike(given, wanted, "fp16", "it")
        return
    with pytest.raises(ParityFailed, match=says):
        ways.check_alike(given, wanted, "fp16", "it")
