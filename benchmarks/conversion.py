"""How long a conversion takes and what memory: python benchmarks/conversion.py [--size 300] [--network resnet18].

A real fastai Learner is exported into an MLmodel directory, then `python -m tensign_converters` runs as `tensign convert` runs
it: a process of its own, start to end, imports included. Once with a proof of whole photographs alone, once with its 200 pieces
of them besides, each of which both networks answer. Ends with status 1 where the first takes 10 s or either 1.5 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from tensign.conversion import CROPS

SECONDS, GIGABYTES = 10.0, 1.5


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
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        make(source, given.network, given.size)
        runs = [converted(source, Path(folder, str(crops)), crops) for crops in (0, CROPS)]
    for crops, run in zip((0, CROPS), runs, strict=True):
        print(
            f"{given.network} {given.size}x{given.size}, {crops} crops: {run.seconds:.1f} s ({run.busy:.1f} s of processor"
            f" time), {run.gigabytes:.2f} GB of {GIGABYTES:g}"
        )
    print(f"wanted: {SECONDS:g} s without crops")
    failed = any(run.status != 0 or run.gigabytes > GIGABYTES for run in runs)
    return int(failed or runs[0].seconds > SECONDS)


@dataclass(frozen=True)
class Run:
    """One conversion: seconds by the clock and of the processor, and the most memory of one of its processes."""

    status: int
    seconds: float
    busy: float
    gigabytes: float


def converted(source: Path, target: Path, crops: int) -> Run:
    """Prints what the converter reports."""
    started = time.perf_counter()
    command = [sys.executable, "-P", "-W", "ignore", "-m", "tensign_converters", f"--crops={crops}", "--"]
    child = subprocess.Popen([*command, str(source), str(target)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert child.stdout is not None
    print(child.stdout.read().strip())
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    return Run(child.returncode, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6)


if __name__ == "__main__":
    sys.exit(main())
