"""The limit of every server: the same model on the same CPUs, called in a loop, with no server around it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from compare.loads import Load
from compare.rival import INSIDE


def rows_per_s(load: Load, seconds: float, cpus: Sequence[int]) -> float:
    """Of a process of its own. Raises RuntimeError where it fails or hangs."""
    with tempfile.TemporaryDirectory() as folder:
        sent = Path(folder, "pictures.npy")
        np.save(sent, load.pictures, allow_pickle=True)
        command = [
            *("taskset", "-c", ",".join(map(str, cpus)), sys.executable, str(INSIDE / "bare.py")),
            *(str(load.path / "model.onnx"), str(sent), str(seconds)),
        ]
        try:
            done = subprocess.run(
                command, env={"MODEL_THREADS": str(len(cpus))}, capture_output=True, text=True, timeout=seconds + 60
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"the model in process was not done after {seconds + 60:g} s") from None
    if done.returncode:
        raise RuntimeError(f"the model in process failed: {done.stderr[-300:]}")
    return float(done.stdout)
