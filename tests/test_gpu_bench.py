"""The benchmark of GPUs without one: what it derives from a graph, that nothing is lost, and that it runs."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper

import models
from gpu import campaign, decode, judgement, memory, networks, peaks, resnets, roofline, sharedmemory, step
from gpu.correctness import compared
from gpu.load import Generators
from gpu.methods import METHODS
from gpu.native import Native
from gpu.step import OVER, Absent, Document, Task

H100 = "NVIDIA H100 80GB HBM3"


def resnet(deep: bool, side: int = 300) -> onnx.ModelProto:
    """Shapes of ResNet-50, or of ResNet-18; weights have no values, nobody asks for them."""
    nodes: list[onnx.NodeProto] = []
    weights: list[TensorProto] = []

    def node(kind: str, *given: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, given, [f"x{len(nodes)}"], **attributes))
        return f"x{len(nodes) - 1}"

    def weight(*dims: int) -> str:
        weights.append(TensorProto(name=f"w{len(weights)}", dims=dims, data_type=TensorProto.FLOAT))
        return f"w{len(weights) - 1}"

    def conv(x: str, before: int, after: int, kernel: int, stride: int = 1) -> str:
        return node("Conv", x, weight(after, before, kernel, kernel), strides=[stride] * 2, pads=[kernel // 2] * 4)

    x = node("Relu", conv("image", 3, 64, 7, 2))
    x, channels = node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), 64
    for stage, blocks in enumerate((3, 4, 6, 3) if deep else (2, 2, 2, 2)):
        width = 64 << stage
        out = width * 4 if deep else width
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            if deep:
                y = conv(conv(conv(x, channels, width, 1), width, width, 3, stride), width, out, 1)
            else:
                y = conv(conv(x, channels, width, 3, stride), width, out, 3)
            short = x if channels == out and stride == 1 else conv(x, channels, out, 1, stride)
            x, channels = node("Relu", node("Add", y, short)), out
    x = node("Gemm", node("Flatten", node("GlobalAveragePool", x)), weight(1000, channels), transB=1)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["rows", 3, side, side])
    logits = helper.make_tensor_value_info(x, TensorProto.FLOAT, ["rows", 1000])
    return helper.make_model(helper.make_graph(nodes, "resnet", [image], [logits], weights))


@pytest.mark.parametrize(
    "deep, gflop, megabytes, by_arithmetic, by_memory",
    [(False, 6.79, 23.3, 145_700, 143_500), (True, 15.26, 103.3, 64_800, 32_400)],
)
def test_the_roofline_follows_from_the_graph(
    deep: bool, gflop: float, megabytes: float, by_arithmetic: float, by_memory: float
) -> None:
    work = roofline.work(resnet(deep))
    assert work["flop"] / 1e9 == pytest.approx(gflop, rel=1e-3)
    assert 2 * work["elements"] / 1e6 == pytest.approx(megabytes, rel=3e-3)
    limits = peaks.limits(work, "fp16", peaks.DATA_SHEETS[H100], batch=1 << 40)
    assert limits["by_arithmetic"] == pytest.approx(by_arithmetic, rel=1e-3)
    assert limits["by_memory"] == pytest.approx(by_memory, rel=3e-3)
    one = peaks.limits(work, "fp16", {"memory": 3.35e12}, batch=1)
    assert one["by_memory"] < 0.7 * by_memory and "by_arithmetic" not in one  # a lone image pays for the weights


def test_depthwise_layers_and_half_known_peaks() -> None:
    nodes = [helper.make_node("Conv", ["image", "w"], ["y"], group=8, pads=[1, 1, 1, 1])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 8, 10, 10]) for name in ("image", "y")]
    weights = [TensorProto(name="w", dims=(8, 1, 3, 3), data_type=TensorProto.FLOAT)]
    work = roofline.work(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)))
    assert work == {"flop": 2 * 800 * 9, "elements": 1600, "weights": 72}
    ceilings = {"matrix product, fp16": {"flop_per_s": 5e14}, "matrix product, tf32": {"skipped": "needs a GPU"}}
    assert peaks.measured(ceilings) == {"fp16": 5e14}


def test_cells_are_skipped_by_name_and_none_is_lost() -> None:
    def absent() -> None:
        raise Absent("h2load is not installed")

    def broken() -> None:
        raise ValueError("two\nlines")

    kept: list[Document] = []
    cells = (("one", lambda: {"ms": 1}), ("two", absent), ("three", broken))
    found = step.fill(cells, time.monotonic() + 60, lambda each: kept.append(dict(each)))
    wanted = {"two": {"skipped": "h2load is not installed"}, "three": {"failed": "ValueError: two lines"}}
    assert found == {"one": {"ms": 1}, **wanted}
    assert "time was over" in kept[0]["one"]["failed"] and kept[1] == {"one": {"ms": 1}}
    assert step.fill(cells, time.monotonic() - 1, kept.append) == {name: {"skipped": OVER} for name, _ in cells}


def test_a_step_ends_with_its_time_and_all_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "_GRACE_S", 1.0)
    file, pid = tmp_path / "cells.json", tmp_path / "pid"
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen(['sleep', '60'], process_group=0)\n"
        "open(sys.argv[2], 'w').write(str(child.pid))\n"
        'open(sys.argv[1], "w").write(\'{"one": {"ms": 1}}\')\n'
        "time.sleep(60)\n"
    )
    found = step.outcome([sys.executable, "-c", script, str(file), str(pid)], file, seconds=0.5)
    assert found["ended"] == "was ended after its 0 s" and found["cells"] == {"one": {"ms": 1}}
    state = Path(f"/proc/{pid.read_text()}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"
    found = step.outcome([sys.executable, "-c", "raise SystemExit(3)"], file, seconds=9)
    assert found["ended"] == "ended with status 3" and found["cells"] == {}


def test_time_that_one_step_saves_is_for_the_others() -> None:
    steps = list(campaign.STEPS)
    whole = sum(campaign.STEPS.values())
    assert campaign.share(whole, steps) == campaign.STEPS[steps[0]]
    assert campaign.share(whole, steps[1:]) > campaign.STEPS[steps[1]]
    assert campaign.share(100, steps[-1:]) == 100
    assert campaign.share(-5, steps) == 0


class Looking:
    """Answers with what it was given, after `wrong` has had its way with it."""

    lanes = 1

    def __init__(self, wrong: Callable[[npt.NDArray[Any]], None] = lambda answer: None) -> None:
        self._wrong = wrong
        self.batches: list[int] = []

    def stage(self, rows: npt.NDArray[Any]) -> None:
        self._rows = rows
        self.batches.append(len(rows))

    def whole(self) -> npt.NDArray[Any]:
        answer = self._rows.astype(np.float32)
        self._wrong(answer)
        return answer

    def alone(self) -> None:
        raise Absent("nothing")


def test_every_row_is_compared_at_every_batch_size() -> None:
    rows = np.eye(10, dtype=np.uint8)
    looking = Looking()
    same = compared(rows, rows.astype(np.float32), looking, (1, 4, 8))
    assert looking.batches == [1] * 10 + [4] * 3 + [8] * 2
    assert same["difference"] == 0 and same["top1_agreement"] == 1 and list(same["buckets"]) == [1, 4, 8]

    def last_of_eight(answer: npt.NDArray[Any]) -> None:
        if len(answer) == 8:
            answer[-1] = np.roll(answer[-1], 1)

    off = compared(rows, rows.astype(np.float32), Looking(last_of_eight), (1, 4, 8))
    assert off["buckets"][4] == {"difference": 0.0, "top1_agreement": 1.0}
    assert off["difference"] == 1 and off["top1_agreement"] == 0.9 and off["buckets"][8]["top1_agreement"] == 0.9
    nothing = compared(rows, rows.astype(np.float32), Looking(lambda answer: answer.fill(np.nan)), (4,))
    assert nothing["difference"] != nothing["difference"]


def test_memory_grows_where_its_end_exceeds_its_beginning() -> None:
    assert memory.growth([5, 9, 5, 30, 5, 9, 9]) == 0
    assert memory.growth([5, 6, 7, 8, 9, 12]) == 6
    assert memory.growth([4]) == 0


def test_what_needs_a_gpu_says_so(tmp_path: Path) -> None:
    for method in METHODS:
        with pytest.raises(Absent, match="needs a GPU" if method.needs_gpu else "is not there|no weights"):
            method.opened(Task("cpu", 0.0, tmp_path), "resnet18")


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """A network of one convolution where the benchmark expects ResNet-18, as MLflow's pytorch flavor has it."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 4, 7, stride=50), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    models = tmp_path_factory.mktemp("models")
    resnets.archive(torch.nn.Sequential(*layers, torch.nn.Linear(4, resnets.CLASSES)), models / f"resnet18-{networks.ARCHIVE}")
    return Task("cpu", 0.0, models)


