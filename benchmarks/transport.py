"""Threads or asyncio beneath the gRPC service? Both no-op servers, in alternating rounds, unary and stream.

    python benchmarks/transport.py            # about a minute; the decision it led to: runtime/tensign/rpc/README.md

Unary load is h2load's (C); a stream is driven by a grpcio client in this process, with a window of 16 requests.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

import h2load
from tensign._pb import open_inference_pb2 as pb

ROUNDS, REQUESTS = 3, 3000
HERE = Path(__file__).parent


def message(size: int) -> bytes:
    tensor = pb.ModelInferRequest.InferInputTensor(name="input-0", datatype="UINT8", shape=[1, size])
    return pb.ModelInferRequest(model_name="m", inputs=[tensor], raw_input_contents=[bytes(size)]).SerializeToString()


@contextmanager
def noop_process(*arguments: str) -> Iterator[tuple[str, int]]:
    """Starts a no-op server as a process of its own; yields its address and its number."""
    process = subprocess.Popen([sys.executable, HERE / "noop_server.py", *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.terminate()
        process.wait()


@contextmanager
def noop(*arguments: str) -> Iterator[str]:
    """The same; yields its address."""
    with noop_process(*arguments) as (address, _):
        yield address


def stream_rate(address: str, body: bytes, streams: int, requests: int, window: int = 16) -> float:
    """Requests a second over `streams` parallel streams, `window` in flight on each."""

    def one() -> None:
        room = threading.Semaphore(window)

        def feed() -> Iterator[bytes]:
            for _ in range(requests // streams):
                room.acquire()
                yield body

        with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            for _ in channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer", bytes, bytes)(feed()):
                room.release()

    threads = [threading.Thread(target=one) for _ in range(streams)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return requests / (time.perf_counter() - started)


def main() -> None:
    seen: dict[tuple[str, str], list[float]] = {}
    with noop("threads") as threads, noop("aio") as aio:
        for number in range(ROUNDS + 1):
            for name, address in (("threads", threads), ("aio", aio)):
                for size in (270_000, 30_000):
                    for concurrency in (1, 4, 16, 32):
                        load = h2load.run(address, message(size), concurrency=concurrency, requests=REQUESTS)
                        if number:  # the first round warms up
                            seen.setdefault((f"unary {size // 1000} kB x{concurrency}", name), []).append(load.requests_per_s)
                    for streams in (1, 16):
                        rate = stream_rate(address, message(size), streams, REQUESTS)
                        if number:
                            seen.setdefault((f"stream {size // 1000} kB x{streams}", name), []).append(rate)
    print(f"{'requests/s, median of ' + str(ROUNDS):30}{'threads':>10}{'aio':>10}{'ratio':>8}")
    for load_name in dict.fromkeys(name for name, _ in seen):
        first, second = (statistics.median(seen[load_name, name]) for name in ("threads", "aio"))
        print(f"{load_name:30}{first:10.0f}{second:10.0f}{first / second:8.2f}")


if __name__ == "__main__":
    main()
