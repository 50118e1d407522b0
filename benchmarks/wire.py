"""What it costs to get one raw picture of 270 kB out of the network: reading its message, and where its bytes are put.

    python benchmarks/wire.py                 # half a minute; results/wire.json

reading: `ModelInferRequest.FromString`, which copies the picture, beside `tensign.rpc.wire.received`, which does not.
buffers: no-op grpcio servers as they are, and with what `tensign serve` asks of its process: requests/s, page faults a request
and seconds of a core. Load comes from h2load; rounds alternate; figures are medians.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h2load
from tensign._pb import open_inference_pb2 as pb
from tensign.rpc.wire import received
from transport import message, noop_process

RESULTS = Path(__file__).parent / "results"
ROUNDS, READS, REQUESTS = 5, 300, 2000
SIZES = {"30 kB": 30_000, "270 kB": 270_000, "2.2 MB": 8 * 270_000}
SERVERS = {"as it is": ("aio", "--raw"), "tuned": ("aio", "--raw", "--tuned")}


def reading() -> dict[str, dict[str, float]]:
    """Microseconds for one message of each size."""
    ways = {"protobuf": pb.ModelInferRequest.FromString, "tensign": received}
    contents = {size: message(count) for size, count in SIZES.items()}
    seen: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for size, content in contents.items():
            for name, read in ways.items():
                began = time.perf_counter()
                for _ in range(READS):
                    read(content)
                seen.setdefault((size, name), []).append((time.perf_counter() - began) / READS * 1e6)
    return {size: {name: statistics.median(seen[size, name]) for name in ways} for size in SIZES}


def buffers() -> dict[str, dict[str, float]]:
    """Of each server, one request in flight and sixteen."""
    body = message(270_000)
    seen: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(noop_process(*arguments)) for name, arguments in SERVERS.items()}
        for number in range(ROUNDS + 1):
            for concurrency in (1, 16):
                for name, (address, pid) in servers.items():
                    faults, seconds = _spent(pid)
                    load = h2load.run(address, body, concurrency=concurrency, requests=REQUESTS)
                    more, later = _spent(pid)
                    if number:  # the first round warms up
                        figures = load.requests_per_s, (more - faults) / REQUESTS, (later - seconds) / REQUESTS * 1e6
                        seen.setdefault((name, concurrency), []).append(figures)
    names = ("requests_per_s", "faults", "core_us")
    return {
        f"{name}, {concurrency} in flight": dict(zip(names, map(statistics.median, zip(*runs, strict=True)), strict=True))
        for (name, concurrency), runs in seen.items()
    }


def _spent(pid: int) -> tuple[int, float]:
    """Minor page faults and seconds of processors so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[7]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    report: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "rounds": ROUNDS}
    report["reading_us"] = reading()
    print("reading a message, microseconds")
    for size, row in report["reading_us"].items():
        print(f"{size:>8}   protobuf {row['protobuf']:7.1f}   tensign {row['tensign']:7.1f}")
    report["buffers"] = buffers()
    print("no-op servers, 270 kB a request")
    for name, row in report["buffers"].items():
        print(f"{name:>24}{row['requests_per_s']:8.0f}/s{row['faults']:8.1f} page faults{row['core_us']:8.0f} us of a core")
    (RESULTS / "wire.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