@pytest.mark.parametrize("apart", [False, True])
def test_the_torch_engine_answers_what_its_network_does(archived: Task, apart: bool) -> None:
    pixels = networks.pieces(networks.SPEC, 3)
    plain = Native(archived, "resnet18")
    plain.stage(pixels)
    wanted = plain.whole()
    np.testing.assert_allclose(wanted.sum(1), 1, atol=1e-5)
    half = Native(archived, "resnet18", variant="bf16", apart=apart)
    found = compared(pixels, wanted, half, (1, 2))
    assert 0 < found["difference"] < 1e-3 and found["rows"] == 3


def test_what_the_torch_engine_cannot_do_here_is_skipped(archived: Task) -> None:
    with pytest.raises(Absent, match="fp16: torch runs it on CUDA alone"):
        Native(archived, "resnet18", variant="fp16")


def test_decoding_is_measured_or_skipped_by_name(tmp_path: Path) -> None:
    cells = dict(decode.cells(Task("cpu", 0.0, tmp_path)))
    rates = [name for name in cells if " by the CPU" in name]
    assert rates and cells[rates[0]]()["pictures_per_s"] > 1
    if importlib.util.find_spec("nvidia.nvimgcodec") is None:
        for name in cells.keys() - {*rates}:
            with pytest.raises(Absent, match="nvidia-nvimgcodec-cu13 cannot be imported"):
                cells[name]()


