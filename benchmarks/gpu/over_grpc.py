"""What is left of the GPU behind gRPC: a served ResNet-18 beside the same engine called in a loop.

    python benchmarks/gpu/over_grpc.py [--device cuda:0] [--seconds 4] [--out FILE]      # about three minutes

Load comes from several processes at once, each sending the same raw uint8 [1,300,300,3] (or a 640x480 JPEG), unary or over a
stream, without looking at the answers. in_process: `run` of the engine on one batch of the largest bucket. Written to
benchmarks/results/gpu-served.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import device
import numpy as np

from tensign.child import served
from tensign.client import Client
from tensign.engines.onnx import OnnxEngine

sys.path.append(str(Path(__file__).resolve().parents[1]))
import models

RESULTS = Path(__file__).resolve().parents[1] / "results"
ARRANGEMENTS = (  # processes, requests in flight of each
    (1, 1),
    (1, 16),
    (4, 16),
    (8, 32),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu-served.json")
    options = parser.parse_args()
    document = device.described()
    print(device.headline(document))
    path = models.make("resnet18")
    document["in_process"] = in_process(path, options.device)
    print(f"\nin process, batch of 64: {document['in_process']:.0f} images/s\n")
    columns = "processes x in flight", "images/s", "of in process", "p50 ms", "p99 ms", "batch"
    print(f"{'requests':<10}{'{:>22}{:>12}{:>15}{:>10}{:>10}{:>8}'.format(*columns)}")
    document["served"] = []
    with served(path, "--device", options.device) as address:
        for kind in ("raw", "stream"):
            for processes, in_flight in ARRANGEMENTS:
                seen = load(address, kind, processes, in_flight, options.seconds)
                document["served"].append({"kind": kind, "processes": processes, "in_flight": in_flight, **seen})
                ratio = seen["images_per_s"] / document["in_process"]
                print(
                    f"{kind:<10}{f'{processes} x {in_flight}':>22}{seen['images_per_s']:>12.0f}{ratio:>15.2f}"
                    f"{seen['p50_ms']:>10.2f}{seen['p99_ms']:>10.2f}{seen['mean_batch']:>8.1f}",
                    flush=True,
                )
                options.out.write_text(json.dumps(document, indent=2) + "\n")


def in_process(path: Path, where: str, batch: int = 64) -> float:
    engine = OnnxEngine(path / "model.onnx", where)
    engine.load()
    rows = np.zeros((batch, 300, 300, 3), np.uint8)
    for _ in range(5):
        engine.run({"image": rows})
    runs, began = 0, time.perf_counter()
    while time.perf_counter() - began < 2:
        engine.run({"image": rows})
        runs += 1
    return runs * batch / (time.perf_counter() - began)


def load(address: str, kind: str, processes: int, in_flight: int, seconds: float) -> dict[str, float]:
    """Figures over all processes; the mean batch is the server's own."""
    with Client(address) as client:
        before = client.statistics()[0]
        command = [sys.executable, __file__, "--send", address, kind, str(in_flight), str(seconds)]
        senders = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
        reports = [json.loads(sender.communicate()[0]) for sender in senders]
        after = client.statistics()[0]
    ms = np.concatenate([report["ms"] for report in reports])
    return {
        "images_per_s": sum(report["rate"] for report in reports),
        "p50_ms": float(np.percentile(ms, 50)),
        "p99_ms": float(np.percentile(ms, 99)),
        "mean_batch": (after.inference_count - before.inference_count) / max(after.execution_count - before.execution_count, 1),
    }


def send(address: str, kind: str, in_flight: int, seconds: float) -> dict[str, Any]:
    """One process of the load, which prints its rate and every latency."""
    from concurrent.futures import ThreadPoolExecutor

    with Client(address) as client:
        message = client.request(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8))
        client.send(message)
        ms: list[float] = []
        began = time.perf_counter()
        until = began + seconds

        def one_by_one(_: int) -> None:
            while (sent := time.perf_counter()) < until:
                client.send(message)
                ms.append((time.perf_counter() - sent) * 1000)

        if kind == "stream":
            sent: list[float] = []

            def messages() -> Iterator[bytes]:
                while time.perf_counter() < until:
                    sent.append(time.perf_counter())
                    yield message

            for number, answer in enumerate(client.send_stream(messages(), window=in_flight)):
                assert not answer.error_message, answer.error_message
                ms.append((time.perf_counter() - sent[number]) * 1000)
        else:
            with ThreadPoolExecutor(in_flight) as pool:
                list(pool.map(one_by_one, range(in_flight)))
        return {"rate": len(ms) / (time.perf_counter() - began), "ms": ms}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--send"]:
        _, _, address, kind, in_flight, seconds = sys.argv
        print(json.dumps(send(address, kind, int(in_flight), float(seconds))))
    else:
        main()
