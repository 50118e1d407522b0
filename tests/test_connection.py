"""Where things go wrong between client and server: TLS, tokens, servers that go away."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import grpc
import numpy as np
import pytest
import trustme

from conftest import CPU
from tensign._pb import open_inference_pb2 as pb
from tensign.admission import Admission
from tensign.child import served
from tensign.client import AsyncClient, Client
from tensign.client.connection import Connection
from tensign.config import ModelConfig, ServerConfig
from tensign.demo import MODEL
from tensign.errors import DeadlineExceeded, InvalidConfig, ModelNotFound, ModelNotReady, QueueFull, TensignError, TooLarge
from tensign.model import Model
from tensign.repository import Repository
from tensign.rpc.service import InferenceService
from tensign.rpc.status import trailer_of
from tensign.testing import serving

PIXELS = np.arange(60, dtype=np.uint8).reshape(1, 4, 5, 3)


class Door(grpc.aio.ServerInterceptor):
    """Lets nobody in without the token, as a proxy in front of the server would."""

    def __init__(self, token: str) -> None:
        self.token = token

    async def intercept_service(self, continuation: Any, call: Any) -> Any:
        if ("authorization", f"Bearer {self.token}") in list(call.invocation_metadata):
            return await continuation(call)

        async def refuse(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token, or a wrong one")

        return grpc.unary_unary_rpc_method_handler(refuse)


@contextmanager
def serving_tls(model: Model, authority: trustme.CA, *, token: str = "", clients: bool = False) -> Iterator[str]:
    """The real service behind a real TLS port; `clients`: they show a certificate too."""
    started: Future[tuple[int, Callable[[], object]]] = Future()

    async def run() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        certificate = authority.issue_cert("localhost")
        pair = certificate.private_key_pem.bytes(), b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        credentials = grpc.ssl_server_credentials([pair], authority.cert_pem.bytes() if clients else None, clients)
        service = InferenceService(Repository([model]), ServerConfig(), Admission(1 << 20))
        server = grpc.aio.server(interceptors=[Door(token)] if token else [])
        server.add_generic_rpc_handlers((service.handler(),))
        port = server.add_secure_port("localhost:0", credentials)
        await server.start()
        started.set_result((port, lambda: loop.call_soon_threadsafe(stop.set)))
        await stop.wait()
        await server.stop(None)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    port, stop = started.result()
    try:
        yield f"localhost:{port}"
    finally:
        stop()
        thread.join()
        model.close()


@pytest.fixture
def authority(tmp_path: Path) -> tuple[trustme.CA, Path]:
    """A certificate authority of the test's own, and the file that says so."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return authority, tmp_path / "ca.pem"


def test_tls_with_an_authority_of_ones_own(mean_model: Path, authority: tuple[trustme.CA, Path]) -> None:
    ca, file = authority
    with serving_tls(Model.load(mean_model, CPU), ca) as address:
        with Client(address, tls=file) as client:
            assert client.infer(PIXELS)["output-0"].shape == (1, 3)
        with Client(address, tls=True, retries=0, timeout_s=5) as stranger, pytest.raises((ModelNotReady, DeadlineExceeded)):
            stranger.infer(PIXELS)
        with Client(address, retries=0, timeout_s=5) as plain, pytest.raises((ModelNotReady, DeadlineExceeded)):
            plain.infer(PIXELS)


def test_a_client_shows_its_certificate(mean_model: Path, authority: tuple[trustme.CA, Path], tmp_path: Path) -> None:
    ca, file = authority
    mine = ca.issue_cert("client@example.org")
    mine.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    for blob in mine.cert_chain_pems:
        blob.write_to_path(str(tmp_path / "cert.pem"), append=True)
    with serving_tls(Model.load(mean_model, CPU), ca, clients=True) as address:
        with Client(address, tls=file, certificate=(tmp_path / "cert.pem", tmp_path / "key.pem")) as client:
            assert client.infer(PIXELS)["output-0"].shape == (1, 3)
        with Client(address, tls=file, retries=0, timeout_s=5) as nobody, pytest.raises((ModelNotReady, DeadlineExceeded)):
            nobody.infer(PIXELS)


def test_a_token_travels_with_every_call_and_every_stream(mean_model: Path, authority: tuple[trustme.CA, Path]) -> None:
    ca, file = authority
    asked = 0

    def fresh() -> str:
        nonlocal asked
        asked += 1
        return "secret"

    with serving_tls(Model.load(mean_model, CPU), ca, token="secret") as address:
        with Client(address, tls=file, token=fresh) as client:
            client.infer(PIXELS)
            assert [answer.error for answer in client.stream([{"input-0": PIXELS}] * 3)] == [None] * 3
        assert asked >= 3
        with Client(address, tls=file, token="wrong") as client, pytest.raises(TensignError, match="no token, or a wrong one"):
            client.infer(PIXELS)