def test_rows_are_shared_with_a_server(tmp_path: Path) -> None:
    """Through the host's memory, as through a GPU's where there is one."""
    task = Task("cpu", 0.0, tmp_path)
    served = tmp_path / "resnet18-fp16"
    shutil.copytree(models.make("mean"), served)
    models.describe(served, ("float32", (3,)))
    with Generators() as generators:
        cells = sharedmemory.cells(task, generators, "resnet18", "fp16")
        name, measure = next(cells)
        found = measure()
        assert name == "resnet18, system shared memory, 1 row, 1" and found["images_per_s"] > 1
        assert not found["kind"].startswith("raw")
        name, measure = next(cells)
        with pytest.raises(Absent, match="needs a GPU"):
            measure()
    assert name == "resnet18, CUDA shared memory" and not list(cells)


BLOCKED = "onnx onnxruntime onnxscript torch torchvision matplotlib nvidia mlflow fastai tritonclient pandas prometheus_client"


def test_what_is_not_installed_is_skipped_by_name(tmp_path: Path) -> None:
    """Of every step, in a Python that finds none of what may be missing on a machine with a GPU."""
    script = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({BLOCKED.split()}))\n"
        "from gpu import campaign, step\n"
        "from pathlib import Path\n"
        "import importlib, json, time\n"
        "task = step.Task('cpu', time.monotonic() + 60, Path(sys.argv[1]))\n"
        "found = {}\n"
        "for name in campaign.STEPS:\n"
        "    cells = importlib.import_module(f'gpu.{name}').cells(task)\n"
        "    if name not in ('served', 'memory'):\n"
        "        found[name] = step.fill(cells, task.until, lambda found: None)\n"
        "print(json.dumps(found))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(campaign.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    failed = {f"{name}, {cell}": said for name, cells in found.items() for cell, said in cells.items() if "failed" in said}
    assert not failed
    assert found["networks"]["resnet18 torch"]["skipped"].startswith("torch is not installed")
    assert "nothing to compare with" in found["correctness"]["lite0, tensign fp32"]["skipped"]


def test_one_command_runs_a_step_and_writes_its_report(tmp_path: Path) -> None:
    folder = Path(campaign.__file__).parent
    command = [sys.executable, str(folder), "--device", "cpu", "--only", "ceilings", "--minutes", "0.9", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "gpu-cpu.json").read_text())
    cells = document["steps"]["ceilings"]["cells"]
    assert cells["matrix product, fp32"]["flop_per_s"] > 1e9
    assert cells["copy to the device, pinned"] == {"skipped": "needs a GPU: there is no bus"}
    assert "step correctness was not run" in str(judgement.figures(document | {"on": "cuda:0"}))
    assert "| ceilings | matrix product, fp16 | skipped: needs a GPU |" in (tmp_path / "gpu-cpu.md").read_text()
