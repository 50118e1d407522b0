"""Front ends: does it pay to parse and decode in processes of their own? None, one, two, in alternating rounds.

    python benchmarks/frontends.py [N...]     # 2 minutes; needs h2load. N: other numbers of front ends than 0, 1 and 2

Near-free models, so that the server is what costs: raw 270 kB pictures, and JPEG files of 640x480 resized to 300x300. On as
many cores as there are; the load generator takes some of them, so on two cores the rates say what the hop costs, and nothing
of what front ends gain where there are sixteen. Processor time a request does: what it takes in a front end over what it takes
in the process of the models is the most front ends that one such process can feed.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import h2load
import models
from compare.loads import jpeg
from tensign._pb import open_inference_pb2 as pb
from tensign.child import served
from tensign.rpc.codec import encode_request

RESULTS = Path(__file__).parent / "results"
ROUNDS, SECONDS = 5, 1.0
CONCURRENCY = (1, 4, 16, 64)
NUMBERS = (0, 1, 2)


def request(load: str) -> bytes:
    """A message of one row."""
    import numpy as np

    if load == "raw":
        picture: Any = np.random.default_rng(0).integers(0, 256, (1, 300, 300, 3), dtype=np.uint8)
        return encode_request("mean", {"input-0": picture}).SerializeToString()
    message = pb.ModelInferRequest(model_name="thumbnail")
    message.inputs.add(name="input-0", datatype="BYTES", shape=[1]).contents.bytes_contents.append(jpeg())
    return message.SerializeToString()


def compared(load: str, numbers: tuple[int, ...]) -> dict[str, Any]:
    """{front ends: {concurrency: requests/s}}, medians of alternating rounds."""
    message, seen = request(load), dict[tuple[int, int], list[float]]()
    path = models.make({"raw": "mean", "jpeg": "thumbnail"}[load])
    with contextlib.ExitStack() as servers:
        addresses = {
            number: servers.enter_context(served(path, "--device", "cpu", "--front-ends", str(number))) for number in numbers
        }
        pids = dict(zip(numbers, _children(os.getpid()), strict=True))
        spent = {number: [0.0, 0.0, 0.0] for number in numbers}  # seconds of the server, of its front ends, requests
        for round_number in range(ROUNDS + 1):
            for concurrency in CONCURRENCY:
                for number, address in addresses.items():
                    before = _cpu_s(pids[number])
                    rate = _rate(address, message, concurrency)
                    took = [now - then for now, then in zip(_cpu_s(pids[number]), before, strict=True)]
                    spent[number] = [sum(pair) for pair in zip(spent[number], (*took, rate * SECONDS), strict=True)]
                    if round_number:  # the first one warms up
                        seen.setdefault((number, concurrency), []).append(rate)
    table = {
        number: {concurrency: statistics.median(seen[number, concurrency]) for concurrency in CONCURRENCY} for number in numbers
    }
    print(f"\n{load}: requests/s, median of {ROUNDS} alternating rounds (ratio to none)")
    print(f"{'concurrency':>12}" + "".join(f"{f'{number} front ends':>20}" for number in numbers))
    for concurrency in CONCURRENCY:
        rates = [table[number][concurrency] for number in numbers]
        print(f"{concurrency:>12}" + "".join(f"{rate:13.0f} ({rate / rates[0]:4.2f})" for rate in rates))
    costs = {number: [1e6 * seconds / requests for seconds in both] for number, (*both, requests) in spent.items()}
    print(
        "processor time a request, us: "
        + "; ".join(
            f"{number} front ends: {server:.0f} in the server, {fronts:.0f} in them"
            for number, (server, fronts) in costs.items()
        )
    )
    return {str(number): {"requests_per_s": table[number], "cpu_us": costs[number]} for number in numbers}


def _children(pid: int) -> list[int]:
    """In the order in which they were started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sorted(int(child) for task in tasks for child in (task / "children").read_text().split())


def _cpu_s(pid: int) -> tuple[float, float]:
    """Seconds of processor time that a server has had, and its front ends."""

    def seconds(pid: int) -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    return seconds(pid), sum(map(seconds, _children(pid)))


def _rate(address: str, message: bytes, concurrency: int) -> float:
    body = h2load.grpc_request(message)
    cpus = sorted(os.sched_getaffinity(0))
    return h2load.timed(address, body, concurrency=concurrency, seconds=SECONDS, answer_bytes=1, cpus=cpus).requests_per_s


def main() -> None:
    numbers = tuple(dict.fromkeys((0, *map(int, sys.argv[1:])))) if sys.argv[1:] else NUMBERS
    report = {"date": time.strftime("%Y-%m-%d"), "cores": len(os.sched_getaffinity(0)), "rounds": ROUNDS}
    report |= {load: compared(load, numbers) for load in ("raw", "jpeg")}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "frontends.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
