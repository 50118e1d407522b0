"""How light tensign is: import time, time until the demo model is ready, resident memory of its server.

    python benchmarks/footprint.py            # seconds; medians of five

Ready and memory are of `tensign serve` on CPU with the bundled EfficientNet-Lite0: from exec to its ready line, and VmRSS
after a hundred pictures over a stream.
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


def ready_and_memory() -> tuple[float, float]:
    """(seconds until ready, MB resident)."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "tensign", "serve", str(MODEL), "--grpc-port", "0", "--device", "cpu"]
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
    ready, resident = zip(*(ready_and_memory() for _ in range(ROUNDS)), strict=True)
    print(f"demo model ready      {statistics.median(ready):.2f} s")
    print(f"resident after load   {statistics.median(resident):.0f} MB")


if __name__ == "__main__":
    main()
