"""What shared memory saves a client on the same machine: 270 kB in a region beside 270 kB in the message.

    python benchmarks/regions.py              # two minutes; written to benchmarks/results/regions.json

One row a request to the near-free model, by system shared memory and raw; beside them a grpcio server that parses the same
messages and computes nothing: for small messages it is the floor. Load comes from h2load; rounds alternate; figures are
medians. Whoever writes the region is not timed, as whoever fills a message is not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np

import h2load
import models
import served
from tensign._pb import open_inference_pb2 as pb
from tensign.child import served as serving
from tensign.regions import FOLDER
from tensign.rpc.codec import encode_request
from tensign.rpc.regionfields import REGION, SIZE
from transport import noop

RESULT = Path(__file__).parent / "results" / "regions.json"
CONCURRENCIES = (1, 4, 16, 32)
KEY = f"tensign-benchmark-{os.getpid()}"
REGISTER = "/inference.GRPCInferenceService/SystemSharedMemoryRegister"
WAYS = ("no-op, small", "region", "raw", "no-op, raw")


@contextmanager
def picture() -> Iterator[np.ndarray[Any, Any]]:
    """The row of `served.request`, in shared memory too."""
    file, row = Path(FOLDER, KEY), np.random.default_rng(0).integers(0, 256, (1, 300, 300, 3), dtype=np.uint8)
    file.write_bytes(row.tobytes())
    try:
        yield row
    finally:
        file.unlink()


def by_region(model: str, row: np.ndarray[Any, Any]) -> bytes:
    """The request for the row in the region."""
    request = pb.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="input-0", datatype="UINT8", shape=row.shape)
    tensor.parameters[REGION].string_param, tensor.parameters[SIZE].int64_param = "picture", row.nbytes
    return request.SerializeToString()


def prepare(address: str, row: np.ndarray[Any, Any], messages: list[bytes], colour: np.ndarray[Any, Any]) -> None:
    """Registers the region, and checks that every message gets the one right answer."""
    with grpc.insecure_channel(address) as channel:
        register = pb.SystemSharedMemoryRegisterRequest(name="picture", key=KEY, byte_size=row.nbytes)
        channel.unary_unary(REGISTER, bytes, bytes)(register.SerializeToString())
        for message in messages:
            answer = channel.unary_unary(h2load.INFER, bytes, pb.ModelInferResponse.FromString)(message)
            np.testing.assert_allclose(np.frombuffer(answer.raw_output_contents[0], np.float32), colour, rtol=1e-4)


def measured(rounds: int, requests: int) -> dict[int, dict[str, dict[str, float]]]:
    """{concurrency: {way: requests/s and p50}}, medians of so many rounds."""
    seen: dict[tuple[int, str], list[h2load.Load]] = {}
    arguments = ("--device", "cpu", "--shared-memory", KEY)
    with picture() as row, noop("aio") as floor, serving(models.make("mean"), *arguments) as ours:
        small, raw = by_region("mean", row), encode_request("mean", {"input-0": row}).SerializeToString()
        prepare(ours, row, [small, raw], row[:, ::30, ::30].mean((0, 1, 2)))
        runs = dict(zip(WAYS, ((floor, small), (ours, small), (ours, raw), (floor, raw)), strict=True))
        for number in range(rounds + 1):
            for concurrency in CONCURRENCIES:
                for way, (address, message) in runs.items():
                    load = h2load.run(address, message, concurrency=concurrency, requests=requests)
                    if number:  # the first round warms up
                        seen.setdefault((concurrency, way), []).append(load)
    return {
        concurrency: {
            way: {
                "requests_per_s": statistics.median(load.requests_per_s for load in seen[concurrency, way]),
                "p50_ms": statistics.median(load.p50_ms for load in seen[concurrency, way]),
            }
            for way in WAYS
        }
        for concurrency in CONCURRENCIES
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2000)
    given = parser.parse_args()
    table = measured(given.rounds, given.requests)
    print(f"near-free model, 270 kB a row, requests/s (p50 ms), median of {given.rounds} alternating rounds")
    print(f"{'concurrency':>12}{''.join(f'{way:>18}' for way in WAYS)}{'of no-op':>10}{'of raw':>8}")
    for concurrency, row in table.items():
        rates = {way: row[way]["requests_per_s"] for way in WAYS}
        cells = "".join(f"{rates[way]:10.0f} ({row[way]['p50_ms']:5.2f})" for way in WAYS)
        print(f"{concurrency:>12}{cells}{rates['region'] / rates['no-op, small']:10.2f}{rates['region'] / rates['raw']:8.2f}")
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": served.machine(),
        "rounds": given.rounds,
        "requests": given.requests,
        "by_concurrency": table,
    }
    RESULT.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
