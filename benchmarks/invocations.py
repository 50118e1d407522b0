"""Images/s over HTTP: tensign beside MLflow's scoring server, the same model directory and the same bytes.

    python benchmarks/invocations.py [mean|resnet18 ...] [--seconds 4] [--rounds 5]   # eight minutes; renews
                                                                                      # benchmarks/results/invocations.json

Both answer /invocations with JSON lists of one uint8 [1,300,300,3]; MLflow runs as `mlflow models serve` starts it, one process
of uvicorn, and so does tensign. Beside them, for scale: tensign over gRPC with the same pixels raw, and pictures of the demo
model as base64. Rounds alternate; figures are medians.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import models
from tensign.bench.machine import machine, versions
from tensign.child import ready
from tensign.client import Client
from tensign.demo import MODEL
from tensign.proof.samples import photographs

RESULTS = Path(__file__).parent / "results" / "invocations.json"
CONCURRENCY = (1, 8)

Send = Callable[[], object]  # one request and its answer


@contextmanager
def mlflow_serving(path: Path) -> Iterator[str]:
    """MLflow's scoring server as its own command line starts it, and its address."""
    command = [sys.executable, "-m", "uvicorn", "--port", "0", "mlflow.pyfunc.scoring_server.app:app"]
    environment = {**os.environ, "__pyfunc_model_path__": str(path.resolve())}
    there = models.MODELS.parent  # where MLflow may leave files of its own
    child = subprocess.Popen(command, cwd=there, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)
    assert child.stderr is not None
    try:
        line = next((line for line in child.stderr if "running on http://" in line), "")
        assert line, f"MLflow's server ended with {child.wait()}"
        threading.Thread(target=child.stderr.read, daemon=True).start()  # or its pipe would fill
        yield line.partition("http://")[2].split()[0]
    finally:
        child.terminate()
        child.wait()


def posting(address: str, body: bytes) -> Callable[[], Send]:
    """Makes senders, each with a connection of its own."""

    def sender() -> Send:
        connection = http.client.HTTPConnection(address)

        def send() -> object:
            try:
                connection.request("POST", "/invocations", body, {"content-type": "application/json"})
            except ConnectionError:  # it was idle while others were measured; the next one connects again
                connection.close()
                connection.request("POST", "/invocations", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == 200, content[:300]
            return content

        return send

    return sender


def calling(address: str, pixels: np.ndarray[Any, Any]) -> Callable[[], Send]:
    def sender() -> Send:
        client = Client(address)
        name = client.metadata().inputs[0].name
        return lambda: client.infer({name: pixels})

    return sender


def images_per_s(make: Callable[[], Send], concurrency: int, seconds: float) -> float:
    """Of so many senders, each with one request at a time."""
    senders = [make() for _ in range(concurrency)]
    senders[0]()
    done = [0] * concurrency
    until = time.perf_counter() + seconds
    started = time.perf_counter()

    def work(index: int) -> None:
        while time.perf_counter() < until:
            senders[index]()
            done[index] += 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - started)


def compared(name: str, rounds: int, seconds: float) -> dict[str, Any]:
    path = models.make(name)
    assert "python_function" in (path / "MLmodel").read_text(), f"{path} is of an older version: remove it"
    pixels = np.random.default_rng(0).integers(0, 256, (1, 300, 300, 3), dtype=np.uint8)
    body = json.dumps({"inputs": pixels.tolist()}).encode()
    picture = json.dumps({"inputs": [base64.b64encode(photographs()[0].read_bytes()).decode()]}).encode()
    with ExitStack() as stack:
        theirs = stack.enter_context(mlflow_serving(path))
        ours = stack.enter_context(ready(path, "--device", "cpu"))
        demo = stack.enter_context(ready(MODEL, "--device", "cpu"))
        ways = {
            "MLflow, JSON": posting(theirs, body),
            "tensign, JSON": posting(ours["http"], body),
            "tensign, gRPC, raw": calling(ours["grpc"], pixels),
            "tensign, JPEG as base64, demo model": posting(demo["http"], picture),
        }
        answers = [json.loads(bytes(ways[way]()())) for way in ("MLflow, JSON", "tensign, JSON")]  # type: ignore[call-overload]
        _check_same(*answers)
        seen: dict[int, dict[str, list[float]]] = {number: {way: [] for way in ways} for number in CONCURRENCY}
        for number in range(rounds + 1):
            for concurrency in CONCURRENCY:
                for way, make in ways.items():
                    rate = images_per_s(make, concurrency, seconds)
                    if number:  # the first round warms up
                        seen[concurrency][way].append(rate)
    print(f"\n{name}, one uint8 [1,300,300,3] a request ({len(body):,} bytes of JSON), images/s, median of {rounds} rounds")
    table: dict[str, Any] = {"bytes": len(body)}
    for concurrency, rates in seen.items():
        medians = {way: statistics.median(each) for way, each in rates.items()}
        ratio = medians["tensign, JSON"] / medians["MLflow, JSON"]
        told = "; ".join(f"{way} {rate:.1f}" for way, rate in medians.items())
        print(f"{concurrency:>3} at once: {told}; tensign / MLflow {ratio:.2f}")
        table[str(concurrency)] = {"images_per_s": medians, "ratio": ratio, "rounds": rates}
    return table


def _check_same(theirs: Any, ours: Any) -> None:
    (one,), (other,) = theirs["predictions"].values(), ours["predictions"].values()
    assert np.allclose(one, other, atol=1e-4), "the servers do not answer the same"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=["mean", "resnet18"])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results |= {"machine": machine(), "versions": versions()}
    for name in asked.names:
        results[name] = compared(name, asked.rounds, asked.seconds)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
