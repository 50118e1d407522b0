"""The benchmark of GPUs without one: what it derives, how it judges, that nothing is lost and nothing is claimed unmeasured."""

from __future__ import annotations

import json
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

from gpu import campaign, judgement, memory, peaks, report, roofline, step
from gpu.correctness import compared
from gpu.methods import METHODS
from gpu.step import OVER, Absent, Document, Task

H100 = "NVIDIA H100 80GB HBM3"
SERVED = "resnet50 over gRPC: images/s to the lesser of in process and no-op server"


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


def timed(network: str, method: str, rate: float, *, own: bool, alone: float = 0, ms: float = 1.0) -> Document:
    figures: Document = {"first_ms": 5.0, "whole": {"ms": ms, "images_per_s": rate}}
    if alone:
        figures["alone"] = {"ms": 64e3 / alone, "images_per_s": alone}
    known = {"network": network, "method": method, "arithmetic": method.split()[1], "own": own, "load_s": 0.1}
    return {**known, "batches": {"1": {"first_ms": 1.0, "whole": {"ms": ms, "images_per_s": 1e3 / ms}}, "64": figures}}


def canned() -> Document:
    """As if all had run on an H100 and reached everything."""
    right: Document = {
        f"{network}, {method}": {
            "network": network,
            "method": method,
            "arithmetic": method.split()[1],
            "difference": 1e-3 if "fp16" in method else 1e-5,
            "top1_agreement": 0.995 if "fp16" in method else 1.0,
            "buckets": {"1": {}, "64": {}},
            "rows": 200,
            "classes": 8,
        }
        for network in ("resnet18", "resnet50")
        for method in ("tensign fp32", "tensign fp16", "onnxruntime fp32", "torch fp16")
    }
    alone: Document = {}
    served: Document = {"no-op server aio, raw": sent("no-op", 12_000, 64)}
    for network, rate in (("resnet18", 20_000), ("resnet50", 10_000)):
        alone |= {
            f"{network}, operations": {"network": network, **roofline.work(resnet(network == "resnet50"))},
            f"{network}, tensign fp16": timed(network, "tensign fp16", rate, own=True),
            f"{network}, torch fp16": timed(network, "torch fp16", rate, own=False, alone=rate / 0.96),
        }
        served |= {
            f"{network}, raw, 1": sent(network, 700, 1),
            f"{network}, raw, 64": sent(network, 0.95 * min(rate, 12_000), 64),
            f"{network}, load": sent(network, 8_000, 64) | {"share": 0.7, "requests_per_s": 8_000},
            f"{network}, memory": {"network": network, "bytes": 3 << 30},
        }
        del served[f"{network}, load"]["level"]
    steady = {"network": "resnet50", "seconds": 310.0, "growth_bytes": 0, "readings_bytes": [5, 5], "images_per_s": 9_000}
    ceilings = {"copy on the device": {"bytes_per_s": 3e12, "bytes": 1 << 28}}
    measured = {"correctness": right, "ceilings": ceilings, "inprocess": alone, "served": served, "memory": {"all": steady}}
    steps = {name: {"seconds": 1.0, "budget_s": 2.0, "ended": "", "cells": cells} for name, cells in measured.items()}
    versions, machine = {"python": "3.12.3"}, {"cores": 16}
    gpu = {"name": H100, "driver_version": "580"}
    document = {"made": "2026-01-01 00:00", "on": "cuda:0", "steps": steps}
    return {**document, "device": {"gpus": [gpu], "versions": versions, "machine": machine}}


def sent(network: str, rate: float, level: int) -> Document:
    figures = {"network": network, "kind": "raw, unary", "images_per_s": rate, "p50_ms": 2.0, "p99_ms": 20.0}
    return figures | {"level": level}


def verdicts(document: Document) -> dict[str, Document]:
    return {each["figure"]: each for each in judgement.figures(document)}


def test_everything_that_was_reached_is_said_so() -> None:
    found = verdicts(json.loads(json.dumps(canned())))
    assert len(found) == 17
    assert {each["verdict"] for each in found.values()} == {"reached"}, found
    assert found["resnet50 in process: tensign to the best bare loop"]["found"] == "0.96"
    assert "on the device alone" in found["resnet50 in process: tensign to the best bare loop"]["why"]


