"""The figures of a benchmark on a GPU: reached, missed or not run, and the report of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpu import judgement, report
from gpu.step import Document

H100 = "NVIDIA H100 80GB HBM3"
SERVED = "resnet50 over gRPC: images/s to the lesser of in process and no-op server"
WORK = {"flop": 15_255_336_448, "elements": 51_661_912, "weights": 25_502_912}  # of ResNet-50


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
            "arithmetic": method.split()[-1],
            "difference": 1e-5 if "fp32" in method else 1e-3,
            "top1_agreement": 1.0 if "fp32" in method else 0.995,
            "buckets": {"1": {}, "64": {}},
            "rows": 200,
            "classes": 8,
        }
        for network in ("resnet18", "resnet50")
        for method in ("tensign fp32", "tensign fp16", "tensign torch bf16", "onnxruntime fp32", "torch fp16")
    }
    alone: Document = {}
    served: Document = {"no-op server aio, raw": sent("no-op", 12_000, 64)}
    for network, rate in (("resnet18", 20_000), ("resnet50", 10_000)):
        alone |= {
            f"{network}, operations": {"network": network, **WORK},
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
    decode = {
        "difference": {"most": 5, "mean": 0.3, "allowed_most": 8, "allowed_mean": 0.5},
        "crossover, 16 threads": {"threads": 16, "pays_from_pixels": "no size"},
        "640x427 by the CPU, 16 threads": {"pictures_per_s": 9_000.0, "file_bytes": 97_000},
    }
    held = {"network": "resnet50", "bytes": 3 << 30, "taken_bytes": 3 << 30}
    memory = {"ledger": held, "all": steady}
    measured = {
        "correctness": right,
        "ceilings": ceilings,
        "inprocess": alone,
        "decode": decode,
        "served": served,
        "memory": memory,
    }
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
    assert len(found) == 20
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
        (("correctness", "resnet50, tensign torch bf16", "difference"), 6e-3, "bf16, tensign: difference"),
        (("decode", "difference", "most"), 9, "JPEGs decoded on the GPU"),
        (("decode", "difference", "mean"), 0.51, "JPEGs decoded on the GPU"),
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
    document["steps"]["decode"]["cells"] = {"difference": {"skipped": "nvImageCodec is not installed"}}
    found = verdicts(document)
    assert {each["verdict"] for each in found.values()} == {"not run"}
    assert found["fp32, tensign: top-1 agreement"]["why"] == "onnxruntime is not installed"
    assert "--only memory --minutes 6" in found["device memory at full load"]["why"]
    assert found["JPEGs decoded on the GPU: difference of a pixel from the CPU's"]["why"] == "nvImageCodec is not installed"
    assert found["resnet18 over gRPC: p99 at 70 % load"]["why"] == "step served was ended after its 9 s"
    assert found["resnet18 in process: tensign to the best bare loop"]["why"] == "step inprocess was not run"


def test_a_run_on_the_cpu_reaches_nothing() -> None:
    document = canned() | {"on": "cpu"}
    assert {each["verdict"] for each in verdicts(document).values()} == {"not run"}
    assert "nothing of a GPU" in report.markdown(document | {"figures": judgement.figures(document)})


def test_the_best_number_of_front_ends_counts() -> None:
    """For images/s; of p99 at load that server's, of one image the server's that answers it soonest."""
    document = canned()
    cells = document["steps"]["served"]["cells"]
    cells["resnet50, raw, 64"]["images_per_s"] = 1_000
    assert verdicts(document)[SERVED]["verdict"] == "missed"
    by_four = "resnet50 by 4 front ends"
    cells |= {f"{by_four}, raw, 64": sent(by_four, 9_100, 64), f"{by_four}, raw, 1": sent(by_four, 300, 1) | {"p50_ms": 9.0}}
    cells[f"{by_four}, load"] = sent(by_four, 8_100, 64) | {"share": 0.7, "requests_per_s": 8_100, "p99_ms": 40.0}
    del cells[f"{by_four}, load"]["level"]
    found = verdicts(document)
    assert found[SERVED]["verdict"] == "reached" and by_four in found[SERVED]["why"]
    assert found["resnet50 over gRPC: p99 at 70 % load"]["found"] == "40.0 ms"
    assert found["resnet50 over gRPC: p50 of one image beyond in process"]["verdict"] == "reached"


def test_rows_in_shared_memory_are_no_rows_over_grpc() -> None:
    document = canned()
    cells = document["steps"]["served"]["cells"]
    cells["resnet50, raw, 64"]["images_per_s"] = 1_000
    cells["resnet50, CUDA shared memory, 16 rows, 32"] = sent("resnet50", 99_000, 32) | {"kind": "CUDA shared memory, 16 rows"}
    assert verdicts(document)[SERVED]["verdict"] == "missed"


def test_lanes_count_for_whoever_has_them() -> None:
    document = canned()
    cell = document["steps"]["inprocess"]["cells"]["resnet18, tensign fp16"]["batches"]["64"]
    cell["whole"]["images_per_s"] = 15_000
    name = "resnet18 in process: tensign to the best bare loop"
    assert verdicts(document)[name]["verdict"] == "missed"
    cell["lanes"] = {"images_per_s": 20_100}
    assert verdicts(document)[name]["verdict"] == "reached"


@pytest.mark.parametrize("method", ["tensign int8", "tensign torch bf16"])
def test_fewer_bits_are_no_match_for_bare_loops_of_fp16(method: str) -> None:
    document = canned()
    cells = document["steps"]["inprocess"]["cells"]
    cells["resnet18, tensign fp16"] = timed("resnet18", "tensign fp16", 9_000, own=True)
    cells[f"resnet18, {method}"] = timed("resnet18", method, 90_000, own=True) | {"arithmetic": method.split()[-1]}
    assert verdicts(document)["resnet18 in process: tensign to the best bare loop"]["verdict"] == "missed"


def test_the_best_of_our_engines_counts() -> None:
    document = canned()
    cells = document["steps"]["inprocess"]["cells"]
    cells["resnet18, tensign fp16"] = timed("resnet18", "tensign fp16", 9_000, own=True)
    cells["resnet18, native"] = timed("resnet18", "tensign torch fp16", 21_000, own=True) | {"arithmetic": "fp16"}
    found = verdicts(document)["resnet18 in process: tensign to the best bare loop"]
    assert found["verdict"] == "reached" and "tensign torch fp16" in found["why"]


def test_the_report_holds_it_all(tmp_path: Path) -> None:
    document = canned()
    document["steps"]["inprocess"]["cells"]["resnet18, tensorrt fp16"] = {"skipped": "no libnvinfer"}
    document["steps"]["served"]["cells"]["resnet50, broken"] = {"failed": "RuntimeError: a | b"}
    document["steps"]["served"]["cells"]["many"] = sent("resnet50 by 4 front ends", 9_100, 64)
    document["figures"] = judgement.figures(document)
    written = report.write(document, tmp_path / "gpu-h100.json")
    assert [file.name for file in written] == ["gpu-h100.json", "gpu-h100.md", "gpu-h100.png", "gpu-h100-served.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in written[2:])
    text = written[1].read_text()
    assert text.startswith(f"# {H100}, driver 580, 16 cores\n")
    assert "| resnet50 | torch fp16 | 64 | 10,000 | 1.00 |  | 10,417 | 1.00 | 32% |" in text
    assert "| inprocess | resnet18, tensorrt fp16 | skipped: no libnvinfer |" in text
    assert "| crossover, 16 threads | threads 16, pays from pixels no size |" in text
    assert "| ledger | 3072 MiB, 3072 MiB taken of the device |" in text
    assert "| served | resnet50, broken | failed: RuntimeError: a \\| b |" in text
    assert text.count("| reached |") == 20 and "![gpu-h100.png](gpu-h100.png)" in text
    for line in report.lines(document["steps"]["served"]["cells"]):
        assert line
    assert len(report.verdicts(document)) == 20
