"""How long a conversion takes and what memory: python benchmarks/conversion.py [--size 300] [--network resnet18] [--rounds 3].

A real fastai Learner is exported into an MLmodel directory, then `python -m tensign_converters` runs as `tensign convert` runs
it: a process of its own, start to end, imports included. In turn with it, as the limit on this machine at this moment, a
process that does nothing but import torch and export the same network by torch.onnx.export. Once more with the 200 pieces of
photographs, each of which both networks answer. Ends with status 1 where the conversion, its proof of whole photographs
included, takes more than 10 s and more than 1.25 times the bare export, or either conversion more than 1.5 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from tensign.conversion import CROPS

SECONDS, RATIO, GIGABYTES = 10.0, 1.25, 1.5
BARE = """
import sys, torch, torchvision
network = getattr(torchvision.models, sys.argv[1])(weights=None).eval()
rows = ({0: torch.export.Dim("rows")},)
given = (torch.zeros(2, 3, int(sys.argv[2]), int(sys.argv[2])),)
torch.onnx.export(network, given, sys.argv[3], dynamic_shapes=rows, dynamo=True, opset_version=20, verbose=False)
"""


def make(target: Path, network: str, size: int) -> None:
    """An MLmodel directory as mlflow.fastai wrote it, random weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import fastai
        from fastai.vision import all as vision

        pictures = [np.zeros((size, size, 3), np.uint8)] * 4
        block = vision.DataBlock(
            (vision.ImageBlock, vision.CategoryBlock(["cat", "dog"])),
            get_y=lambda _: "cat",
            splitter=vision.IndexSplitter([0]),
            item_tfms=vision.Resize(size),
            batch_tfms=[*vision.aug_transforms(), vision.Normalize.from_stats(*vision.imagenet_stats, cuda=False)],
        )
        loaders = block.dataloaders(pictures, bs=2, num_workers=0, device="cpu")
        learner = vision.vision_learner(loaders, getattr(vision, network), pretrained=False)
        target.mkdir()
        learner.export((target / "model.fastai").resolve())

    def part(dtype: str, shape: list[int]) -> str:
        return json.dumps([{"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}])

    document = {
        "flavors": {"fastai": {"data": "model.fastai", "fastai_version": fastai.__version__}},
        "signature": {"inputs": part("uint8", [-1, size, size, 3]), "outputs": part("float32", [-1, 2])},
    }
    (target / "MLmodel").write_text(yaml.safe_dump(document))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    bare, whole = list[Run](), list[Run]()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        make(source, given.network, given.size)
        for number in range(given.rounds):
            target = str(Path(folder, "bare.onnx"))
            bare.append(timed([sys.executable, "-W", "ignore", "-c", BARE, given.network, str(given.size), target]))
            whole.append(converted(source, Path(folder, str(number)), 0))
        proved = converted(source, Path(folder, "proved"), CROPS)
    print(f"{given.network} {given.size}x{given.size}")
    for name, runs in (("torch.onnx.export alone", bare), ("convert, 0 crops", whole), (f"convert, {CROPS} crops", [proved])):
        seconds = ", ".join(f"{run.seconds:.1f}" for run in runs)
        print(f"{name:24} {seconds} s ({median(runs, 'busy'):.1f} s of processor time), {median(runs, 'gigabytes'):.2f} GB")
    took, ratio = median(whole, "seconds"), median(whole, "seconds") / median(bare, "seconds")
    print(f"median {took:.1f} s, {ratio:.2f} of the bare export; wanted: {SECONDS:g} s or {RATIO:g}, and {GIGABYTES:g} GB")
    runs = [*bare, *whole, proved]
    failed = any(run.status != 0 for run in runs) or max(run.gigabytes for run in [*whole, proved]) > GIGABYTES
    return int(failed or (took > SECONDS and ratio > RATIO))


@dataclass(frozen=True)
class Run:
    """One process: seconds by the clock and of the processor, and the most memory of one of its processes."""

    status: int
    seconds: float
    busy: float
    gigabytes: float


def median(runs: Sequence[Run], figure: str) -> float:
    return float(statistics.median(getattr(run, figure) for run in runs))


def converted(source: Path, target: Path, crops: int) -> Run:
    command = [sys.executable, "-P", "-W", "ignore", "-m", "tensign_converters", f"--crops={crops}", "--"]
    return timed([*command, str(source), str(target)])


def timed(command: Sequence[str]) -> Run:
    """What it prints is its own."""
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    return Run(child.returncode, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6)


if __name__ == "__main__":
    sys.exit(main())
