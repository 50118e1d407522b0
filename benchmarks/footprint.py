"""How light tensign is: import time, time until the demo model is ready, resident memory of its server.

    python benchmarks/footprint.py [PYTHON ...]    # seconds; medians of five; of this environment, and others to compare

Ready and memory are of `tensign serve` on CPU with the bundled EfficientNet-Lite0: from exec to its ready line, and VmRSS
after a hundred pictures over a stream. It resizes pictures: where numba is installed that is compiled before it is ready.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tensign.client import Client
from tensign.demo import MODEL
from tensign.proof.samples import photographs

ROUNDS = 5


def import_seconds(module: str) -> float:
    """What `import module` adds to a bare interpreter."""

    def took(program: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True)
        return time.perf_counter() - started

    return statistics.median(took(f"import {module}") - took("pass") for _ in range(ROUNDS))


def ready_and_memory(python: str) -> tuple[float, float]:
    """(seconds until ready, MB resident) in an environment."""
    started = time.perf_counter()
    command = [python, "-m", "tensign", "serve", str(MODEL), "--grpc-port", "0", "--device", "cpu"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = re.search(r"grpc://(\S+)", server.stdout.readline())
    assert address is not None
    ready = time.perf_counter() - started
    with Client(address[1]) as client:
        for _ in client.stream(photographs() * 13):
            pass
    status = Path(f"/proc/{server.pid}/status").read_text()
    resident = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert resident is not None
    server.terminate()
    server.wait()
    server.stdout.close()
    return ready, int(resident[1]) / 1000


def main() -> None:
    for module in ("tensign", "tensign.signature", "tensign.client"):
        print(f"import {module:20} {import_seconds(module):.3f} s")
    for python in sys.argv[1:] or [sys.executable]:
        ready, resident = zip(*(ready_and_memory(python) for _ in range(ROUNDS)), strict=True)
        print(f"{python}: demo model ready in {statistics.median(ready):.2f} s, resident {statistics.median(resident):.0f} MB")


if __name__ == "__main__":
    main()
