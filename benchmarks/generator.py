"""Can `tensign bench` be trusted? Its rates beside h2load's, its open loop beside the arithmetic of a queue.

    python benchmarks/generator.py [h2load queue]       # two minutes; benchmarks/results/generator.json is renewed

h2load: requests/s and p50 of both generators, closed loop on the same server with the same 270 kB message, alternating rounds;
a no-op server, where the generator itself costs as much as what it measures, and a model's.
queue: a server of 10 ms a request, Poisson arrivals. What each request should have taken follows from the arrivals; the rest is
what generator, gRPC and the machine add.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import h2load
import models
import transport
from served import request
from tensign.bench.arrivals import poisson
from tensign.bench.course import Course
from tensign.bench.load import Load
from tensign.bench.machine import machine, versions
from tensign.bench.report import Report
from tensign.bench.session import run
from tensign.child import served
from tensign.client import AsyncClient

RESULT = Path(__file__).parent / "results" / "generator.json"
ROUNDS, REQUESTS = 5, 1500
SERVICE_MS = 10.0


def measured(address: str, message: bytes, load: Load) -> Report:
    """One run against a server that need not tell anything of itself."""

    async def nothing() -> list[Any]:
        return []

    async def work() -> Report:
        async with AsyncClient(address, retries=0) as client:
            course = Course(client, load, [message])
            await course.run(nothing, asyncio.Event(), lambda share: None)
        return course.report(address, None)

    return run(work())


def beside_h2load() -> dict[str, Any]:
    message = request("mean")
    found: dict[str, Any] = {}
    print(
        f"\n270 kB a request, requests/s (p50 ms), medians of {ROUNDS} alternating rounds; the ratio's spread over the rounds"
    )
    print(f"{'server':>8}{'in flight':>11}{'h2load':>18}{'tensign bench':>18}   ratio")
    with transport.noop("aio") as noop, served(models.make("mean"), "--device", "cpu") as mean:
        for name, address in (("no-op", noop), ("mean", mean)):
            for concurrency in (1, 4, 16):
                theirs, ours = [], []
                for number in range(ROUNDS + 1):
                    load = Load(concurrency=concurrency, requests=REQUESTS, warmup_s=0, warmup_requests=20)
                    pair = (
                        h2load.run(address, message, concurrency=concurrency, requests=REQUESTS),
                        measured(address, message, load),
                    )
                    if number:  # the first round warms up
                        theirs.append(pair[0])
                        ours.append(pair[1])
                ratios = [own.answered_per_s / their.requests_per_s for own, their in zip(ours, theirs, strict=True)]
                row: dict[str, Any] = {
                    "h2load_per_s": statistics.median(one.requests_per_s for one in theirs),
                    "h2load_p50_ms": statistics.median(one.p50_ms for one in theirs),
                    "bench_per_s": statistics.median(one.answered_per_s for one in ours),
                    "bench_p50_ms": statistics.median(one.latency.p50 or 0.0 for one in ours),
                    "bench_cores": statistics.median(one.generator.cores for one in ours),
                    "ratio": [statistics.median(ratios), min(ratios), max(ratios)],
                }
                found[f"{name} {concurrency}"] = row
                cells = "".join(f"{row[f'{who}_per_s']:10.0f} ({row[f'{who}_p50_ms']:5.2f})" for who in ("h2load", "bench"))
                median, low, high = row["ratio"]
                print(f"{name:>8}{concurrency:>11}{cells}   {median:.2f} ({low:.2f} .. {high:.2f})", flush=True)
    return found


def beside_a_queue() -> dict[str, Any]:
    found: dict[str, Any] = {}
    print(f"\none server, {SERVICE_MS:g} ms a request, open loop; ms: formula, these arrivals' own, measured")
    print(f"{'load':>6}{'mean':>27}{'p99':>18}{'median excess':>15}{'late sends p99':>16}")
    with queue_server() as address:
        measured(address, request("m"), Load(requests=20))
        for load in (0.05, 0.5, 0.8, 0.9):
            rate = load * 1000 / SERVICE_MS
            count = max(100, int(rate * 15))
            report = measured(address, request("m"), Load(rate=rate, requests=count, warmup_s=0, seed=1))
            exact = sojourns_ms(rate, count, seed=1)
            formula = SERVICE_MS * (1 + load / (2 * (1 - load)))
            row: dict[str, Any] = {
                "mean_ms": [formula, float(exact.mean()), report.latency.mean],
                "p99_ms": [float(np.percentile(exact, 99)), report.latency.p99],
                "excess_ms": float(np.median(np.sort(report.latencies_ms) - np.sort(exact))),
                "late_p99_ms": report.generator.late_p99_ms,
            }
            found[f"{load}"] = row
            mean = " ".join(f"{value:8.2f}" for value in row["mean_ms"])
            p99 = " ".join(f"{value:8.2f}" for value in row["p99_ms"])
            print(f"{load:>6}{mean:>27}{p99:>18}{row['excess_ms']:>15.2f}{row['late_p99_ms']:>16.2f}", flush=True)
    return found


def sojourns_ms(rate: float, count: int, seed: int) -> Any:
    """[count] ms that each of these arrivals spends in queue and service."""
    due = np.array(list(itertools.islice(poisson(rate, seed), count))) * 1000
    turn = SERVICE_MS * np.arange(count)
    return turn + np.maximum.accumulate(due - turn) + SERVICE_MS - due


@contextmanager
def queue_server() -> Iterator[str]:
    """A process of its own; yields its address."""
    command = [sys.executable, str(Path(__file__).with_name("queue_server.py")), "--ms", str(SERVICE_MS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def main() -> None:
    chosen = sys.argv[1:] or ["h2load", "queue"]
    runs = {"h2load": beside_h2load, "queue": beside_a_queue}
    kept: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    kept |= {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions()}
    for name in chosen:
        kept[name] = runs[name]()
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
