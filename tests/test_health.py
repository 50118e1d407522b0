"""Whether a server serves, as a container's HEALTHCHECK asks it."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from conftest import CPU
from tensign.model import Model
from tensign.rpc.health import why_not_serving
from tensign.testing import serving


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


def test_its_status_is_that_of_the_answer() -> None:
    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-W", "error", "-m", "tensign.rpc.health", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stderr

    assert run("127.0.0.1:1") == (1, "127.0.0.1:1: UNAVAILABLE\n")
    assert run() == (2, "usage: python -m tensign.rpc.health HOST:PORT\n")
