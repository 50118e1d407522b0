"""Every row accounted for, and a server that holds no more after an hour than before.

    python -m tests.soak [identity|core|flatness|streams ...] [--seed N]   # four and a half minutes; the parts that were
                                                                           # run are renewed in benchmarks/results/soak.json

identity: a million rows from 32 clients over gRPC, split, cancelled, expired, streamed, with bad requests in between.
core: the same into the batcher alone, from 32 threads. flatness: an hour's requests, good and bad, compressed.
streams: a thousand streams for a minute beside ten at the same rate, their answers, p99 and the server's memory.
The seed fixes what is sent, not when: give it again to see a failure again.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tensign.child import served

from . import core, flatness, hour, load, models, streams

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "soak.json"
PARTS = ("identity", "core", "flatness", "streams")


def identity(seed: int, rows: int) -> tuple[dict[str, Any], list[str]]:
    """The figures, and what is wrong."""
    with tempfile.TemporaryDirectory() as folder, served(models.identity(Path(folder)), "--device", "cpu") as address:
        plan = load.Load(address, seed, rows, largest=load.largest_batch(address))
        started = time.perf_counter()
        book = load.run(plan)
        seconds = time.perf_counter() - started
        counted = load.statistics(address)
    figures = {
        "seed": seed,
        "seconds": round(seconds, 1),
        "clients": plan.clients,
        "largest_batch": plan.largest,
        "rows": dict(book.rows),
        "requests": dict(book.requests),
        "rows_run": counted.inference_count,
        "mean_batch": round(counted.inference_count / counted.execution_count, 1),
    }
    return figures, load.troubles(plan, book, counted)


def straight(seed: int, rows: int) -> tuple[dict[str, Any], list[str]]:
    started = time.perf_counter()
    book = core.run(seed, rows)
    seconds = round(time.perf_counter() - started, 1)
    return {"seed": seed, "seconds": seconds, "rows": dict(book.rows), "requests": dict(book.requests)}, book.troubles()


def flat(seed: int, requests: int) -> tuple[dict[str, Any], list[str]]:
    plan = flatness.Plan(seed, requests=-(-requests // flatness.ROUNDS))
    with tempfile.TemporaryDirectory() as folder:
        report = flatness.run(plan, models.identity(Path(folder)), models.colours(Path(folder)))
    figures = {
        "seed": seed,
        "seconds": round(report.seconds, 1),
        "requests": report.seen.total(),
        "by_kind": dict(report.seen),
        "growth": report.growth(),
        "tolerance": flatness.TOLERANCE,
        "most_while_busy": {kind: max(sample[kind] for sample in report.busy) for kind in flatness.TOLERANCE},
        "at_rest": report.rest,
    }
    return figures, report.troubles()


def thousand(seed: int, seconds: int) -> tuple[dict[str, Any], list[str]]:
    plans = [streams.Plan(seed, streams=streams.FEW, seconds=seconds / 2), streams.Plan(seed, seconds=seconds)]
    with tempfile.TemporaryDirectory() as folder:
        few, many = streams.run(plans, models.identity(Path(folder)))
    figures: dict[str, Any] = {"seed": seed, "seconds": seconds, "per_second": plans[0].per_second}
    for plan, report in zip(plans, (few, many), strict=True):
        percentiles = {f"p{percent}_ms": report.percentile_ms(percent) for percent in (50, 99)}
        figures[f"{plan.streams} streams"] = {"answers": len(report.latencies_s)} | percentiles
    return figures | {"growth": many.growth(), "resident_kib": many.memory_kib[-1]}, streams.judged(few, many)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("parts", nargs="*", metavar="|".join(PARTS))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--rows", type=int, default=1_000_000, help="right answers that identity and core wait for")
    parser.add_argument("--requests", type=int, default=hour.REQUESTS, help=f"of flatness; an hour of {hour.PER_SECOND}/s")
    parser.add_argument("--seconds", type=int, default=60, help="of streams")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(unknown)}")
    report: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    report |= {
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"python": platform.python_version(), "system": platform.system()},
        "versions": {package: version(package) for package in ("grpcio", "protobuf", "onnxruntime", "numpy")},
    }
    failed = False
    for part in asked.parts or PARTS:
        runs = {
            "identity": (identity, asked.rows),
            "core": (straight, asked.rows),
            "flatness": (flat, asked.requests),
            "streams": (thousand, asked.seconds),
        }
        run, amount = runs[part]
        print(f"{part}: seed {asked.seed}", flush=True)
        figures, troubles = run(asked.seed, amount)
        _print(figures)
        for trouble in troubles:
            print(f"  WRONG (seed {asked.seed}): {trouble}")
        print(f"  {'failed' if troubles else 'nothing wrong'}\n", flush=True)
        failed |= bool(troubles)
        report[part] = figures | {"troubles": troubles}
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    raise SystemExit(failed)


def _print(figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        if name == "at_rest":
            kinds = list(flatness.TOLERANCE)
            print("  at rest         " + "".join(f"{kind:>15}" for kind in kinds))
            for round_, sample in enumerate(value):
                print(f"    round {round_:<8}" + "".join(f"{sample[kind]:>15}" for kind in kinds))
        elif isinstance(value, dict):
            print(f"  {name:<18}" + ", ".join(f"{key} {count}" for key, count in value.items()))
        else:
            print(f"  {name:<18}{value}")


if __name__ == "__main__":
    main()