def test_what_could_not_be_safe_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(InvalidConfig, match=r"token: would travel to example\.org:8001 in the clear"):
        Client("example.org:8001", token="secret")
    with pytest.raises(InvalidConfig, match="certificate: needs tls"):
        Client("localhost:8001", certificate=("cert.pem", "key.pem"))
    with pytest.raises(InvalidConfig, match="retries: wanted 0 to 4, got 9"):
        Client("localhost:8001", retries=9)
    with pytest.raises(InvalidConfig, match="in the clear"):
        Client("127.attacker.example:80", token="secret")
    for address in ("localhost:1", "127.0.0.1:1", "[::1]:1", "unix:///run/x.sock"):
        Connection(address, token="secret")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_stream_goes_on_over_servers_that_come_and_go(mean_model: Path) -> None:
    """Servers are killed in mid-stream; every answer arrives once, in order."""
    config = ServerConfig(grpc_port=free_port(), drain_s=0.01)
    sent = 3000
    up, enough = threading.Event(), threading.Event()

    def servers() -> None:
        while not enough.is_set():
            with serving(Model.load(mean_model, CPU), config=config):
                up.set()
                enough.wait(0.3)

    thread = threading.Thread(target=servers)
    thread.start()
    try:
        assert up.wait(30)
        with Client(f"127.0.0.1:{config.grpc_port}") as client:
            rows = ({"input-0": np.full((1 + n % 3, 4, 5, 3), n % 256, np.uint8)} for n in range(sent))
            answers = [answer.checked().outputs["output-0"] for answer in client.stream(rows)]
    finally:
        enough.set()
        thread.join()
    assert len(answers) == sent
    for n, answer in enumerate(answers):
        np.testing.assert_array_equal(answer, np.full((1 + n % 3, 3), n % 256, np.float32))


def test_a_stream_outlives_its_connections(mean_model: Path) -> None:
    young = ServerConfig(grpc_port=0, drain_s=5.0, max_connection_age_s=0.2)
    until = time.monotonic() + 1.5

    def rows() -> Iterator[dict[str, Any]]:
        while time.monotonic() < until:
            yield {"input-0": PIXELS}

    opened: list[str] = []

    def token() -> str:  # asked once for each connection of the stream
        opened.append("")
        return "x"

    with serving(Model.load(mean_model, CPU), config=young) as address, Client(address, token=token) as client:
        client.metadata()
        opened.clear()
        assert {answer.error for answer in client.stream(rows())} == {None}
    assert len(opened) >= 4


def test_a_stream_waits_for_a_server_that_answered_before(mean_model: Path) -> None:
    """Killed, and started again only after more attempts than `retries` allows for one that never answered."""
    port, again = free_port(), threading.Event()
    attempts = 0

    def token() -> str:  # asked for once for each attempt
        nonlocal attempts
        attempts += 1
        if attempts == 5:
            again.set()
        return "x"

    def rows() -> Iterator[dict[str, Any]]:
        for n in range(300):
            yield {"input-0": np.full((1, 4, 5, 3), n % 256, np.uint8)}

    command = [sys.executable, "-m", "tensign", "serve", str(mean_model), "--device", "cpu", "--grpc-port", str(port)]
    with ExitStack() as stack:

        def started() -> subprocess.Popen[str]:
            server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(server.kill)
            assert server.stdout is not None and "grpc://" in server.stdout.readline()
            return server

        first = started()
        client = stack.enter_context(Client(f"127.0.0.1:{port}", retries=1, token=token))
        client.metadata()
        attempts = 0
        answers = client.stream(rows(), window=8)
        found = [next(answers)]
        first.kill()
        first.wait()
        restart = threading.Thread(target=lambda: again.wait(60) and started())
        restart.start()
        found.extend(answers)
        restart.join()
    assert attempts >= 5
    means = [answer.checked().outputs["output-0"][0, 0] for answer in found]
    np.testing.assert_array_equal(means, np.arange(300) % 256)


