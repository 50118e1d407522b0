"""The generator against real servers: what it counts, when it sends, what it says when the server stalls or dies."""

from __future__ import annotations

import asyncio
import itertools
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tensign._pb import open_inference_pb2 as pb
from tensign.bench import campaign, table
from tensign.bench.arrivals import poisson
from tensign.bench.load import Load
from tensign.bench.report import Report
from tensign.bench.result import Result
from tensign.bench.session import Session, run
from tensign.child import served
from tensign.errors import InvalidInput, ModelNotFound, ModelNotReady

WAYS = pytest.mark.parametrize("streams", [0, 1, 3], ids=["unary", "stream", "streams"])


def measured(
    address: str, load: Load, *, images: list[bytes] | None = None, progress: Callable[[float], object] = lambda share: None
) -> Report:
    async def work() -> Report:
        async with Session(address) as session:
            return await session.measure(load, images=images or [], progress=progress)

    return run(work())


@pytest.fixture
def child(mean_model: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server of `mean_model` in a process of its own: its address, and what to stop and to kill."""
    command = [sys.executable, "-P", "-m", "tensign", "serve", str(mean_model), "--grpc-port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = re.search(r"grpc://(\S+)", server.stdout.readline())
        assert address is not None
        try:
            yield address[1], server
        finally:
            server.kill()


@WAYS
@pytest.mark.parametrize("rows", [1, 3])
def test_a_closed_loop_sends_as_many_as_it_was_told_to(mean_address: str, streams: int, rows: int) -> None:
    shares: list[float] = []
    load = Load(concurrency=4, requests=50, rows=rows, streams=streams, warmup_s=0.1)
    report = measured(mean_address, load, progress=shares.append)
    assert report.requests == report.latency.samples == len(report.latencies_ms) == 50
    assert not report.errors and not report.stopped
    assert report.rows_per_s == pytest.approx(50 * rows / report.seconds)
    assert 0 < (report.latency.p50 or 0) <= (report.latency.p95 or 0) <= (report.latency.max or 0)
    assert report.served is not None and report.served.mean_batch >= 1  # the rows of a request may run in two batches
    assert set(report.served.stage_ms) == {"queue", "compute_input", "compute_infer", "compute_output"}
    assert shares == sorted(shares) and shares[-1] == 1.0


@WAYS
def test_without_warm_up_the_server_counts_what_the_generator_counts(mean_address: str, streams: int) -> None:
    report = measured(mean_address, Load(concurrency=4, requests=40, streams=streams, warmup_s=0))
    assert report.served is not None
    assert sum(rows * runs for rows, runs in report.served.batches.items()) == 40


def test_a_streamed_request_that_is_answered_in_parts_is_one_request(mean_address: str) -> None:
    report = measured(mean_address, Load(concurrency=2, requests=6, rows=200, streams=1, warmup_s=0))
    assert report.requests == report.latency.samples == 6
    assert report.served is not None
    assert max(report.served.batches) < 200
    assert sum(rows * runs for rows, runs in report.served.batches.items()) == 1200


def test_warm_up_by_count_is_not_measured(mean_address: str) -> None:
    async def work() -> tuple[Report, int]:
        async with Session(mean_address) as session:
            report = await session.measure(Load(concurrency=1, requests=10, warmup_s=0, warmup_requests=30))
            (statistics,) = await session.client.statistics()
            return report, statistics.inference_stats.success.count

    report, answered = run(work())
    assert report.requests == 10
    assert answered >= 40


@WAYS
def test_an_open_loop_offers_its_rate(mean_address: str, streams: int) -> None:
    report = measured(mean_address, Load(rate=200.0, duration_s=1.5, streams=streams, warmup_s=0.1))
    assert report.requests == pytest.approx(300, abs=70)  # four standard deviations of a Poisson count
    assert report.latency.samples == report.requests
    assert report.seconds == pytest.approx(1.5)


def test_the_same_seed_offers_the_same_arrivals(mean_address: str) -> None:
    load = Load(rate=100.0, requests=60, warmup_s=0, seed=3)
    first, second = (measured(mean_address, load) for _ in range(2))
    assert first.requests == second.requests == 60


def test_an_open_loop_sees_a_stall_that_a_closed_loop_omits(child: tuple[str, subprocess.Popen[str]]) -> None:
    """The server stands still for a second. A closed loop of two stands still with it, and notes two slow requests; at a
    hundred arrivals a second, a hundred requests were due meanwhile.
    """
    address, server = child

    def stalled(load: Load) -> Report:
        pending = True

        def stall(share: float) -> None:
            nonlocal pending
            if pending and share > 0.2:
                pending = False
                server.send_signal(signal.SIGSTOP)
                asyncio.get_running_loop().call_later(1.0, server.send_signal, signal.SIGCONT)

        return measured(address, load, progress=stall)

    closed = stalled(Load(concurrency=2, duration_s=3.0))
    opened = stalled(Load(rate=100.0, duration_s=3.0))
    assert closed.latency.max is not None and closed.latency.max > 900  # it was there to be seen
    assert closed.latency.p99 is not None and closed.latency.p99 < 300
    assert opened.latency.p99 is not None and opened.latency.p99 > 800
    assert opened.latency.p90 is not None and opened.latency.p90 > 400
    assert opened.misses(500.0) > 30 > closed.misses(500.0)


def test_a_schedule_that_the_generator_could_not_keep_is_told(mean_address: str) -> None:
    """Here its loop is held up by the one who looks on."""
    import time

    report = measured(mean_address, Load(rate=100.0, duration_s=1.0), progress=lambda share: time.sleep(0.05))
    assert "the generator, or a busy machine, sent requests up to" in report.limit


@pytest.mark.parametrize(
    ("streams", "rate"),
    [(0, None), (2, None), (0, 200.0), (2, 200.0)],
    ids=["closed", "closed-streams", "open", "open-streams"],
)
def test_a_server_that_dies_leaves_what_was_measured(
    child: tuple[str, subprocess.Popen[str]], streams: int, rate: float | None
) -> None:
    address, server = child

    def kill(share: float) -> None:
        if share > 0.05 and server.poll() is None:
            server.kill()
            server.wait()

    report = measured(address, Load(rate=rate, duration_s=30.0, streams=streams), progress=kill)
    assert report.stopped.startswith("the server went away:")
    assert 1.0 < report.seconds < 15
    assert report.latency.samples > 50
    assert report.answered_per_s == pytest.approx(report.latency.samples / report.seconds, rel=0.2)
    # gRPC calls a write that meets a broken connection "Internal error from Core", which is a plain TensignError.
    assert set(report.errors) <= {"ModelNotReady", "TensignError"}, report.errors
    assert report.failed < report.latency.samples


@pytest.mark.parametrize("rate", [None, 100.0], ids=["closed", "open"])
def test_streams_that_the_server_ends_are_taken_up_again_and_nothing_fails(mean_model: Path, rate: float | None) -> None:
    with served(mean_model, "--device", "cpu", "--max-connection-age", "0.5") as address:
        result = run(_swept(address, Load(rate=rate, streams=2, duration_s=2.0, warmup_s=0.1)))
    (report,) = result.reports
    assert not report.errors and not report.stopped
    assert report.requests == report.latency.samples > 50
    assert report.reconnects.count >= 2
    # A write that crosses the server's last word makes gRPC forget that word.
    assert re.search("the connection (is 0.5 s old|broke)", report.reconnects.first)
    assert any("times a stream ended and was taken up again" in remark for remark in table.remarks(result))


async def _swept(address: str, load: Load) -> Result:
    async with Session(address) as session:
        return await campaign.sweep(session, [load])


def test_a_stop_ends_it_at_once_with_what_there_is(mean_address: str) -> None:
    async def work() -> Report:
        stop = asyncio.Event()

        def stop_soon(share: float) -> None:
            if share > 0.005:
                stop.set()

        async with Session(mean_address, stop=stop) as session:
            return await session.measure(Load(duration_s=60.0), progress=stop_soon)

    report = run(work())
    assert report.stopped == "interrupted"
    assert report.seconds < 10
    assert report.latency.samples > 10 and not report.errors


@pytest.mark.parametrize("streams", [0, 1], ids=["unary", "stream"])
def test_errors_are_counted_by_kind_with_the_first_text(demo_address: str, pictures: list[Path], streams: int) -> None:
    load = Load(concurrency=2, requests=10, encoded=True, streams=streams, warmup_s=0)
    report = measured(demo_address, load, images=[pictures[0].read_bytes(), b"no picture"])
    assert report.requests == 10 and report.latency.samples == 5
    (failures,) = report.errors.values()
    assert set(report.errors) == {"UndecodableImage"}
    assert failures.count == 5 and "10 bytes are no JPEG" in failures.first


@pytest.mark.parametrize("streams", [0, 1], ids=["unary", "stream"])
def test_a_deadline_that_passes_is_an_error(child: tuple[str, subprocess.Popen[str]], streams: int) -> None:
    address, server = child

    stalled: list[float] = []

    def stall(share: float) -> None:
        if not stalled:  # before the first is sent
            server.send_signal(signal.SIGSTOP)
            asyncio.get_running_loop().call_later(1.0, server.send_signal, signal.SIGCONT)
        stalled.append(share)

    load = Load(concurrency=2, requests=2, streams=streams, warmup_s=0, timeout_s=0.3)
    report = measured(address, load, progress=stall)
    assert set(report.errors) == {"DeadlineExceeded"}
    assert report.failed == 2


def test_a_model_without_preprocessing_takes_no_encoded_pictures(mean_address: str) -> None:
    with pytest.raises(InvalidInput, match="declares no preprocessing"):
        measured(mean_address, Load(encoded=True), images=[b""])


def test_no_server_is_an_error_before_anything_is_measured() -> None:
    with pytest.raises(ModelNotReady, match=r"127\.0\.0\.1:1"):
        measured("127.0.0.1:1", Load())


def test_a_comparison_alternates_and_tells_ratios(mean_address: str, demo_address: str) -> None:
    async def work() -> Any:
        async with Session(mean_address, name="mean") as first, Session(demo_address, name="demo") as second:
            return await campaign.compare(first, second, Load(concurrency=2, requests=6, warmup_s=0), rounds=2)

    result = run(work())
    assert [report.target for report in result.reports] == ["mean", "demo", "demo", "mean"]
    ratio = result.ratios["rows_per_s"]
    assert ratio.low <= ratio.median <= ratio.high
    assert ratio.low > 1 and ratio.decided  # a mean is faster than a network
    assert "p99_ms" not in result.ratios  # of six requests


def test_the_search_finds_a_rate_on_a_real_server(mean_address: str) -> None:
    async def work() -> Any:
        async with Session(mean_address) as session:
            load = Load(requests=100, duration_s=0.2, warmup_s=0.1)
            return await campaign.search(session, load, limit_ms=250.0)

    result = run(work())
    assert result.answer is not None and result.answer.finished
    assert result.answer.rate is not None and result.answer.rate > 20
    assert f"{result.answer.rate:,.1f} requests/s keep p99 under 250 ms" in table.answer(result)
    assert len(result.reports) == len(result.answer.probes)


class Foreign:
    """Another server of the protocol, which offers what it must: no streams, no statistics.

    service_s: how long each request takes it, one after the other.
    """

    def __init__(self, service_s: float = 0.0) -> None:
        self._service_s = service_s
        self._free = 0.0

    async def answer(self, request: bytes, context: Any) -> bytes:
        clock = asyncio.get_running_loop().time
        self._free = done = max(self._free, clock()) + self._service_s
        await asyncio.sleep(done - clock())
        asked = pb.ModelInferRequest.FromString(request)
        return pb.ModelInferResponse(model_name=asked.model_name, id=asked.id).SerializeToString()

    async def metadata(self, request: bytes, context: Any) -> bytes:
        answer = pb.ModelMetadataResponse(name="other", versions=["1"], platform="p")
        answer.inputs.add(name="x", datatype="FP32", shape=[-1, 4])
        answer.outputs.add(name="y", datatype="FP32", shape=[-1, 2])
        return answer.SerializeToString()

    async def server(self, request: bytes, context: Any) -> bytes:
        return pb.ServerMetadataResponse(name="foreign", version="9").SerializeToString()


async def against_foreign(work: Callable[[str], Any], service_s: float = 0.0) -> Any:
    foreign = Foreign(service_s)
    methods = {"ModelInfer": foreign.answer, "ModelMetadata": foreign.metadata, "ServerMetadata": foreign.server}
    handlers: Any = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        return await work(f"127.0.0.1:{port}")
    finally:
        await server.stop(0)


def test_an_open_loop_measures_what_the_arithmetic_of_a_queue_foretells() -> None:
    """10 ms a request, 60 arrivals a second: what each has to wait follows from the arrivals."""
    service_s, load = 0.010, Load(rate=60.0, requests=150, warmup_s=0, seed=2)

    async def work(address: str) -> Report:
        async with Session(address, model="other") as session:
            return await session.measure(load)

    due = np.array(list(itertools.islice(poisson(60.0, seed=2), 150)))
    turn = service_s * np.arange(150)
    foretold = np.sort(turn + np.maximum.accumulate(due - turn) + service_s - due) * 1000
    assert foretold.mean() > 12 and foretold.max() > 20  # there was a queue
    excesses = []
    for _ in range(4):  # a neighbour's load only ever adds
        excesses.append(np.sort(run(against_foreign(work, service_s)).latencies_ms) - foretold)
        assert excesses[-1].min() > -1.0  # nothing is answered sooner than the queue allows
        if np.median(excesses[-1]) < 10.0:
            break
    assert min(map(np.median, excesses)) < 10.0


def test_a_server_without_statistics_is_measured_all_the_same() -> None:
    async def work(address: str) -> tuple[Report, list[str]]:
        async with Session(address, model="other") as session:
            reports = [await session.measure(Load(requests=20, warmup_s=0)) for _ in range(2)]
            return reports[1], session.notes

    report, notes = run(against_foreign(work))
    assert report.latency.samples == 20 and report.served is None
    assert len(notes) == 1 and "gives no ModelStatistics" in notes[0]


def test_a_server_without_streams_says_so() -> None:
    async def work(address: str) -> Report:
        async with Session(address, model="other") as session:
            return await session.measure(Load(concurrency=2, requests=10, streams=1, warmup_s=0))

    report = run(against_foreign(work))
    assert report.latency.samples == 0
    assert report.stopped.startswith("the server takes no stream: Method not found")


def test_a_server_without_statistics_has_to_be_told_the_model() -> None:
    async def work(address: str) -> None:
        async with Session(address):
            pass

    with pytest.raises(ModelNotFound, match="--model"):
        run(against_foreign(work))
