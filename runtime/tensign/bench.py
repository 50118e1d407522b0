"""The load generator: a closed loop of requests against a server, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign._pb import open_inference_pb2 as pb
from tensign.client import Client
from tensign.errors import TensignError
from tensign.rpc.codec import encode_request


@dataclass(frozen=True, slots=True)
class Load:
    """What to send: `requests` requests of `rows` rows, `concurrency` of them in flight, unary or over one stream."""

    requests: int = 500
    concurrency: int = 4
    rows: int = 1
    encoded: bool = False
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What came back. Latencies are the client's, in milliseconds; the batch and stage figures are the server's own.

    stage_ms: mean time of a request in the queue, and of a batch in each stage.
    """

    load: Load
    seconds: float
    images_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: int
    first_error: str
    mean_batch: float
    stage_ms: dict[str, float]

    def document(self) -> dict[str, Any]:
        return asdict(self)


def run(
    client: Client, load: Load, *, images: Sequence[bytes] = (), progress: Callable[[int], object] = lambda done: None
) -> Report:
    """Sends the load after a short warm-up.

    images: the encoded pictures that `load.encoded` sends in turn; raw requests are zeros by the signature.
    Raises ModelNotReady where no server answers; a failed request counts in `errors`.
    """
    messages = _messages(client, load, images)
    for _ in range(3):
        client.send(messages[0])
    before = client.statistics()
    started = time.perf_counter()
    answered = (_stream if load.stream else _unary)(client, [messages[n % len(messages)] for n in range(load.requests)], load)
    latencies: list[float] = []
    failures: list[str] = []
    for done, answer in enumerate(answered, 1):
        if isinstance(answer, str):
            failures.append(answer)
        else:
            latencies.append(answer * 1000)
        progress(done)
    seconds = time.perf_counter() - started
    mean_batch, stage_ms = _stages(before, client.statistics(), client.model)
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99]) if latencies else (float("nan"),) * 3
    rate = len(latencies) * load.rows / seconds
    return Report(
        load, seconds, rate, float(p50), float(p95), float(p99), len(failures), next(iter(failures), ""), mean_batch, stage_ms
    )


def _messages(client: Client, load: Load, images: Sequence[bytes]) -> list[bytes]:
    """Serialized requests of `load.rows` rows, to be sent in turn."""
    metadata = client.metadata()
    inputs: dict[str, npt.NDArray[Any]] = {}
    for spec in metadata.inputs:
        sides = [axis if axis != -1 else 224 for axis in spec.shape[1:]]
        inputs[spec.name] = np.zeros((load.rows, *sides), spec.dtype)
    if not load.encoded:
        return [encode_request(client.model, inputs).SerializeToString()]
    name = metadata.image
    if not name:
        raise TensignError(f'model "{client.model}" declares no preprocessing, so it takes no encoded images')
    messages = []
    for first in range(len(images)):
        rows = np.empty(load.rows, object)
        rows[:] = [images[(first + row) % len(images)] for row in range(load.rows)]
        messages.append(encode_request(client.model, {**inputs, name: rows}).SerializeToString())
    return messages


def _unary(client: Client, messages: Sequence[bytes], load: Load) -> Iterator[float | str]:
    """Seconds of each request, or its error."""

    def one(message: bytes) -> float | str:
        started = time.perf_counter()
        try:
            client.send(message)
        except TensignError as error:
            return str(error)
        return time.perf_counter() - started

    with ThreadPoolExecutor(load.concurrency) as pool:
        yield from pool.map(one, messages)


def _stream(client: Client, messages: Sequence[bytes], load: Load) -> Iterator[float | str]:
    """The same over one stream; grpc's own thread reads `timed`, and appends before the answer can arrive."""
    sent: list[float] = []

    def timed() -> Iterator[bytes]:
        for message in messages:
            sent.append(time.perf_counter())
            yield message

    for number, response in enumerate(client.send_stream(timed(), window=load.concurrency)):
        yield response.error_message or time.perf_counter() - sent[number]


def _stages(before: list[pb.ModelStatistics], after: list[pb.ModelStatistics], model: str) -> tuple[float, dict[str, float]]:
    old, new = (next(stats for stats in side if stats.name == model) for side in (before, after))
    runs = new.execution_count - old.execution_count
    stage_ms = {}
    for stage in ("queue", "compute_input", "compute_infer", "compute_output"):
        was, now = getattr(old.inference_stats, stage), getattr(new.inference_stats, stage)
        stage_ms[stage] = (now.ns - was.ns) / 1e6 / max(now.count - was.count, 1)
    return (new.inference_count - old.inference_count) / max(runs, 1), stage_ms