def test_a_server_that_comes_back_with_another_model_does_not_answer_with_old_labels(
    relabelled: tuple[Path, Path], pictures: list[Path]
) -> None:
    config = ServerConfig(grpc_port=free_port(), drain_s=0.01)
    first, second = relabelled
    asked = threading.Event()

    def images() -> Iterator[Path]:
        yield pictures[3]
        assert asked.wait(60)
        yield pictures[3]

    with Client(f"127.0.0.1:{config.grpc_port}") as client:
        with serving(Model.load(first, CPU, name="m"), config=config):
            assert client.predict(pictures[3]).label == "espresso"
            stream = client.stream(images())
            assert next(stream).label == "espresso"
        with serving(Model.load(second, CPU, name="m"), config=config):
            assert client.predict(pictures[3]).label == "ESPRESSO"
            asked.set()
            with pytest.raises(ModelNotReady, match="the server has another model since"):
                list(stream)
            assert client.metadata().labels[967] == "ESPRESSO"
        with serving(Model.load(second, CPU, name="renamed"), config=config):
            with pytest.raises(ModelNotFound):
                client.predict(pictures[3])
            assert client.predict(pictures[3]).label == "ESPRESSO"


@pytest.fixture
def relabelled(tmp_path: Path) -> tuple[Path, Path]:
    """The bundled model, and the same with other labels."""
    other = shutil.copytree(MODEL, tmp_path / "other")
    file = other / "labels.json"
    file.write_text(file.read_text().replace("espresso", "ESPRESSO"))
    return MODEL, other


def test_a_server_that_dies_and_stays_dead_is_told_at_the_deadline(mean_model: Path) -> None:
    with served(mean_model, "--device", "cpu") as address:
        client = Client(address, retries=2, timeout_s=2)
        answers = client.stream({"input-0": PIXELS} for _ in range(100_000))
        next(answers)
    with client, pytest.raises(ModelNotReady, match=f"^{address}: cannot connect: Connection refused$"):
        list(answers)


