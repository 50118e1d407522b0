"""What serving costs: tensign beside a no-op gRPC server, and beside ONNX Runtime called in a loop.

    python benchmarks/served.py [mean|stream|resnet18 ...]    # about three minutes; the part that was run is renewed in
                                                              # benchmarks/results/served.json

mean: requests/s and p50 at rising concurrency, ratio to grpcio servers that compute nothing: one that leaves the message's
bytes alone, and one that has protobuf parse them, as every generated stub does.
stream: the same of one stream with 32 requests in flight, whose load comes from a grpcio client, which no C program is.
resnet18: images/s at concurrency 16, ratio to `InferenceSession.run` on the same threads with nothing around it.
Load comes from h2load; rounds alternate; figures are medians.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import h2load
import models
from tensign._pb import open_inference_pb2 as pb
from tensign.child import served
from tensign.engines.onnx import OnnxEngine
from tensign.rpc.codec import encode_request
from transport import noop, stream_rate

RESULTS = Path(__file__).parent / "results"
ROUNDS = 5
CONCURRENCY = (1, 4, 16, 32)


def request(model: str) -> bytes:
    """One row of uint8 [1,300,300,3]."""
    picture = np.random.default_rng(0).integers(0, 256, (1, 300, 300, 3), dtype=np.uint8)
    return encode_request(model, {"input-0": picture}).SerializeToString()


def against_noop() -> dict[str, Any]:
    path = models.make("mean")
    message = request("mean")
    seen: dict[tuple[int, str], list[h2load.Load]] = {}
    with noop("aio", "--raw") as bare, noop("aio") as parsing, served(path, "--device", "cpu") as ours:
        _check_answer(ours, message)
        for number in range(ROUNDS + 1):
            for concurrency in CONCURRENCY:
                for name, address in (("bare", bare), ("parsing", parsing), ("tensign", ours)):
                    load = h2load.run(address, message, concurrency=concurrency, requests=2000)
                    if number:  # the first round warms up
                        seen.setdefault((concurrency, name), []).append(load)
    table = {}
    print(f"\nnear-free model, 270 kB raw, requests/s (p50 ms), median of {ROUNDS} alternating rounds")
    print(f"{'concurrency':>12}{'no-op, bare':>18}{'no-op, parsing':>18}{'tensign':>18}{'ratios':>14}")
    for concurrency in CONCURRENCY:
        row = {
            name: {
                "requests_per_s": statistics.median(load.requests_per_s for load in seen[concurrency, name]),
                "p50_ms": statistics.median(load.p50_ms for load in seen[concurrency, name]),
            }
            for name in ("bare", "parsing", "tensign")
        }
        ratios = {to: row["tensign"]["requests_per_s"] / row[to]["requests_per_s"] for to in ("bare", "parsing")}
        table[concurrency] = {**row, "ratio": ratios}
        cells = "".join(f"{cell['requests_per_s']:10.0f} ({cell['p50_ms']:5.2f})" for cell in row.values())
        print(f"{concurrency:>12}{cells}{ratios['bare']:8.2f}{ratios['parsing']:6.2f}")
    return {"rounds": ROUNDS, "by_concurrency": table}


def streamed() -> dict[str, Any]:
    path = models.make("mean")
    message = request("mean")
    seen: dict[str, list[float]] = {}
    with noop("aio", "--raw") as bare, noop("aio") as parsing, served(path, "--device", "cpu") as ours:
        _check_answer(ours, message)
        for number in range(ROUNDS + 1):
            for name, address in (("bare", bare), ("parsing", parsing), ("tensign", ours)):
                rate = stream_rate(address, message, streams=1, requests=3000, window=32)
                if number:
                    seen.setdefault(name, []).append(rate)
    rates = {name: statistics.median(each) for name, each in seen.items()}
    ratios = {to: rates["tensign"] / rates[to] for to in ("bare", "parsing")}
    print(f"\nnear-free model, one stream, 32 in flight, requests/s, median of {ROUNDS} alternating rounds")
    print("   ".join(f"{name} {rate:.0f}" for name, rate in rates.items()), *(f"  {ratio:.2f}" for ratio in ratios.values()))
    return {"rounds": ROUNDS, "requests_per_s": rates, "ratio": ratios}


def against_in_process(requests: int = 120) -> dict[str, Any]:
    path = models.make("resnet18")
    message = request("resnet18")
    engine = OnnxEngine(path / "model.onnx", "cpu")
    engine.load()
    picture = np.zeros((1, 300, 300, 3), np.uint8)
    alone: list[float] = []
    over_grpc: list[float] = []
    with served(path, "--device", "cpu") as ours:
        for number in range(ROUNDS + 1):
            started = time.perf_counter()
            for _ in range(requests):
                engine.run({"image": picture})
            rate = requests / (time.perf_counter() - started)
            load = h2load.run(ours, message, concurrency=16, requests=requests)
            if number:
                alone.append(rate)
                over_grpc.append(load.requests_per_s)
    in_process, over = statistics.median(alone), statistics.median(over_grpc)
    print(f"\nResNet-18 300x300, concurrency 16, images/s, median of {ROUNDS} alternating rounds")
    print(f"in process {in_process:.1f}   served {over:.1f}   ratio {over / in_process:.3f}")
    return {"rounds": ROUNDS, "in_process_per_s": in_process, "served_per_s": over, "ratio": over / in_process}


def _check_answer(address: str, message: bytes) -> None:
    """One answer against numpy, before anything is timed."""
    from tensign.client import Client

    raw = pb.ModelInferRequest.FromString(message).raw_input_contents[0]
    expected = np.frombuffer(raw, np.uint8).reshape(1, 300, 300, 3)[:, ::30, ::30].mean((1, 2))
    with Client(address) as client:
        answer = np.frombuffer(client.send(message).raw_output_contents[0], np.float32)
    np.testing.assert_allclose(answer, expected[0], rtol=1e-4)


def main() -> None:
    runs = {"mean": against_noop, "stream": streamed, "resnet18": against_in_process}
    chosen = sys.argv[1:] or list(runs)
    kept = RESULTS / "served.json"
    report: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    report |= {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {package: version(package) for package in ("grpcio", "protobuf", "onnxruntime", "numpy")},
    }
    for name in chosen:
        report[name] = runs[name]()
    RESULTS.mkdir(exist_ok=True)
    kept.write_text(json.dumps(report, indent=2) + "\n")


def machine() -> dict[str, str]:
    """What figures are to be read with."""
    return {"python": platform.python_version(), "processor": _processor()}


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0] if names else platform.machine()}"


if __name__ == "__main__":
    main()
