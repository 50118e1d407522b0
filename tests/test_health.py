"""Whether a server serves, as a container's HEALTHCHECK asks it."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from conftest import CPU
from tensign._pb import open_inference_pb2 as pb
from tensign.client import Client
from tensign.engines.onnx import OnnxEngine
from tensign.errors import DeviceLost, ModelNotReady
from tensign.model import Model
from tensign.plan import ModelPlan
from tensign.rpc.health import why_not_serving
from tensign.server import Server
from tensign.signature import Arrays
from tensign.testing import running, serving
from test_engines_worker import TRUSTED, kill, odd_model, rows


def test_a_server_that_is_ready_serves_and_one_that_is_gone_does_not(mean_model: Path) -> None:
    with serving(Model.load(mean_model, CPU)) as address:
        assert why_not_serving(address) == ""
    assert why_not_serving(address) == "UNAVAILABLE"


def test_a_server_that_says_no_or_nothing_of_its_health_does_not_serve() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    assert why_not_serving(f"127.0.0.1:{port}") == "UNIMPLEMENTED"
    server.stop(None).wait()
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    assert why_not_serving(f"127.0.0.1:{port}") == "NOT_SERVING"
    server.stop(None).wait()


class Failing(OnnxEngine):
    """Loses its device with the second batch that is not of warm-up. It is a CPU: what is proved is who is told, nothing of
    CUDA."""

    served = 0

    def run(self, batch: Arrays, params: Mapping[str, Any] | None = None, deadline: float | None = None) -> dict[str, Any]:
        if self.served == 2:
            self.lost = True
            raise DeviceLost("cuda:0: CUDA error 719, after which only a new process can use the device again")
        self.served += bool(self.served)
        return super().run(batch, params, deadline)


def test_whoever_watches_a_server_learns_that_its_device_is_lost(mean_model: Path) -> None:
    plan = ModelPlan.of(mean_model)
    engine = Failing(plan.file, "cpu")
    model = Model(plan, [engine], name="ill", version="1", config=CPU)
    engine.served = 1
    pictures = np.zeros((1, 4, 5, 3), np.uint8)

    def told(server: Server) -> tuple[bool, bool, str, list[int]]:
        with grpc.insecure_channel(server.grpc_address) as channel:
            ask: Any = channel.unary_unary
            asked = [
                ask(f"/inference.GRPCInferenceService/{name}", None, answer.FromString)(b"")
                for name, answer in (("ServerLive", pb.ServerLiveResponse), ("ServerReady", pb.ServerReadyResponse))
            ]
        assert server.http_address is not None
        statuses = []
        for path in ("/ping", "/health", "/"):
            with contextlib.closing(http.client.HTTPConnection(server.http_address, timeout=60)) as connection:
                connection.request("GET", path)
                statuses.append(connection.getresponse().status)
        return asked[0].live, asked[1].ready, why_not_serving(server.grpc_address), statuses

    with running(model, Model.load(mean_model, CPU, name="well")) as server, Client(server.grpc_address, model="ill") as client:
        client.infer(pictures)
        assert told(server) == (True, True, "", [200, 200, 200])
        with pytest.raises(ModelNotReady, match="CUDA error 719"):
            client.infer(pictures)
        assert told(server) == (False, False, "NOT_SERVING", [503, 503, 503])
        with grpc.insecure_channel(server.grpc_address) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            named = {name: health.Check(health_pb2.HealthCheckRequest(service=name)).status for name in ("ill", "well")}
        assert named == {"ill": health_pb2.HealthCheckResponse.NOT_SERVING, "well": health_pb2.HealthCheckResponse.SERVING}


def test_whoever_watches_is_told_without_asking_whoever_else_has_left(mean_model: Path) -> None:
    plan = ModelPlan.of(mean_model)
    engine = Failing(plan.file, "cpu")
    model = Model(plan, [engine], name="ill", version="1", config=CPU)
    with serving(model) as address, grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        names = ("", "ill", "ill", "other")
        leaves, *watches = [stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=60) for name in ("ill", *names)]
        said = health_pb2.HealthCheckResponse
        serves = said.SERVING
        assert next(leaves).status == serves
        assert [next(watch).status for watch in watches] == [serves, serves, serves, said.SERVICE_UNKNOWN]
        leaves.cancel()
        engine.lost = True  # as on a lane's thread, of which the server is not told
        assert [next(watch).status for watch in watches[:3]] == [said.NOT_SERVING] * 3
        with pytest.raises(grpc.RpcError) as refused:
            stub.Check(health_pb2.HealthCheckRequest(service="other"))
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_model_whose_process_is_given_up_has_the_server_started_again(tmp_path: Path) -> None:
    path = odd_model(tmp_path / "model")
    model = Model.load(path, TRUSTED)
    with serving(model) as address:
        kill(model)
        model.infer(rows("", 1), timeout_s=60)
        assert not model.lost and why_not_serving(address) == ""  # it came back
        (path / "broken").touch()
        kill(model)
        with pytest.raises(ModelNotReady, match="does not start any more"):
            model.infer(rows("", 1), timeout_s=60)
        assert model.lost and why_not_serving(address) == "NOT_SERVING"


def test_its_status_is_that_of_the_answer() -> None:
    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-W", "error", "-m", "tensign.rpc.health", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stderr

    assert run("127.0.0.1:1") == (1, "127.0.0.1:1: UNAVAILABLE\n")
    assert run() == (2, "usage: python -m tensign.rpc.health HOST:PORT\n")
