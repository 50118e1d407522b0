"""Front ends, real processes that share a real port: answers, batches, errors, deaths, drains."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from conftest import CPU, save_mean_model
from fronted import SIDE, SOON, Gated, gated_model, gone, jpeg, save_echo_model, until
from tensign._pb import open_inference_pb2 as pb
from tensign.client import Client
from tensign.config import ServerConfig
from tensign.errors import DeadlineExceeded, ModelNotReady, QueueFull, SignatureMismatch, TooLarge, UndecodableImage
from tensign.frontends.keeper import FrontEnds
from tensign.model import Model
from tensign.rpc.codec import encode_request
from tensign.server import Server
from tensign.testing import running

TWO = ServerConfig(grpc_port=0, http_port=0, drain_s=10.0, front_ends=2)
ROW = {"input-0": np.zeros((1, 4, 5, 3), np.uint8)}
CLIENTS = 12  # connections, which the kernel spreads: one in 2048 times all of them meet one front end


class Fronted:
    """A server with two front ends over two models."""

    def __init__(self, server: Server, echo: Model, gated: Model, engine: Gated) -> None:
        self.address, self.server = server.grpc_address, server
        self.echo, self.gated, self.engine = echo, gated, engine

    @property
    def pids(self) -> list[int | None]:
        assert isinstance(self.server._grpc, FrontEnds)
        return self.server._grpc.pids

    def client(self, model: str, **options: Any) -> Client:
        """A connection of its own."""
        return Client(self.address, model=model, **options)

    @contextlib.contextmanager
    def shut(self) -> Iterator[None]:
        """One batch inside the engine, whatever else comes waits."""
        self.engine.open.clear()
        with self.client("gated") as client, ThreadPoolExecutor(1) as one:
            first = one.submit(client.infer, ROW)
            assert self.engine.entered.acquire(timeout=SOON)
            try:
                yield
            finally:
                self.engine.open.set()
            first.result(SOON)

    def waiting(self) -> int:
        rows: int = self.gated.batcher._queue.rows  # type: ignore[attr-defined]
        return rows


@pytest.fixture(scope="module")
def fronted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    folder = tmp_path_factory.mktemp("fronted")
    echo = Model.load(save_echo_model(folder / "echo"), CPU, name="echo")
    gated, engine = gated_model(save_mean_model(folder / "mean"), max_queue_rows=40, max_batch_size=32)
    with running(echo, gated, config=TWO) as server:
        yield Fronted(server, echo, gated, engine)


def raw(seed: int, rows: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (rows, SIDE, SIDE, 3), np.uint8)


def test_answers_are_those_of_the_model_raw_encoded_and_streamed_over_many_connections(fronted: Fronted) -> None:
    def caller(seed: int) -> None:
        with fronted.client("echo") as client:
            for number in range(6):
                pixels = raw(100 * seed + number, 1 + (seed + number) % 5)
                assert np.array_equal(client.infer({"input-0": pixels})["output-0"], pixels)
            picture = {"input-0": np.array([jpeg(seed)], object)}
            assert np.array_equal(client.infer(picture)["output-0"], fronted.echo.infer(picture)["output-0"])
            rows = [raw(1000 * seed + number, 1) for number in range(20)]
            for answer, pixels in zip(client.stream({"input-0": row} for row in rows), rows, strict=True):
                assert np.array_equal(answer.outputs["output-0"], pixels)

    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(caller, range(CLIENTS)))


def test_rows_of_all_connections_share_a_batch_and_front_ends_tell_the_same_statistics(fronted: Fronted) -> None:
    rows = [{"input-0": np.full((1, 4, 5, 3), seed, np.uint8)} for seed in range(CLIENTS)]
    with contextlib.ExitStack() as opened, ThreadPoolExecutor(CLIENTS) as threads:
        clients = [opened.enter_context(fronted.client("gated")) for _ in rows]
        with fronted.shut():
            answers = [threads.submit(client.infer, row) for client, row in zip(clients, rows, strict=True)]
            until(lambda: fronted.waiting() == CLIENTS)
        assert [answer.result()["output-0"][0, 0] for answer in answers] == list(range(CLIENTS))
        for client in clients:
            (told,) = (each for each in client.statistics() if each.name == "gated")
            assert any(stat.batch_size > 1 for stat in told.batch_stats)  # how many share one is a matter of measured times
            assert told.inference_stats.success.count == fronted.gated.statistics.snapshot().success.count


def test_decoding_is_counted_where_it_is_asked_for(fronted: Fronted) -> None:
    before = fronted.echo.statistics.snapshot()
    with fronted.client("echo") as client:
        client.infer({"input-0": np.array([jpeg(0)], object)})
        with pytest.raises(UndecodableImage, match=r"^row 0: "):
            client.infer({"input-0": np.array([b"no picture"], object)})
        told = client.statistics()
    after = fronted.echo.statistics.snapshot()
    counts = [getattr(after, stage).count - getattr(before, stage).count for stage in ("preprocess", "success", "fail")]
    assert counts == [2, 1, 1]
    assert next(each for each in told if each.name == "echo").inference_stats.fail.count == after.fail.count


def test_errors_keep_their_kind_and_text(fronted: Fronted) -> None:
    with fronted.client("gated", retries=0) as client:
        with pytest.raises(SignatureMismatch, match=r"input-0.*\[1,4,5\]"):
            client.infer({"input-0": np.zeros((1, 4, 5), np.uint8)})
        with pytest.raises(TooLarge, match=r"^41 rows in one request are more than the queue's 40"):
            message = encode_request("gated", {"input-0": np.zeros((41, 4, 5, 3), np.uint8)})
            client.send(message.SerializeToString())
        with ThreadPoolExecutor(1) as one, fronted.shut():
            with pytest.raises(DeadlineExceeded):
                client.infer(ROW, timeout_s=0.05)
            waits = one.submit(client.infer, {"input-0": np.zeros((40, 4, 5, 3), np.uint8)})
            until(lambda: fronted.waiting() == 40)
            with pytest.raises(QueueFull, match=r"^40 rows are waiting and 40 may"):
                client.send(encode_request("gated", ROW).SerializeToString())
        assert waits.result(SOON)["output-0"].shape == (40, 3)


def test_what_nobody_waits_for_any_more_leaves_the_queue(fronted: Fronted) -> None:
    before = fronted.gated.statistics.snapshot()
    channel = grpc.insecure_channel(fronted.address)
    call: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", None, pb.ModelInferResponse.FromString)
    with fronted.shut():
        calls = [call.future(encode_request("gated", ROW).SerializeToString()) for _ in range(3)]
        until(lambda: fronted.waiting() == 3)
        calls[1].cancel()
        until(lambda: fronted.waiting() == 2)
    for kept in (calls[0], calls[2]):
        assert kept.result(SOON).raw_output_contents
    after = fronted.gated.statistics.snapshot()
    assert (after.rows - before.rows, after.fail.count - before.fail.count) == (3, 1)  # the one that shut it among them
    channel.close()


def test_a_stream_waits_for_room_in_the_queue(fronted: Fronted) -> None:
    rows = [{"input-0": np.full((10, 4, 5, 3), number, np.uint8)} for number in range(20)]
    with fronted.client("gated") as client, ThreadPoolExecutor(1) as one:
        with fronted.shut():
            answers = one.submit(lambda: list(client.stream(rows)))
            until(lambda: fronted.waiting() == 30)  # what one client may have of 40
        assert [answer.outputs["output-0"][0, 0] for answer in answers.result(SOON)] == list(range(20))


def test_whether_a_model_is_ready_is_told_by_every_front_end(fronted: Fronted) -> None:
    request = pb.ModelReadyRequest(name="gated").SerializeToString()
    channels = [grpc.insecure_channel(fronted.address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(6)]
    asked: list[Any] = [
        each.unary_unary("/inference.GRPCInferenceService/ModelReady", None, pb.ModelReadyResponse.FromString)
        for each in channels
    ]
    for up in (False, True):
        fronted.engine.up = up
        until(lambda up=up: all(ask(request).ready is up for ask in asked))  # type: ignore[misc]
    for channel in channels:
        channel.close()


def test_a_killed_front_end_takes_its_own_requests_along_and_comes_back(fronted: Fronted) -> None:
    stop, seen = threading.Event(), dict[int, list[Exception]]()

    def caller(seed: int) -> None:
        seen[seed] = []
        with fronted.client("echo", retries=0) as client:
            number = 0
            while not stop.is_set():
                number += 1
                pixels = raw(100 * seed + number, 1)
                try:
                    assert np.array_equal(client.infer({"input-0": pixels})["output-0"], pixels)
                except ModelNotReady as error:
                    seen[seed].append(error)
                    until(client.ready)  # gRPC connects again when it sees fit

    pids = fronted.pids
    answered = fronted.echo.statistics.snapshot().success.count
    with ThreadPoolExecutor(CLIENTS) as threads:
        callers = [threads.submit(caller, seed) for seed in range(CLIENTS)]
        until(lambda: fronted.echo.statistics.snapshot().success.count > answered + 50)
        assert pids[0] is not None
        os.kill(pids[0], signal.SIGKILL)
        until(lambda: fronted.pids[0] not in (pids[0], None))
        answered = fronted.echo.statistics.snapshot().success.count
        until(lambda: fronted.echo.statistics.snapshot().success.count > answered + 50)
        stop.set()
        for each in callers:
            each.result(SOON)
    lost = [seed for seed, errors in seen.items() if errors]
    assert 0 < len(lost) < CLIENTS
    assert all(len(errors) == 1 for errors in seen.values() if errors)
    assert fronted.pids[1] == pids[1]
    assert not fronted.echo.batcher._unsettled  # type: ignore[attr-defined]


def test_metrics_count_what_front_ends_do(fronted: Fronted) -> None:
    def active() -> float:
        assert fronted.server.http_address is not None
        with urllib.request.urlopen(f"http://{fronted.server.http_address}/metrics", timeout=SOON) as page:
            found = re.search(r"^tensign_active_calls (\S+)$", page.read().decode(), re.MULTILINE)
        assert found is not None
        return float(found[1])

    with fronted.shut():
        until(lambda: active() == 1)
    until(lambda: active() == 0)


def test_receiving_and_sending_in_front_ends_is_counted_in_the_server(fronted: Fronted) -> None:
    before = fronted.echo.statistics.snapshot()
    with fronted.client("echo") as client:
        for _ in range(3):
            client.infer({"input-0": raw(0, 1)})

    def counted() -> tuple[int, int]:
        after = fronted.echo.statistics.snapshot()
        return after.receive.count - before.receive.count, after.send.count - before.send.count

    until(lambda: counted() == (3, 3))


def test_an_answer_tells_its_times_in_the_models_process_too(fronted: Fronted) -> None:
    message = encode_request("echo", {"input-0": np.array([jpeg(0)], object)})
    message.parameters["timings"].bool_param = True
    with fronted.client("echo") as client:
        answer = client.send(message.SerializeToString())
    told = {name: value.int64_param for name, value in answer.parameters.items() if name.endswith("_us")}
    assert {*told} == {"receive_us", "decode_us", "queue_us", "input_us", "compute_us", "output_us"}
    assert told["decode_us"] > 0 and told["compute_us"] > 0 and all(0 <= micros < SOON * 1e6 for micros in told.values())


def test_what_does_not_lie_there_any_more_is_not_served(mean_model: Path) -> None:
    model = Model.load(mean_model, CPU)
    (mean_model / "MLmodel").write_text((mean_model / "MLmodel").read_text() + "# other\n")
    with pytest.raises(OSError, match="is not what the server loaded"), running(model, config=TWO):
        pass
    model.close()


def test_a_port_that_is_taken_is_an_error_and_leaves_no_process(fronted: Fronted, mean_model: Path) -> None:
    port = int(fronted.address.rpartition(":")[2])
    model = Model.load(mean_model, CPU)
    with pytest.raises(OSError, match="cannot listen on"), running(model, config=ServerConfig(grpc_port=port, front_ends=2)):
        pass
    model.close()


def test_a_drain_answers_what_was_taken(mean_model: Path) -> None:
    model, engine = gated_model(mean_model)
    with contextlib.ExitStack() as opened, ThreadPoolExecutor(4) as threads:
        with running(model, config=TWO) as server:
            assert isinstance(server._grpc, FrontEnds)
            pids = server._grpc.pids
            clients = [opened.enter_context(Client(server.grpc_address, model="gated", retries=0)) for _ in range(4)]
            engine.open.clear()
            answers = [threads.submit(client.infer, ROW) for client in clients]
            until(lambda: len(model.batcher._unsettled) == 4)  # type: ignore[attr-defined]
            threading.Timer(0.3, engine.open.set).start()  # once it drains
        assert all(answer.result(SOON)["output-0"].shape == (1, 3) for answer in answers)
        for client in clients:
            with pytest.raises(ModelNotReady):
                client.infer(ROW)
    assert all(map(gone, pids))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGKILL, -9)])
def test_the_end_of_the_command_is_that_of_its_front_ends(number: int, status: int, mean_model: Path) -> None:
    command = [sys.executable, "-m", "tensign", "serve", str(mean_model), "--device", "cpu", "--grpc-port", "0", "--no-http"]
    server = subprocess.Popen([*command, "--front-ends", "2"], stdout=subprocess.PIPE, text=True, process_group=0)
    assert server.stdout is not None
    try:
        ready = server.stdout.readline()
        assert " by 2 front ends serves mean " in ready
        tasks = Path(f"/proc/{server.pid}/task").iterdir()
        pids = [pid for task in tasks for pid in (task / "children").read_text().split()]
        assert len(pids) == 2
        with Client(ready.split("grpc://")[1].split()[0]) as client:
            assert client.infer(ROW)["output-0"].shape == (1, 3)
        for pid in (*map(int, pids), server.pid):  # as a system does that ends a whole service
            os.kill(pid, signal.SIGTERM if pid != server.pid else number)
        assert server.wait(10) == status
        until(lambda: all(map(gone, pids)))
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
