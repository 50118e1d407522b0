"""Which process runs a model, and which GPU it sees. There is no GPU here: of CUDA nothing is proved."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from machines import NAMES, Machine
from tensign import placement
from tensign.config import ModelConfig
from tensign.doctor.driver import find_driver
from tensign.doctor.lacks import explained, without_gpu
from tensign.doctor.lookup import Lookup
from tensign.engines import Engine
from tensign.engines.onnx import OnnxEngine
from tensign.engines.process import Process, Refused
from tensign.engines.worker import ENGINE_CLASSES, Worker
from tensign.errors import InvalidConfig, ProviderUnavailable
from tensign.plan import ModelPlan

WHOLE, FIRST, LAST = (f"cuda:{name}" for name in NAMES.values())


@pytest.fixture
def plan(mean_model: Path) -> ModelPlan:
    return ModelPlan.of(mean_model)


@pytest.fixture
def with_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine of machines.py."""
    lookup = Machine(tmp_path).lookup()
    monkeypatch.setattr(placement, "find_driver", lambda _: find_driver(lookup))
    monkeypatch.setattr(placement, "without_gpu", lambda device: without_gpu(device, lookup))
    monkeypatch.setattr(placement, "explained", lambda device: explained(device, lookup=lookup))


def seen(engines: list[Engine]) -> list[tuple[str, str]]:
    """What each is called, and what its process sees."""
    workers = [engine for engine in engines if isinstance(engine, Worker)]
    assert len(workers) == len(engines)
    return [(worker.device, (worker._more or {}).get("CUDA_VISIBLE_DEVICES", "all")) for worker in workers]


@pytest.mark.usefixtures("with_gpus")
def test_one_device_by_number_is_run_here_and_every_other_by_a_process_that_sees_nothing_else(plan: ModelPlan) -> None:
    def engines(device: str, **options: Any) -> list[Engine]:
        return placement.engines_of(plan, ModelConfig(device=device, **options), "mean", lambda _: None)

    for device in ("auto", "cpu", "cuda", "cuda:1"):
        (engine,) = engines(device)
        assert isinstance(engine, OnnxEngine) and engine.device == device
    assert seen(engines(WHOLE)) == [(WHOLE, NAMES[1])]
    assert seen(engines("cuda:MIG-c788")) == [("cuda:MIG-c788", NAMES[200])]
    numbered = "GPU-00000000-0000-0000-0000-000000000000"
    assert seen(engines(f"cuda:0,{NAMES[202]}")) == [("cuda:0", numbered), (LAST, NAMES[202])]
    assert seen(engines("cuda:0,7")) == [("cuda:0", numbered), ("cuda:7", "all")]  # which its engine then misses


@pytest.mark.usefixtures("with_gpus")
def test_a_name_of_nothing_and_two_of_the_same_are_refused(plan: ModelPlan) -> None:
    with pytest.raises(
        ProviderUnavailable, match=r"cuda:MIG-ffff: there is no cuda:MIG-ffff, .*--device cpu \(`tensign doctor`"
    ):
        placement.engines_of(plan, ModelConfig(device="cuda:MIG-ffff"), "mean", lambda _: None)
    with pytest.raises(InvalidConfig, match="two of cuda:MIG-c788,MIG-c7885 are the same GPU"):
        placement.engines_of(plan, ModelConfig(device="cuda:MIG-c788,MIG-c7885"), "mean", lambda _: None)


def run_by(plan: ModelPlan, engine: str, device: str) -> list[Engine]:
    plan = replace(plan, choice=replace(plan.choice, engine=engine))
    return placement.engines_of(plan, ModelConfig(device=device), "mean", lambda _: None)


@pytest.mark.usefixtures("with_gpus")
@pytest.mark.parametrize(
    ("engine", "says"),
    [
        ("sklearn", "cuda:1: engine sklearn runs on the CPU alone; choose --device cpu"),
        ("pyfunc", "cuda:1: engine pyfunc runs where its own code decides; leave --device out"),
    ],
)
def test_an_engine_that_no_gpu_makes_faster_is_given_none(plan: ModelPlan, engine: str, says: str) -> None:
    with pytest.raises(ProviderUnavailable, match=says):
        run_by(plan, engine, "cuda:1")
    assert [one.device for device in ("auto", "cpu") for one in run_by(plan, engine, device)] == ["auto", "cpu"]


