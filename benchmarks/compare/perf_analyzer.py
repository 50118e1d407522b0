"""Triton's own load generator, for a second opinion: of those servers that tell it what the model is (ModelConfig).

Version 2.41 out of an older tritonclient's wheel, which still runs on Debian 12; it wants two libraries besides.
"""

from __future__ import annotations

import csv
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from compare.server import Unavailable, made

_LIMIT_S = 120
_MEMORY_BYTES = 6_000_000_000  # it keeps every request, and grew to 22 GB once


@dataclass(frozen=True, slots=True)
class PerfAnalyzer:
    """The program and where its libraries are."""

    program: Path
    libraries: str

    @classmethod
    def installed(cls) -> PerfAnalyzer:
        """Raises Unavailable."""
        home = made("perf_analyzer")
        debian = home / "debian"
        try:
            if not debian.exists():
                with tempfile.TemporaryDirectory() as folder:
                    _do("apt-get", "download", "-q", "libb64-0d", within=folder)
                    _do("dpkg-deb", "-x", *map(str, Path(folder).glob("*.deb")), str(debian), within=folder)
        except (OSError, subprocess.SubprocessError) as error:
            raise Unavailable(f"the library libb64 of Debian is not to be had: {error}") from None
        libraries = [*debian.glob("usr/lib/*/libb64.so.*"), *home.glob("lib/python*/site-packages/nvidia/*/lib/libcudart.so.*")]
        return cls(home / "bin" / "perf_analyzer", ":".join(str(file.parent) for file in libraries))

    def run(self, address: str, *, rows: int, concurrency: int, requests: int) -> dict[str, float]:
        """rows_per_s and p50_ms of so many requests of made-up rows. Raises RuntimeError where it gives no figure."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "figures.csv")
            command = [
                *("prlimit", f"--as={_MEMORY_BYTES}", str(self.program), "-m", "m", "-i", "grpc", "-u", address),
                *("-b", str(rows), "--concurrency-range", str(concurrency), "--measurement-mode", "count_windows"),
                *("--measurement-request-count", str(requests), "-s", "999", "-r", "3", "-f", str(file)),
            ]
            environment = {"LD_LIBRARY_PATH": self.libraries}
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, env=environment)
            except subprocess.TimeoutExpired:
                raise RuntimeError(f"perf_analyzer was not done after {_LIMIT_S} s") from None
            if not file.exists():
                raise RuntimeError(" ".join((done.stdout + done.stderr).split())[-200:])
            with file.open() as lines:
                (figures,) = csv.DictReader(lines)
        return {"rows_per_s": float(figures["Inferences/Second"]), "p50_ms": float(figures["p50 latency"]) / 1000}


def _do(*command: str, within: str) -> None:
    subprocess.run(command, check=True, cwd=within, capture_output=True, timeout=_LIMIT_S)
