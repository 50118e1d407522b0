"""Drives a gRPC unary method with h2load, an HTTP/2 load generator in C that no server under test shares code with.

h2load sees HTTP status only, so every run also checks that all answers together have the size that one good answer foretells.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

INFER = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of h2load saw; times in milliseconds."""

    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    answer_bytes: int  # data frames of all answers, in total


def run(address: str, message: bytes, *, concurrency: int, requests: int, path: str = INFER) -> Load:
    """Sends one serialized request `requests` times over `concurrency` connections, one in flight on each.

    Raises RuntimeError when h2load is missing, or when any request failed.
    """
    if shutil.which("h2load") is None:
        raise RuntimeError("h2load is not installed; on Debian: apt-get install nghttp2-client")
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        body.write_bytes(struct.pack(">BI", 0, len(message)) + message)  # gRPC's five-byte frame
        done = subprocess.run(
            [
                *("h2load", "-n", str(requests), "-c", str(concurrency), "-m", "1", "-d", str(body), f"--log-file={log}"),
                *("-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{address}{path}"),
            ],
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        took_us = np.array([int(line.split("\t")[2]) for line in log.read_text().splitlines()])
    succeeded = re.search(r"(\d+) succeeded", done.stdout)
    rate = re.search(r"([\d.]+) req/s", done.stdout)
    data = re.search(r"\((\d+)\) data", done.stdout)
    if not (succeeded and rate and data) or int(succeeded[1]) != requests:
        raise RuntimeError(f"h2load: not every request succeeded:\n{done.stdout}")
    p50, p99 = np.percentile(took_us, [50, 99]) / 1000
    return Load(requests, float(rate[1]), float(p50), float(p99), int(data[1]))