@pytest.mark.usefixtures("with_gpus")
@pytest.mark.parametrize("engine", ["torch", "fastai"])
def test_a_gpu_that_is_not_there_is_told_before_any_process_is_started(plan: ModelPlan, engine: str) -> None:
    assert [one.device for one in run_by(plan, engine, "cuda:0,1")] == ["cuda:0", "cuda:1"]
    with pytest.raises(
        ProviderUnavailable, match=r"cuda:2: there is no cuda:2, this process sees cuda:0, cuda:1: --device cuda:1"
    ):
        run_by(plan, engine, "cuda:0,2")


@pytest.mark.parametrize(("variant", "apart"), [("fp32", True), ("int8", True), ("tf32", False), ("fp16", False)])
def test_tensorrt_multiplies_in_fewer_bits_only_where_that_is_asked_for(plan: ModelPlan, variant: str, apart: bool) -> None:
    config = ModelConfig(device="cuda:0", accelerator="tensorrt", variant=variant)
    (engine,) = placement.engines_of(plan, config, "mean", lambda _: None)
    if apart:
        assert isinstance(engine, Worker) and (engine._more or {}).get("NVIDIA_TF32_OVERRIDE") == "0"
    else:
        assert isinstance(engine, OnnxEngine)


WITNESS = """
import os
import numpy as np
from tensign.doctor.lookup import Lookup
from tensign.engines import Engine

class Witness(Engine):
    def __init__(self, device, **_):
        self.device = device

    def run(self, batch, params=None, deadline=None):
        if batch["x"][0]:
            raise ValueError(self.device + " is broken")
        told = [self.device, os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("SECRET")]
        return {"told": np.array(told, object)}
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """Of an engine that tells what it sees."""
    (tmp_path / "witness.py").write_text(WITNESS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("SECRET", "1")
    more = {"CUDA_VISIBLE_DEVICES": NAMES[202]}
    worker = Worker("witness:Witness", {"device": LAST}, more=more)
    yield worker
    worker.close()


def test_the_process_sees_one_gpu_which_it_calls_the_first_and_the_world_by_its_name(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    worker.load()
    assert list(worker.run({"x": np.zeros(1)})["told"]) == ["cuda:0", NAMES[202], None]
    assert worker.device == LAST
    with pytest.raises(Exception, match="the model raised ValueError"):
        worker.run({"x": np.ones(1)})
    assert f"{LAST} is broken" in caplog.text and "cuda:0" not in caplog.text


def test_what_a_process_says_of_its_gpu_is_said_of_the_one_it_was_given() -> None:
    process = Process(sys.executable, trust=False, called=FIRST)
    with pytest.raises(Refused, match=f"has no attribute '{FIRST}'"):
        process.call({"do": "load", "engine": "os:cuda:0"}, {}, time.monotonic() + 30)
    process.kill()
    process.wait()


@pytest.mark.skipif(find_driver(Lookup()) is not None, reason="this machine has an NVIDIA driver")
def test_here_a_gpu_by_name_is_missing_under_its_name(plan: ModelPlan) -> None:
    with pytest.raises(ProviderUnavailable, match=f"{FIRST}: .*no NVIDIA driver"):
        placement.engines_of(plan, ModelConfig(device=FIRST), "mean", lambda _: None)
    with pytest.raises(ProviderUnavailable, match=f"{FIRST}: .*pip install 'tensign\\[gpu\\]'.*`tensign doctor` tells more"):
        run_by(plan, "onnx", FIRST)
    with pytest.raises(ProviderUnavailable, match=r"cuda: .*no NVIDIA driver \(libcuda.so.1\).*`tensign doctor` tells more"):
        run_by(plan, "torch", "cuda")
    settings = {"file": str(plan.file), "device": FIRST}
    with closing(Worker(ENGINE_CLASSES["onnx"], settings, more={"CUDA_VISIBLE_DEVICES": NAMES[200]})) as worker:
        with pytest.raises(ProviderUnavailable, match=f"{FIRST}: CUDAExecutionProvider is asked for"):
            worker.load()
