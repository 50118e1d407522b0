"""What is left of the GPU behind gRPC: a served model beside the same engine called in a loop.

    python benchmarks/gpu/over_grpc.py [--device cuda:0] [--seconds 4] [--out FILE]      # about two minutes

ResNet-18 with raw uint8 [1,300,300,3], unary and streamed; the demo's EfficientNet-Lite0 with its photographs as they are,
decoded and resized on the server. Load comes from several `tensign bench` at once, since one generator is one process; their
rates add up, of their percentiles the greatest is shown. in process: `run` of the engine on batches of 64. Written to
benchmarks/results/gpu-over-grpc.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import device
import numpy as np

from tensign.child import served
from tensign.client import Client
from tensign.demo import MODEL as DEMO
from tensign.engines.onnx import OnnxEngine
from tensign.plan import ModelPlan

BENCHMARKS = Path(__file__).resolve().parents[1]
ARRANGEMENTS = ((1, 1), (1, 16), (4, 16), (8, 32))  # processes, requests in flight of each
KINDS = {"raw, unary": (), "raw, streamed": ("--stream",), "pictures, streamed": ("--stream", "--encoded")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=BENCHMARKS / "results" / "gpu-over-grpc.json")
    options = parser.parse_args()
    sys.path.append(str(BENCHMARKS))
    import models

    document = device.described()
    print(device.headline(document))
    for name, path, kinds in (
        ("resnet18", models.make("resnet18"), ("raw, unary", "raw, streamed")),
        ("efficientnet-lite0", DEMO, ("pictures, streamed",)),
    ):
        part: dict[str, Any] = {"in_process_per_s": in_process(path, options.device), "served": []}
        document[name] = part
        print(f"\n{name}: in process, batch of 64: {part['in_process_per_s']:.0f} images/s")
        columns = "processes x in flight", "images/s", "of in process", "p50 ms", "p99 ms", "batch"
        print(f"{'':<20}{'{:>22}{:>12}{:>15}{:>10}{:>10}{:>8}'.format(*columns)}")
        with served(path, "--device", options.device) as address:
            for kind in kinds:
                for processes, in_flight in ARRANGEMENTS:
                    seen = load(address, KINDS[kind], processes, in_flight, options.seconds)
                    part["served"].append({"kind": kind, "processes": processes, "in_flight": in_flight, **seen})
                    print(
                        f"{kind:<20}{f'{processes} x {in_flight}':>22}{seen['images_per_s']:>12.0f}"
                        f"{seen['images_per_s'] / part['in_process_per_s']:>15.2f}"
                        f"{seen['p50_ms']:>10.2f}{seen['p99_ms']:>10.2f}{seen['mean_batch']:>8.1f}",
                        flush=True,
                    )
                    options.out.write_text(json.dumps(document, indent=2) + "\n")


def in_process(path: Path, where: str, batch: int = 64) -> float:
    """Images/s of the engine alone."""
    engine = OnnxEngine(ModelPlan.of(path).file, where)
    engine.load()
    spec = engine.inputs[0]
    rows = {spec.name: np.zeros((batch, *spec.shape[1:]), spec.dtype)}
    for _ in range(5):
        engine.run(rows)
    runs, began = 0, time.perf_counter()
    while time.perf_counter() - began < 2:
        engine.run(rows)
        runs += 1
    return runs * batch / (time.perf_counter() - began)


def load(address: str, kind: tuple[str, ...], processes: int, in_flight: int, seconds: float) -> dict[str, float]:
    """Figures over all processes; the mean batch is the server's own."""
    with Client(address) as client:
        before = client.statistics()[0]
        command = [sys.executable, "-m", "tensign", "bench", address, "--json", *kind]
        command += ["--concurrency", str(in_flight), "--duration", str(seconds)]
        generators = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(processes)]
        reports: list[dict[str, Any]] = [json.loads(generator.communicate()[0])["reports"][0] for generator in generators]
        after = client.statistics()[0]
    runs = after.execution_count - before.execution_count
    return {
        "images_per_s": sum(report["rows_per_s"] for report in reports),
        "p50_ms": max(report["latency"]["p50"] for report in reports),
        "p99_ms": max(report["latency"]["p99"] or report["latency"]["max"] for report in reports),
        "mean_batch": (after.inference_count - before.inference_count) / max(runs, 1),
    }


if __name__ == "__main__":
    main()
