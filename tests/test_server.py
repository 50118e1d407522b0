"""Start, health, drain."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2

from conftest import CPU
from tensign.client import Client
from tensign.config import ServerConfig
from tensign.errors import InvalidConfig, ModelNotReady
from tensign.model import Model
from tensign.repository import Repository
from tensign.rpc.codec import encode_request
from tensign.server import Server
from tensign.testing import serving

PIXELS = {"input-0": np.zeros((1, 4, 5, 3), np.uint8)}


def health(address: str, service: str = "") -> str:
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        return health_pb2.HealthCheckResponse.ServingStatus.Name(call(health_pb2.HealthCheckRequest(service=service)).status)


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService", "mean"])
def test_health_is_serving_for_the_server_the_service_and_each_model(mean_address: str, service: str) -> None:
    assert health(mean_address, service) == "SERVING"


def test_health_of_something_unknown_is_not_found(mean_address: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        health(mean_address, "other")
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_port_that_is_taken_is_an_error_not_a_shared_port(mean_model: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        model = Model.load(mean_model, CPU)
        with pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1:"):
            asyncio.run(Server(Repository([model]), ServerConfig(grpc_port=taken.getsockname()[1])).start())
        model.close()


def test_a_stopping_server_finishes_what_it_took_and_refuses_the_rest(mean_model: Path) -> None:
    answered: list[int] = []
    refused: list[Exception] = []
    under_way = threading.Event()

    def load(address: str) -> None:
        with Client(address) as client:
            while True:
                try:
                    client.infer(PIXELS)
                except ModelNotReady as error:
                    refused.append(error)
                    return
                answered.append(1)
                if len(answered) > 20:
                    under_way.set()

    with serving(Model.load(mean_model, CPU, name="mean")) as address:
        threads = [threading.Thread(target=load, args=(address,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert under_way.wait(30)
    for thread in threads:
        thread.join(30)
    assert len(refused) == 4  # ended by a clear status, none by another error or a hang


def test_an_idle_stream_does_not_hold_up_the_drain(mean_model: Path) -> None:
    patient = ServerConfig(grpc_port=0, drain_s=60)
    release = threading.Event()

    def one_then_nothing() -> Iterator[bytes]:
        yield encode_request("mean", PIXELS).SerializeToString()
        release.wait(60)

    with serving(Model.load(mean_model, CPU, name="mean"), config=patient) as address:
        channel = grpc.insecure_channel(address)
        answers = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer", bytes, bytes)(one_then_nothing())
        assert next(answers)
        started = time.perf_counter()
    assert time.perf_counter() - started < 30
    with pytest.raises(grpc.RpcError) as ended:
        next(answers)
    assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "the server is draining" in str(ended.value.details())
    release.set()
    channel.close()


def test_serving_what_cannot_be_served_raises_and_does_not_hang(mean_model: Path) -> None:
    models = [Model.load(mean_model, CPU, name="one") for _ in range(2)]
    with pytest.raises(InvalidConfig, match='two models are called "one"'), serving(*models):
        pass
    for model in models:
        model.close()


@pytest.mark.parametrize("bad", [{"grpc_port": 70000}, {"timeout_s": 0}, {"drain_s": -1}, {"max_message_bytes": 0}])
def test_a_knob_outside_its_range_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(InvalidConfig, match=next(iter(bad))):
        ServerConfig(**bad)  # type: ignore[arg-type]


def test_an_ipv6_host_is_put_in_brackets() -> None:
    assert ServerConfig(host="::1", grpc_port=1).address == "[::1]:1"
