"""The HTTP faces as their clients see them: a real server, real bytes."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import CPU
from tensign.client import Client
from tensign.demo import MODEL
from tensign.model import Model
from tensign.server import Server
from tensign.testing import running
from tensign.version import __version__

JSON = {"content-type": "application/json"}


def asked(
    server: Server, path: str, body: Any = None, headers: dict[str, str] | None = None, method: str = ""
) -> tuple[int, Any]:
    """Status and answer of one request; what is no bytes is sent as JSON, what comes as JSON is parsed."""
    assert server.http_address is not None
    sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    with closing(http.client.HTTPConnection(server.http_address, timeout=60)) as connection:
        connection.request(method or ("GET" if body is None else "POST"), path, sent, JSON if headers is None else headers)
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if path not in ("/ping", "/health", "/version", "/") else content.decode()


@pytest.fixture(scope="module")
def demo() -> Iterator[Server]:
    """A running server of the bundled EfficientNet-Lite0, over gRPC and HTTP."""
    with running(Model.load(MODEL, CPU, name="demo")) as server:
        yield server


@pytest.mark.parametrize(("path", "text"), [("/ping", "\n"), ("/health", "\n"), ("/version", __version__)])
def test_what_probes_ask(demo: Server, path: str, text: str) -> None:
    assert asked(demo, path) == (200, text)


def test_both_faces_answer_the_same(demo: Server) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), np.uint8)
    status, answer = asked(demo, "/invocations", {"inputs": pixels.tolist()})
    with Client(demo.grpc_address) as client:
        expected = client.infer({"image": pixels})["probabilities"]
    assert status == 200
    assert np.abs(np.array(answer["predictions"]["probabilities"]) - expected).max() < 1e-6


def test_digits_onnx_matches_its_golden_predictions(fixture_dir: Callable[[str], Path]) -> None:
    path = fixture_dir("digits-onnx")
    golden = np.load(path / "golden.npz")
    with running(Model.load(path, CPU)) as server:
        status, answer = asked(server, "/invocations", {"inputs": golden["inputs"].tolist()})
    assert status == 200
    assert np.abs(np.array(answer["predictions"]["probabilities"]) - golden["outputs"]).max() < 1e-5