@contextmanager
def speaking(words: bytes) -> Iterator[str]:
    """A server of some other protocol: says its words to whoever says something, then hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with listener.accept()[0] as client:
                        client.recv(65536)
                        client.sendall(words)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def said(address: str, **options: Any) -> str:
    """What a client hears that asks there, without the address."""
    with Client(address, retries=0, timeout_s=20, **options) as client, pytest.raises(ModelNotReady) as failed:
        client.statistics()
    text = str(failed.value)
    assert text.startswith(f"{address}: ")
    return text.removeprefix(f"{address}: ")


def test_who_cannot_connect_is_told_the_likely_cause(mean_model: Path, authority: tuple[trustme.CA, Path]) -> None:
    ca, file = authority
    assert said(f"127.0.0.1:{free_port()}") == "cannot connect: Connection refused"
    assert said("nowhere.invalid:8001").startswith("cannot connect: ")
    assert "errors resolving" not in said("nowhere.invalid:8001")
    no_grpc = "cannot connect: what answers there is no gRPC server that speaks without TLS; perhaps this is the HTTP port"
    with speaking(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") as other:
        assert said(other) == no_grpc
        assert said(other, tls=True) == "cannot connect: it does not speak TLS; connect without"
    with speaking(b"") as other:
        assert said(other).startswith("cannot connect: it closed the connection at once; perhaps it wants TLS")
    with serving_tls(Model.load(mean_model, CPU), ca) as address:
        assert "TLS" in said(address)
        assert "its certificate is not trusted" in said(address, tls=True)
        ip = address.replace("localhost", "127.0.0.1")
        assert said(ip, tls=file) == "cannot connect: its certificate is for another host name"
    with serving(Model.load(mean_model, CPU)) as address:
        assert "does not speak TLS" in said(address, tls=file)


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("", "got nothing"),
        (None, "got None"),
        (8001, "got 8001"),
        ("127.0.0.1", "got 127"),
        ("localhost:", "got localhost:"),
        (":8001", "got :8001"),
        ("::1:8001", "an IPv6 address stands in brackets"),
        ("localhost:99999", "the port 1 to 65535"),
        ("http://127.0.0.1:8001", "no URL"),
        ("grpcs://127.0.0.1:8001", "no URL"),
    ],
)
def test_an_address_is_host_and_port(address: Any, wanted: str) -> None:
    with pytest.raises(InvalidConfig, match=rf"^address: wanted host:port.*{wanted}"):
        Client(address)


def test_a_file_without_a_certificate_is_named(mean_model: Path) -> None:
    with (
        Client("127.0.0.1:1", tls=mean_model / "MLmodel") as client,
        pytest.raises(InvalidConfig, match="MLmodel holds no PEM"),
    ):
        client.ready()


def test_a_server_that_stops_answering_is_noticed() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with Client(address, timeout_s=0.3, retries=0) as client:
            assert not client.ready()
            with pytest.raises((DeadlineExceeded, ModelNotReady)):
                client.statistics()


@contextmanager
def cutting(address: str, seed: int) -> Iterator[tuple[str, list[int]]]:
    """A proxy that cuts every connection after so many bytes, and counts how often."""
    host, port = address.rsplit(":", 1)
    random, cuts, open_sockets = Random(seed), [0], list[socket.socket]()

    def pipe(source: socket.socket, target: socket.socket, left: int) -> None:
        with contextlib.suppress(OSError):
            while left and (data := source.recv(min(left, 65536))):
                target.sendall(data)
                left -= len(data)
            cuts[0] += not left
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection((host, int(port)))
                open_sockets.extend((client, server))
                for source, target, most in ((client, server, 60_000), (server, client, 30_000)):
                    threading.Thread(target=pipe, args=(source, target, random.randint(500, most)), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", cuts
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for end in open_sockets:
                end.close()


@pytest.mark.parametrize("seed", range(5))
def test_a_connection_that_is_cut_anywhere_gives_nobody_anothers_answer(mean_model: Path, seed: int) -> None:
    config = ModelConfig(device="cpu", max_batch_size=4)
    with serving(Model.load(mean_model, config)) as address, cutting(address, seed) as (cut, cuts):
        with Client(cut, timeout_s=30) as client:
            rows = ({"input-0": np.full((1 + n % 11, 4, 5, 3), n % 251, np.uint8)} for n in range(600))
            answers = [answer.checked().outputs["output-0"] for answer in client.stream(rows, window=20)]
        assert cuts[0] > 3
    assert len(answers) == 600
    for n, answer in enumerate(answers):
        np.testing.assert_array_equal(answer, np.full((1 + n % 11, 3), n % 251, np.float32))


def test_a_server_that_ends_streams_early_is_asked_for_the_rest() -> None:
    """It answers three, and says that this was all."""
    seen: list[str] = []

    async def infer(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[bytes]:
        answered = 0
        async for request in requests:
            name = pb.ModelInferRequest.FromString(request).id
            seen.append(name)
            yield pb.ModelStreamInferResponse(infer_response=pb.ModelInferResponse(id=name)).SerializeToString()
            answered += 1
            if answered == 3:
                return

    async def use() -> list[str]:
        server = grpc.aio.server()
        methods: dict[str, Any] = {"ModelStreamInfer": grpc.stream_stream_rpc_method_handler(infer)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        sent = [pb.ModelInferRequest(id=str(n)).SerializeToString() for n in range(40)]
        async with AsyncClient(f"127.0.0.1:{port}") as client:
            got = [answer.infer_response.id async for answer in client.send_stream(sent, window=10)]
        await server.stop(None)
        return got

    assert asyncio.run(use()) == [str(n) for n in range(40)]
    assert len(seen) >= 40


def test_a_dead_address_is_given_up_after_the_retries_that_were_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        calls = 0

        def refuse() -> None:
            nonlocal calls
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()
                    calls += 1

        refusing = threading.Thread(target=refuse)
        refusing.start()
        with Client(f"127.0.0.1:{listener.getsockname()[1]}", retries=1) as client, pytest.raises(ModelNotReady):
            list(client.send_stream([b"x"]))
        listener.shutdown(socket.SHUT_RDWR)
        refusing.join()
    assert calls <= 2


def test_unary_calls_try_again_where_nothing_was_computed(mean_model: Path) -> None:
    """The first answers are refusals; a request that could never fit is not tried twice."""
    seen: list[str] = []

    async def infer(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        seen.append(request.decode())
        if request == b"large":
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "never", trailer_of(TooLarge("never")))
        if len(seen) < 3:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "not now")
        if len(seen) < 4:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not here")
        return b""

    async def use() -> None:
        server = grpc.aio.server()
        methods: dict[str, Any] = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with AsyncClient(f"127.0.0.1:{port}") as client:
            big = b"x" * 3_000_000  # far above what gRPC remembers unless told otherwise
            await client.send(big)
            assert seen == [big.decode()] * 4
            seen.clear()
            with pytest.raises(TooLarge, match="never"):
                await client.send(b"large")
            assert seen == ["large"]
        async with AsyncClient(f"127.0.0.1:{port}", retries=0) as hasty:
            seen.clear()
            with pytest.raises(QueueFull, match="not now"):
                await hasty.send(b"small")
            assert seen == ["small"]
        await server.stop(None)

    asyncio.run(use())
