"""tensign beside every server that serves the same models, under the same load from outside.

    python benchmarks/rivals.py [--servers tensign Triton ...] [--loads mean-1 ...] [--rounds 5] [--seconds 3]

Each server runs in an environment of its own (benchmarks/compare/requirements, made at first: minutes, 3 GB), on the same
CPUs, from the same ONNX graph, and has one answer checked before it is loaded. h2load, a C program, sends the same pictures to
one server after the other, round by round. A server that cannot run here is skipped by name. Figures, a table and pictures:
benchmarks/results/rivals.*; all of it takes about an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

from compare import kserve, mlflow, mlserver, noop_grpc, picture, table, tensign, triton
from compare.campaign import Settings, measured
from compare.loads import LOADS
from tensign.bench.machine import machine, versions

RESULTS = Path(__file__).parent / "results"
RIVALS = (
    tensign.TENSIGN,
    noop_grpc.AIO,
    noop_grpc.THREADS,
    triton.TRITON,
    kserve.KSERVE,
    mlserver.MLSERVER,
    mlflow.MLFLOW,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", nargs="+", choices=[rival.name for rival in RIVALS], metavar="NAME")
    parser.add_argument("--loads", nargs="+", choices=[load.name for load in LOADS], metavar="NAME")
    parser.add_argument("--concurrency", nargs="+", type=int, default=[1, 4, 16, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--cpus", type=int, help="of every server; the load generator gets the others. Default: all, shared")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder that the figures go to")
    asked = parser.parse_args()
    if shutil.which("h2load") is None:
        parser.error("h2load is not installed; on Debian: apt-get install nghttp2-client")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which ends the servers
    every = tuple(sorted(os.sched_getaffinity(0)))
    cpus = every[: asked.cpus]
    settings = Settings(tuple(asked.concurrency), asked.rounds, asked.seconds, cpus, every[len(cpus) :] or cpus)
    rivals = [rival for rival in RIVALS if not asked.servers or rival.name in asked.servers]
    loads = [load for load in LOADS if not asked.loads or load.name in asked.loads]
    document = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": versions(),
        "settings": asdict(settings),
        "loads": measured(rivals, loads, settings, RESULTS.resolve() / "scratch" / "rivals"),
    }
    asked.results.mkdir(parents=True, exist_ok=True)
    (asked.results / "rivals.json").write_text(json.dumps(document, indent=1) + "\n")
    (asked.results / "rivals.md").write_text(text := table.markdown(document))
    picture.draw(document, asked.results / "rivals.svg", asked.results / "rivals-stages.svg")
    print(text)


if __name__ == "__main__":
    main()
