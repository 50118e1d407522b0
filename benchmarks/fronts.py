"""Which transport takes requests of 270 kB fastest? None of these servers looks at a byte or computes anything.

    python benchmarks/fronts.py [--rounds 5] [--seconds 2]    # five minutes; what follows from it: benchmarks/FRONTS.md

grpcio's servers as they are, with what it offers to set, on another event loop, on one CPU; HTTP/1.1 by uvicorn; HTTP/2
by granian, whose transport is Rust (hyper) and whose handlers are Python. Load comes from h2load; rounds alternate.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import h2load
from compare.rival import INSIDE
from compare.server import Unavailable, free_ports, made
from h2load import Load, Request, grpc_request
from tensign.bench.machine import machine, versions
from transport import message, noop_process

RESULTS = Path(__file__).parent / "results" / "fronts.json"
CONCURRENCY = (1, 4, 16, 32)
GRPCIO = {
    "grpcio, threads": ("threads", "--raw"),
    "grpcio, asyncio": ("aio", "--raw"),
    "grpcio, asyncio, buffers kept": ("aio", "--raw", "--tuned"),
    "grpcio, asyncio, uvloop": ("aio", "--raw", "--uvloop"),
    "grpcio, asyncio, frames and windows of 1 MiB": ("aio", "--raw", "--large"),
    "grpcio, asyncio, one CPU": ("aio", "--raw", "--one-cpu"),
}


@contextlib.contextmanager
def command(*arguments: object, ready: str) -> Iterator[None]:
    """Runs a server until the block ends; ready: what its output says once it listens."""
    environment = {**os.environ, "PYTHONPATH": str(INSIDE)}
    process = subprocess.Popen(
        list(map(str, arguments)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        if not any(ready in line for line in process.stdout):
            raise RuntimeError(f"{arguments[0]} ended with {process.wait()}")
        yield
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    asked = parser.parse_args()
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    call = grpc_request(message(270_000))
    targets: dict[str, tuple[str, Request]] = {}
    seen: dict[tuple[str, int], list[Load]] = {}
    with contextlib.ExitStack() as stack:
        for name, arguments in GRPCIO.items():
            address, _ = stack.enter_context(noop_process(*arguments))
            targets[name] = address, call
        first, second = free_ports(2)
        uvicorn = (sys.executable, "-m", "uvicorn", "http_noop:asgi", "--http", "httptools", "--loop", "uvloop")
        stack.enter_context(command(*uvicorn, "--port", first, "--no-access-log", ready="running on"))
        targets["uvicorn, HTTP/1.1"] = f"127.0.0.1:{first}", Request(call.path, call.body, (), http1=True)
        try:
            granian = (made("granian") / "bin" / "granian", "http_noop:rsgi", "--interface", "rsgi", "--http", "2")
            stack.enter_context(command(*granian, "--port", second, "--no-access-log", ready="Started worker"))
            targets["granian, HTTP/2"] = f"127.0.0.1:{second}", call
        except Unavailable as reason:
            print(f"granian takes no part: {reason}")
        for number in range(asked.rounds + 1):
            for concurrency in CONCURRENCY:
                for name, (address, request) in targets.items():
                    load = h2load.timed(
                        address, request, concurrency=concurrency, seconds=asked.seconds, answer_bytes=1, cpus=cpus
                    )
                    if number:  # the first round warms up
                        seen.setdefault((name, concurrency), []).append(load)
    figures = {
        name: {level: statistics.median(load.requests_per_s for load in seen[name, level]) for level in CONCURRENCY}
        for name in targets
    }
    print(
        f"{'requests/s of 270 kB, ' + str(asked.rounds) + ' rounds, at':48}" + "".join(f"{level:>8}" for level in CONCURRENCY)
    )
    for name, row in figures.items():
        print(f"{name:48}" + "".join(f"{rate:8.0f}" for rate in row.values()))
    document = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions(), "requests_per_s": figures}
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
