"""Which flavor runs, why not the others, and that nothing of a model's own code runs before somebody says so."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import tensor
from tensign.choice import choices
from tensign.config import ModelConfig
from tensign.errors import InvalidConfig, TensignError, UnsupportedModel, UntrustedModel
from tensign.mlmodel import read_mlmodel
from tensign.model import Model
from tensign.plan import ModelPlan

SIGNATURE = {"inputs": [tensor("float32", [-1, 2])], "outputs": [tensor("float32", [-1, 2])]}
FILES = ("model.onnx", "model.fastai", "data/model.pth", "model.pkl", "model.skops", "loader.py")
FLAVORS: dict[str, dict[str, Any]] = {
    "onnx": {"data": "model.onnx"},
    "fastai": {"data": "model.fastai", "fastai_version": "2.8.12"},
    "pytorch": {"model_data": "data"},
    "sklearn": {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"},
    "python_function": {"loader_module": "loader"},
    "keras": {"data": "data"},
}


@pytest.fixture
def model_of(mlmodel: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a model of these flavors, its files empty."""

    def write(*names: str, **changed: Any) -> Path:
        flavors = {name: {**FLAVORS[name], **changed.get(name, {})} for name in names}
        path = mlmodel(signature=SIGNATURE, flavors=flavors)
        for file in FILES:
            (path / file).parent.mkdir(exist_ok=True)
            (path / file).touch()
        return path

    return write


@pytest.mark.parametrize(
    ("flavors", "asked", "flavor"),
    [
        (["python_function", "onnx"], "auto", "onnx"),
        (["python_function", "onnx"], "pyfunc", "python_function"),
        (["python_function", "pytorch"], "auto", "pytorch"),
        (["python_function", "sklearn"], "auto", "sklearn"),
        (["keras", "python_function"], "auto", "python_function"),
        (["fastai", "python_function"], "fastai", "fastai"),
        (["fastai", "onnx"], "auto", "onnx"),
    ],
)
def test_the_flavor_that_runs(model_of: Callable[..., Path], flavors: list[str], asked: str, flavor: str) -> None:
    assert ModelPlan.of(model_of(*flavors), asked).flavor == flavor


def test_each_flavor_is_explained(model_of: Callable[..., Path]) -> None:
    explained = list(map(str, choices(read_mlmodel(model_of(*FLAVORS)))))
    own, trust = "in a process of its own", "which runs the model's own code, so it needs --trust"
    assert explained == [
        "onnx: by engine onnx",
        f"fastai: by engine fastai {own}; unpickles model.fastai, {trust}; only with --engine fastai",
        f"pytorch: by engine torch {own}; unpickles model.pth, {trust}",
        f"sklearn: by engine sklearn {own}; unpickles model.pkl, {trust}",
        f"python_function: by engine pyfunc {own}; loads it with loader, {trust}",
        "keras: no engine runs it; its python_function flavor may",
    ]


@pytest.mark.parametrize(
    ("flavor", "changed", "asked", "says"),
    [
        ("onnx", {"data": "gone.onnx"}, "auto", 'names "gone.onnx", which is no file of the directory'),
        ("onnx", {"data": "../model.onnx"}, "auto", "no file of the directory"),
        ("pytorch", {"model_data": "../model"}, "auto", "no file of the directory"),
        ("pytorch", {"model_data": "."}, "auto", "neither model.pth nor model.pt2"),
        ("sklearn", {"pickled_model": "/etc/passwd"}, "auto", "no file of the directory"),
        ("python_function", {"data": "../"}, "auto", "no file of the directory"),
        ("python_function", {"code": "../../code"}, "auto", "no file of the directory"),
        ("python_function", {"loader_module": "os; import sys"}, "auto", "is no module's name"),
        ("keras", {}, "auto", "keras: no engine runs it$"),
        ("onnx", {}, "torch", "--engine torch: no flavor for it; onnx: by engine onnx"),
        ("fastai", {}, "auto", "tensign convert SRC DST; or .* --engine fastai --trust"),
        ("fastai", {"fastai_version": "2.4.1"}, "auto", "tensign convert SRC DST; or"),
    ],
)
def test_what_cannot_run_says_why(
    model_of: Callable[..., Path], flavor: str, changed: dict[str, Any], asked: str, says: str
) -> None:
    with pytest.raises(UnsupportedModel, match=says):
        ModelPlan.of(model_of(flavor, **{flavor: changed}), asked)


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(InvalidConfig, match=r'engine: wanted auto or one of onnx, .* got "keras"'):
        ModelConfig(engine="keras")


class Hostile:
    """Unpickled, it writes the number of the process that did it."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"import os; open({str(self.target)!r}, 'w').write(str(os.getpid()))",)


@pytest.mark.parametrize("engine", ["torch", "fastai", "sklearn", "pyfunc"])
def test_a_hostile_pickle_runs_only_with_trust_and_never_here(
    model_of: Callable[..., Path], tmp_path: Path, engine: str
) -> None:
    path, ran = model_of("fastai", "pytorch", "sklearn", "python_function"), tmp_path / "ran"
    for file in ("model.fastai", "data/model.pth", "model.pkl"):
        (path / file).write_bytes(pickle.dumps(Hostile(ran)))
    (path / "loader.py").write_text(f"import os; open({str(ran)!r}, 'w').write(str(os.getpid()))")
    with pytest.raises(UntrustedModel, match=f"engine {engine} "):
        Model.load(path, ModelConfig(device="cpu", engine=engine))
    assert not ran.exists()
    if engine == "sklearn":  # the cheapest to start
        with pytest.raises(TensignError):
            Model.load(path, ModelConfig(device="cpu", engine=engine, trust=True))
        assert ran.exists() and int(ran.read_text()) != os.getpid()


def test_only_trusted_code_of_the_directory_is_found(model_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A yaml.py or numpy.py in the current directory, which may be the model's own, is not imported for the real one."""
    path = model_of("sklearn")
    (path / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    (path / "model.pkl").write_bytes(pickle.dumps(np.float64(1)))
    monkeypatch.chdir(path)
    with pytest.raises(UnsupportedModel, match=r"model.pkl: a float64 has no predict\(\)"):
        Model.load(path, ModelConfig(device="cpu", trust=True))


@pytest.mark.parametrize(
    ("flavor", "says"),
    [
        ("onnx", "there is fp32, with --device cuda tf32$"),
        ("sklearn", "there is fp32$"),
        (
            "pytorch",
            "there is fp32, with --device cuda tf32; of --engine torch bf16, with --device cuda tf32 and fp16$",
        ),
    ],
)
@pytest.mark.parametrize("variant", ["bogus", "BF16"])
def test_a_variant_that_nobody_makes_is_told_those_that_there_are(
    model_of: Callable[..., Path], flavor: str, says: str, variant: str
) -> None:
    with pytest.raises(UnsupportedModel, match=f"variant '{variant}': {says}"):
        ModelPlan.of(model_of(flavor), variant=variant)
