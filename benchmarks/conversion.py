"""How long a conversion takes and what memory: python benchmarks/conversion.py [--size 300] [--network resnet18].

A real fastai Learner is exported into an MLmodel directory, then `python -m tensign_converters` runs as `tensign convert` runs
it: a process of its own, start to end, imports and proof included. Ends with status 1 beyond 10 s or 1.5 GB.
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
from pathlib import Path

import numpy as np
import yaml

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
        started = time.perf_counter()
        command = [sys.executable, "-P", "-W", "ignore", "-m", "tensign_converters", "--", str(source), f"{folder}/converted"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert child.stdout is not None
        said = child.stdout.read()
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
    gigabytes, busy = used.ru_maxrss / 1e6, used.ru_utime + used.ru_stime
    print(said.strip())
    print(
        f"{given.network} {given.size}x{given.size}: {seconds:.1f} s of {SECONDS:g} ({busy:.1f} s of processor time),"
        f" {gigabytes:.2f} GB of {GIGABYTES:g}"
    )
    return int(child.returncode != 0 or seconds > SECONDS or gigabytes > GIGABYTES)


if __name__ == "__main__":
    sys.exit(main())
