"""Variants beside fp32 on one thread: size, images/s to those of fp32, how often the best class stays.

    python benchmarks/precision.py [--only resnet18|lite0] [--size 300]     # minutes; into benchmarks/results/precision.json

ResNet-18 has random weights and batch norms that know photographs; EfficientNet-Lite0 is the bundled model, with the weights
it was trained to. Each is calibrated on half of the bundled photographs and judged on pieces of the others. Ends with status 1
where int8 misses a target: 3 times fp32's images/s for ResNet-18, 97 % of Lite0's best classes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import PIL.Image
import torch
import torchvision

from tensign.bench.machine import machine, versions
from tensign.demo import MODEL
from tensign.plan import ModelPlan
from tensign.preprocess import PreprocessSpec, Resize
from tensign.proof.samples import photographs
from tensign_converters.pictures.export import export
from tensign_converters.pictures.model import rebuilt
from tensign_converters.pictures.preprocessing import COLOUR, Preprocessing, network_input
from tensign_converters.pictures.steps import Normalize, Scale
from tensign_converters.precision.calibration import rows
from tensign_converters.precision.halves import halve
from tensign_converters.precision.quantized import quantize
from tensign_converters.subject import Head

RESULT = Path(__file__).parent / "results" / "precision.json"
PIECES, ROUNDS, ROUND_S = 200, 7, 1.0
FASTER, ALIKE = 3.0, 0.97

Pixels = npt.NDArray[np.uint8]


def resnet18(target: Path, size: int) -> PreprocessSpec:
    """Writes it, 1000 classes, for pictures of any size made `size` x `size`."""
    torch.manual_seed(0)
    steps = (Scale(255.0), Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    prepared = Preprocessing(COLOUR, (Resize(size, size, "squish"),), steps, (size, size), (size, size))
    network = torchvision.models.resnet18(weights=None).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train()
            module.momentum = None
    with torch.no_grad():
        for batch in np.array_split(pieces(photographs(), prepared.spec(), 48, seed=0), 2):
            network(network_input(prepared, torch.from_numpy(batch)))
    head = Head("classification", "softmax", -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        export(rebuilt(network.eval(), prepared, head, (1000,), {}), target)
    return prepared.spec()


def lite0(target: Path, size: int) -> PreprocessSpec:
    """Copies the bundled one, whose size is its own."""
    plan = ModelPlan.of(MODEL)
    shutil.copyfile(plan.file, target)
    assert plan.preprocess is not None
    return plan.preprocess


def pieces(files: list[Path], spec: PreprocessSpec, count: int, *, seed: int) -> Pixels:
    """uint8 [count,H,W,3]: rectangles of half to 95 % of a photograph's sides, as they reach the graph."""
    random, made = np.random.default_rng(seed), []
    opened = [np.asarray(PIL.Image.open(file).convert("RGB")) for file in files]
    for number in range(count):
        whole = opened[number % len(opened)]
        high, wide = (int(side * random.uniform(0.5, 0.95)) for side in whole.shape[:2])
        top, left = (int(random.integers(side - cut + 1)) for side, cut in zip(whole.shape[:2], (high, wide), strict=True))
        made.append(spec.arrays(whole[None, top : top + high, left : left + wide])[0])
    return np.stack(made)


def opened(file: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def best(file: Path, pixels: Pixels) -> npt.NDArray[Any]:
    """The best class of each row."""
    session = opened(file, 0)
    batches = np.array_split(pixels, max(1, len(pixels) // 8))
    return np.concatenate([session.run(None, {"image": batch})[0].argmax(axis=1) for batch in batches])


def rates(files: Mapping[str, Path], picture: Pixels) -> dict[str, list[float]]:
    """Images/s one by one on one thread, in alternating rounds."""
    sessions = {name: opened(file, 1) for name, file in files.items()}
    measured: dict[str, list[float]] = {name: [] for name in files}
    for session in sessions.values():
        session.run(None, {"image": picture})
    for _ in range(ROUNDS):
        for name, session in sessions.items():
            started, count = time.perf_counter(), 0
            while time.perf_counter() < started + ROUND_S:
                session.run(None, {"image": picture})
                count += 1
            measured[name].append(count / (time.perf_counter() - started))
    return measured


def measure(name: str, size: int, folder: Path) -> dict[str, Any]:
    """Of each half of the photographs calibrated on and the other judged on; speed of the first."""
    files = {variant: folder / f"{name}.{variant}.onnx" for variant in ("fp32", "fp16", "int8")}
    spec = NETWORKS[name](files["fp32"], size)
    graph = onnx.load(files["fp32"])
    folds, measured = [], dict[str, list[float]]()
    for fold in (0, 1):
        feeds = [{"image": row} for row in rows(photographs()[fold::2], spec)[0]]
        halve(graph, files["fp16"], feeds)
        quantize(graph, files["int8"], feeds)
        judged = pieces(photographs()[1 - fold :: 2], spec, PIECES, seed=1)
        full = best(files["fp32"], judged)
        alike = {variant: float((best(files[variant], judged) == full).mean()) for variant in ("fp16", "int8")}
        folds.append({"classes": len(set(full.tolist())), "top1_agreement": alike})
        measured = measured or rates(files, judged[:1])
    medians = {variant: statistics.median(values) for variant, values in measured.items()}
    return {
        "bytes": {variant: file.stat().st_size for variant, file in files.items()},
        "images_per_s": {variant: [round(value, 2) for value in values] for variant, values in measured.items()},
        "speed": {variant: round(median / medians["fp32"], 2) for variant, median in medians.items()},
        "folds": folds,
    }


NETWORKS = {"resnet18": resnet18, "lite0": lite0}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=NETWORKS)
    parser.add_argument("--size", type=int, default=300, help="of ResNet-18's pictures")
    given = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in [given.only] if given.only else NETWORKS:
            found[name] = measure(name, given.size, Path(folder))
            print(json.dumps({name: found[name]}, indent=1), flush=True)
    missed = []
    if "resnet18" in found and (faster := found["resnet18"]["speed"]["int8"]) < FASTER:
        missed.append(f"resnet18: int8 {faster} times fp32's images/s, wanted {FASTER}")
    if "lite0" in found and (alike := min(fold["top1_agreement"]["int8"] for fold in found["lite0"]["folds"])) < ALIKE:
        missed.append(f"lite0: int8 agrees with fp32 on {alike:.1%}, wanted {ALIKE:.0%}")
    document = {
        "machine": machine(),
        "versions": {**versions(), "onnxruntime": onnxruntime.__version__},
        "threads": 1,
        "size": given.size,
        "pieces": PIECES,
        "networks": found,
        "missed": missed,
    }
    RESULT.write_text(f"{json.dumps(document, indent=1)}\n")
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