@pytest.mark.parametrize(
    "where, value, figure",
    [
        (("correctness", "resnet50, onnxruntime fp32", "difference"), 2e-4, "fp32 without TF32, bare loops: difference"),
        (("correctness", "resnet18, tensign fp32", "top1_agreement"), 0.995, "fp32, tensign: top-1"),
        (("correctness", "resnet50, tensign fp16", "difference"), float("nan"), "fp16, tensign: difference"),
        (("correctness", "resnet18, torch fp16", "top1_agreement"), 0.99, "fp16, bare loops: top-1"),
        (("inprocess", "resnet18, torch fp16", "batches", "64", "alone", "images_per_s"), 3e4, "resnet18 in process"),
        (("served", "resnet50, raw, 64", "images_per_s"), 8_900, "resnet50 over gRPC: images/s"),
        (("served", "resnet18, load", "p99_ms"), 25.0, "resnet18 over gRPC: p99"),
        (("served", "resnet50, raw, 1", "p50_ms"), 2.6, "resnet50 over gRPC: p50"),
        (("memory", "all", "growth_bytes"), 33 << 20, "device memory"),
    ],
)
def test_each_limit_is_held(where: tuple[str, ...], value: float, figure: str) -> None:
    document = canned()
    place = document["steps"][where[0]]["cells"]
    for key in where[1:-1]:
        place = place[key]
    place[where[-1]] = value
    missed = [name for name, each in verdicts(document).items() if each["verdict"] == "missed"]
    assert len(missed) == 1 and missed[0].startswith(figure), missed


def test_what_was_not_measured_is_not_judged() -> None:
    document = canned()
    document["steps"]["correctness"]["cells"] = {"resnet18, tensign fp32": {"skipped": "onnxruntime is not installed"}}
    document["steps"]["memory"]["cells"]["all"]["seconds"] = 60.0
    document["steps"]["served"] = {"seconds": 9.0, "budget_s": 9.0, "ended": "was ended after its 9 s", "cells": {}}
    del document["steps"]["inprocess"]
    found = verdicts(document)
    assert {each["verdict"] for each in found.values()} == {"not run"}
    assert found["fp32, tensign: top-1 agreement"]["why"] == "onnxruntime is not installed"
    assert "--only memory --minutes 6" in found["device memory at full load"]["why"]
    assert found["resnet18 over gRPC: p99 at 70 % load"]["why"] == "step served was ended after its 9 s"
    assert found["resnet18 in process: tensign to the best bare loop"]["why"] == "step inprocess was not run"


def test_a_run_on_the_cpu_reaches_nothing() -> None:
    document = canned() | {"on": "cpu"}
    assert {each["verdict"] for each in verdicts(document).values()} == {"not run"}
    assert "nothing of a GPU" in report.markdown(document | {"figures": judgement.figures(document)})


def test_several_processes_count_as_one_server() -> None:
    document = canned()
    cells = document["steps"]["served"]["cells"]
    cells["resnet50, raw, 64"]["images_per_s"] = 1_000
    assert verdicts(document)[SERVED]["verdict"] == "missed"
    cells["resnet50 by 4 processes, raw, 64"] = sent("resnet50 by 4 processes", 9_100, 64)
    assert verdicts(document)[SERVED]["verdict"] == "reached"


def test_8_bits_are_no_match_for_bare_loops_of_16() -> None:
    document = canned()
    cells = document["steps"]["inprocess"]["cells"]
    cells["resnet18, tensign fp16"] = timed("resnet18", "tensign fp16", 9_000, own=True)
    cells["resnet18, tensign int8"] = timed("resnet18", "tensign int8", 90_000, own=True)
    assert verdicts(document)["resnet18 in process: tensign to the best bare loop"]["verdict"] == "missed"


def test_the_report_holds_it_all(tmp_path: Path) -> None:
    document = canned()
    document["steps"]["inprocess"]["cells"]["resnet18, tensorrt fp16"] = {"skipped": "no libnvinfer"}
    document["steps"]["served"]["cells"]["resnet50, broken"] = {"failed": "RuntimeError: a | b"}
    document["figures"] = judgement.figures(document)
    written = report.write(document, tmp_path / "gpu-h100.json")
    assert [file.name for file in written] == ["gpu-h100.json", "gpu-h100.md", "gpu-h100.png", "gpu-h100-served.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in written[2:])
    text = written[1].read_text()
    assert text.startswith(f"# {H100}, driver 580, 16 cores\n")
    assert "| resnet50 | torch fp16 | 64 | 10,000 | 1.00 | 10,417 | 1.00 | 32% |" in text
    assert "| inprocess | resnet18, tensorrt fp16 | skipped: no libnvinfer |" in text
    assert "| served | resnet50, broken | failed: RuntimeError: a \\| b |" in text
    assert text.count("| reached |") == 17 and "![gpu-h100.png](gpu-h100.png)" in text
    for line in report.lines(document["steps"]["served"]["cells"]):
        assert line
    assert len(report.verdicts(document)) == 17


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
    """Answers with what it was given, and with `wrong` for one row of a batch."""

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
