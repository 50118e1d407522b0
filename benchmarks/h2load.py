"""Drives a server with h2load, an HTTP/2 and HTTP/1.1 load generator in C that no server under test shares code with.

h2load sees HTTP status only: a gRPC failure is 200 and no data. So the data of all answers together is compared with the size
that one good answer foretells, wherever that is known.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

INFER = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of h2load saw; times in milliseconds, NaN where nothing was answered."""

    requests: int
    requests_per_s: float
    mean_ms: float
    p50_ms: float
    p99_ms: float
    answer_bytes: int  # data frames of all answers, in total


@dataclass(frozen=True, slots=True)
class Request:
    """The one request that is sent again and again."""

    path: str
    body: bytes
    headers: tuple[str, ...]
    http1: bool = False


def grpc_request(message: bytes, path: str = INFER) -> Request:
    """A unary call with a serialized message, in gRPC's five-byte frame."""
    frame = struct.pack(">BI", 0, len(message)) + message
    return Request(path, frame, ("content-type: application/grpc", "te: trailers"))


def run(address: str, message: bytes, *, concurrency: int, requests: int, path: str = INFER) -> Load:
    """Sends one serialized gRPC request `requests` times over `concurrency` connections, one in flight on each.

    Raises RuntimeError when h2load is missing, or when any request failed.
    """
    extent = ["-n", str(requests), "-m", "1"]
    load = _drive(address, grpc_request(message, path), concurrency, extent, limit_s=300)
    if load.requests != requests:
        raise RuntimeError(f"h2load: {load.requests} of {requests} requests succeeded")
    return load


def timed(
    address: str,
    request: Request,
    *,
    concurrency: int,
    seconds: float,
    answer_bytes: int,
    cpus: Sequence[int],
    in_flight: int = 1,
) -> Load:
    """Sends one request for so many seconds over `concurrency` connections, `in_flight` at once on each, from those CPUs.

    answer_bytes: of one good answer's data. Raises RuntimeError when h2load is missing or hangs, or where an answer was
    of another size.
    """
    prefix = ["taskset", "-c", ",".join(map(str, cpus))]
    extent = ["-D", f"{seconds * 1000:.0f}ms", "-m", str(in_flight)]
    load = _drive(address, request, concurrency, extent, limit_s=seconds + 60, prefix=prefix)
    if load.answer_bytes < load.requests * answer_bytes:
        raise RuntimeError(f"{load.requests} answers have {load.answer_bytes} bytes of data, not {answer_bytes} each")
    return load


def _drive(
    address: str, request: Request, concurrency: int, extent: list[str], *, limit_s: float, prefix: Sequence[str] = ()
) -> Load:
    if shutil.which("h2load") is None:
        raise RuntimeError("h2load is not installed; on Debian: apt-get install nghttp2-client")
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        body.write_bytes(request.body)
        command = [*prefix, "h2load", *extent, "-c", str(concurrency), "-d", str(body), f"--log-file={log}"]
        command += ["--h1"] if request.http1 else []
        for header in request.headers:
            command += ["-H", header]
        try:
            done = subprocess.run(
                [*command, f"http://{address}{request.path}"], capture_output=True, text=True, timeout=limit_s
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"h2load was not done after {limit_s:g} s") from None
        took_us = np.array([int(line.split("\t")[2]) for line in log.read_text().splitlines()])
    counts = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
    rate = re.search(r"([\d.]+) req/s", done.stdout)
    data = re.search(r"\((\d+)\) data", done.stdout)
    if done.returncode or not (counts and rate and data) or int(counts[1]) != int(counts[2]):
        raise RuntimeError(f"h2load: not every request succeeded:\n{done.stdout}{done.stderr}")
    mean, p50, p99 = np.array([took_us.mean(), *np.percentile(took_us, [50, 99])]) / 1000 if len(took_us) else [np.nan] * 3
    return Load(int(counts[2]), float(rate[1]), float(mean), float(p50), float(p99), int(data[1]))
