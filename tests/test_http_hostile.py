"""What strangers send over HTTP: a status, one line that says what was wrong, nobody else harmed."""

from __future__ import annotations

import base64
import json
import math
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import CPU, save_mean_model
from tensign.config import ServerConfig
from tensign.demo import MODEL
from tensign.model import Model
from tensign.server import Server
from tensign.testing import running
from test_http import JSON, asked

ONE = [[[[1] * 3] * 5] * 4]
MIB = 1 << 20


def changed(value: Any) -> list[Any]:
    """The picture with one number that is none."""
    return json.loads(json.dumps(ONE).replace("1", json.dumps(value), 1))  # type: ignore[no-any-return]


# A body and what answers it: status, and a pattern of the text.
BAD: dict[str, tuple[Any, int, str]] = {
    "nothing": (b"", 400, "the text is empty"),
    "cut off": (b'{"inputs": [[', 400, "JSON: Expecting value"),
    "two documents": (b"{}{}", 400, "JSON: Extra data"),
    "a comment": (b"// hello", 400, "JSON: Expecting value"),
    "not UTF-8": (b'{"inputs": "\xff"}', 400, "not UTF-8 at byte 12"),
    "UTF-16": (json.dumps({"inputs": ONE}).encode("utf-16"), 400, "not UTF-8"),
    "deep lists": (b"[" * 100_000, 400, "nested too deep"),
    "deep maps": (b'{"a":' * 100_000, 400, "nested too deep"),
    "deep in inputs": (b'{"inputs":' + b"[" * 40_000 + b"]" * 40_000 + b"}", 400, "nested too deep"),
    "64 axes": (b'{"inputs":' + b"[" * 64 + b"1" + b"]" * 64 + b"}", 400, "expected uint8"),
    "33 axes": (b'{"inputs":' + b"[" * 33 + b"1" + b"]" * 33 + b"}", 400, "expected uint8"),
    "a name twice": (b'{"inputs": 1, "inputs": 2}', 400, "one name twice"),
    "a name twice, deep": (b'{"inputs": {"a": {"b": 1, "b": 2}}}', 400, "one name twice"),
    "5,000 digits": (b'{"inputs": [1' + b"0" * 5000 + b"]}", 400, "more digits"),
    "a list": ([], 400, "exactly one of"),
    "a number": (1, 400, "exactly one of"),
    "no form": ({}, 400, "exactly one of"),
    "two forms": ({"inputs": ONE, "instances": ONE}, 400, "got instances and inputs"),
    "all forms": (dict.fromkeys(("inputs", "instances", "dataframe_split", "dataframe_records"), ONE), 400, "exactly one of"),
    "NaN": ({"inputs": changed(math.nan)}, 400, "expected uint8 .*, got a missing value"),
    "Infinity": ({"inputs": changed(math.inf)}, 400, "cannot hold an infinite number"),
    "-Infinity": ({"inputs": changed(-math.inf)}, 400, "cannot hold an infinite number"),
    "1e999": (json.dumps({"inputs": ONE}).replace("1", "1e999").encode(), 400, "cannot hold an infinite number"),
    "1.7": ({"inputs": changed(1.7)}, 400, r"cannot hold a fraction \(row 0 at \[0, 0, 0\]\)"),
    "300": ({"inputs": changed(300)}, 400, "cannot hold a number of that size"),
    "-1": ({"inputs": changed(-1)}, 400, "cannot hold a negative number"),
    "2**63": ({"inputs": changed(2**63)}, 400, "cannot hold a number of that size"),
    "2**70": ({"inputs": changed(2**70)}, 400, "expected uint8"),
    "null": ({"inputs": changed(None)}, 400, "expected uint8 .*, got"),
    "a text": ({"inputs": changed("secret")}, 400, "expected uint8 .*, got text"),
    "a map": ({"inputs": changed({"a": 1})}, 400, "expected uint8"),
    "ragged": ({"inputs": [*ONE, ONE[0][:2]]}, 400, "equal lengths"),
    "another rank": ({"inputs": ONE[0]}, 400, r"expected uint8 \[-1,4,5,3\]"),
    "another axis": ({"inputs": [[[[1] * 4] * 5] * 4]}, 400, r"expected uint8 \[-1,4,5,3\]"),
    "300 of one axis": ({"inputs": [300]}, 400, r"cannot hold a number of that size \(row 0\)"),
    "brackets in a text": (b'{"inputs": "' + b"[" * 200 + b'"}', 400, "got text"),
    "brackets in a text, one quote escaped": (b'{"inputs": "\\"' + b"[" * 200 + b'"}', 400, "got text"),
    "a text that does not end": (b'{"inputs": "' + b"\\a" * 100_000, 400, "JSON: "),
    "101 lists": (b"[" * 101 + b"]" * 101, 400, "nested too deep; at most 100"),
    "no rows": ({"inputs": []}, 400, "expected uint8|at least 1 row"),
    "a map where there are no names": ({"inputs": {"image": ONE}}, 400, "no name"),
    "instances that name different things": ({"instances": [{"a": 1}, {"b": 1}]}, 400, "row 1 does not name"),
    "records as a map": ({"dataframe_records": {"a": 1}}, 400, "a list of maps, got a map"),
    "split as a list": ({"dataframe_split": [1]}, 400, 'map with "data"'),
    "split, two columns of one name": ({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}, 400, "name of its own"),
    "split, a column without a name": ({"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}, 400, "1 columns are named"),
    "split, the index too short": (
        {"dataframe_split": {"data": [[1], [2]], "index": [1]}},
        400,
        "names 1 rows, the data has 2",
    ),
    "more lists than bytes": (b'{"inputs": [' + b"[]," * 1_000_000 + b"[]]}", 400, "expected uint8"),
}
PATHS: dict[str, tuple[str, str, int]] = {
    "unknown path": ("GET", "/other", 404),
    "unknown model": ("POST", "/models/other/invocations", 404),
    "a path that climbs": ("GET", "/models/../../etc/passwd", 404),
    "an escaped path that climbs": ("POST", "/models/%2e%2e%2f/invocations", 404),
    "GET of what is posted": ("GET", "/invocations", 405),
    "POST of what is got": ("POST", "/ping", 405),
    "DELETE": ("DELETE", "/invocations", 405),
    "a slash too many": ("POST", "/invocations/", 404),
}
TYPES = {
    "none": "",
    "text": "text/plain",
    "octets": "application/octet-stream",
    "form": "application/x-www-form-urlencoded",
    "another charset": "application/json; charset=latin-1",
    "another parameter": "application/json; version=2",
    "endless": "x" * 4000,
}
SAME_TYPE = (
    "application/json",
    "Application/JSON",
    "application/json;",
    "application/json; charset=UTF-8",
    'application/json;Charset="utf-8"',
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A near-free model with small limits."""
    config = ServerConfig(grpc_port=0, http_port=0, drain_s=5, max_message_bytes=20 * MIB)
    path = save_mean_model(tmp_path_factory.mktemp("models") / "mean")
    with running(Model.load(path, CPU, name="mean"), config=config) as server:
        yield server


def healthy(server: Server) -> None:
    """A neighbour's request is answered, and rightly."""
    assert asked(server, "/invocations", {"inputs": ONE}) == (200, {"predictions": {"mean": [[1.0, 1.0, 1.0]]}})


# What Azure ML's face is sent: the same values under its own name.
SCORED = [case for case, (body, _, _) in BAD.items() if isinstance(body, dict) and body.keys() == {"inputs"}]


@pytest.mark.parametrize(("path", "case"), [*(("/invocations", case) for case in BAD), *(("/score", case) for case in SCORED)])
def test_bad_body(server: Server, path: str, case: str) -> None:
    body, status, text = BAD[case]
    if path == "/score":
        body = {"input_data": body["inputs"]}
    got, answer = asked(server, path, body)
    assert got == status
    assert re.search(text, answer["message"]), answer
    assert len(answer["message"]) < 1000 and "secret" not in answer["message"]
    assert ("error_code" in answer) == (path == "/invocations")
    healthy(server)


@pytest.mark.parametrize("case", PATHS)
def test_unknown_path_or_method(server: Server, case: str) -> None:
    method, path, status = PATHS[case]
    got, answer = asked(server, path, b"{}" if method == "POST" else None, method=method)
    assert got == status
    assert set(answer) == {"error_code", "message"}


@pytest.mark.parametrize("case", TYPES)
@pytest.mark.parametrize("path", ["/invocations", "/score"])
def test_wrong_content_type(server: Server, path: str, case: str) -> None:
    status, answer = asked(server, path, {"inputs": ONE}, {"content-type": TYPES[case]} if TYPES[case] else {})
    assert status == 415
    assert "wanted" in answer["message"] and len(answer["message"]) < 300


@pytest.mark.parametrize("kind", SAME_TYPE)
def test_a_content_type_is_written_in_several_ways(server: Server, kind: str) -> None:
    assert asked(server, "/invocations", {"inputs": ONE}, {"content-type": kind})[0] == 200


def test_one_connection_too_many_is_closed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensign.http.connection.most", lambda: 2)
    with connected(server) as one, connected(server) as two, connected(server) as three:
        for each in (one, two):
            each.sendall(head("/ping", method="GET"))
            assert said(each, until=b"\r\n\r\n\n").startswith(b"HTTP/1.1 200")
        assert said(three) == b""
    monkeypatch.undo()
    healthy(server)


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(server: Server) -> None:
    with connected(server) as stranger:
        stranger.sendall(head("/invocations", **{"Content-Length": str(21 * MIB)}))
        assert said(stranger).startswith(b"HTTP/1.1 413")


def test_a_chunked_body_is_read_up_to_the_limit(server: Server) -> None:
    body = json.dumps({"inputs": ONE}).encode()
    with connected(server) as stranger:
        chunks = b"".join(b"%x\r\n%s\r\n" % (1, body[at : at + 1]) for at in range(len(body)))
        stranger.sendall(head("/invocations", **{"Transfer-Encoding": "chunked"}) + chunks + b"0\r\n\r\n")
        assert said(stranger).startswith(b"HTTP/1.1 200")
    with connected(server) as stranger:
        stranger.sendall(head("/invocations", **{"Transfer-Encoding": "chunked"}))
        chunk = b"%x\r\n%s\r\n" % (MIB, b" " * MIB)
        try:
            for _ in range(40):
                stranger.sendall(chunk)
        except OSError:  # it answered and closed before it was all sent
            pass
        assert said(stranger).startswith(b"HTTP/1.1 413")
    healthy(server)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"x-%d: a\r\n" % number for number in range(20_000)),
    ],
    ids=["version", "TLS", "negative length", "two lengths", "length and chunks", "long path", "many headers"],
)
def test_what_is_no_http_is_refused(server: Server, head: bytes) -> None:
    with connected(server) as stranger:
        try:
            stranger.sendall(head)
        except OSError:
            pass
        assert said(stranger)[:10] in (b"HTTP/1.1 4", b"")
    healthy(server)


def test_a_client_that_stops_in_its_body_is_told_when_its_time_is_over(tmp_path: Path) -> None:
    config = ServerConfig(grpc_port=0, http_port=0, timeout_s=0.3)
    with running(Model.load(save_mean_model(tmp_path / "mean"), CPU, name="mean"), config=config) as server:
        with connected(server) as stranger:
            stranger.sendall(head("/invocations", **{"Content-Length": "100"}) + b'{"inputs": ')
            answer = said(stranger)
    assert answer.startswith(b"HTTP/1.1 504")
    assert b"within 0.3 s" in answer


def test_a_client_that_never_ends_its_headers_is_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensign.http.connection._HEADERS_S", 0.2)
    with connected(server) as silent, connected(server) as slow:
        slow.sendall(b"POST /invocations HTTP/1.1\r\nHost: a\r\n")
        assert said(silent) == b"" and said(slow) == b""
    healthy(server)


def test_an_answer_closes_the_connection_while_the_server_drains(server: Server) -> None:
    """Of a server of its own: its drain waits for a request that is on its way."""
    with running(Model.load(MODEL, CPU, name="demo"), config=ServerConfig(grpc_port=0, http_port=0, drain_s=10)) as demo:
        kept = connected(demo)
        kept.sendall(head("/ping", method="GET"))
        assert said(kept, until=b"\r\n\r\n\n").startswith(b"HTTP/1.1 200")
        held = connected(demo)
        picture = base64.b64encode((MODEL.parent / "pictures" / "rocket_640x427.jpg").read_bytes()).decode()
        body = json.dumps({"inputs": [picture]}).encode()
        held.sendall(head("/invocations", **{"Content-Length": str(len(body)), "Expect": "100-continue"}))
        assert said(held, until=b"\r\n\r\n").startswith(b"HTTP/1.1 100")  # the request is taken
        held.sendall(body[:-1])
        asked_to_stop = threading.Event()
        answers: list[bytes] = []

        def finish() -> None:
            asked_to_stop.wait(30)
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                kept.sendall(head("/ping", method="GET"))
                answers.append(said(kept, until=b"\r\n\r\n\n"))
                if answers[-1].startswith(b"HTTP/1.1 503"):
                    break
            kept.sendall(head("/invocations", **{"Content-Length": "2"}) + b"{}")
            answers.append(said(kept))
            held.sendall(body[-1:])
            answers.append(said(held))

        thread = threading.Thread(target=finish)
        thread.start()
        asked_to_stop.set()
    thread.join()
    kept.close()
    held.close()
    refused, answered = answers[-2:]
    assert refused.startswith(b"HTTP/1.1 503") and b"connection: close" in refused.lower()
    assert answered.startswith(b"HTTP/1.1 200") and b"predictions" in answered


def test_curl(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "body.json"
    file.write_text(json.dumps({"inputs": ONE * 400}))  # long enough for curl to ask first: Expect: 100-continue
    url = f"http://{server.http_address}/invocations"
    command = ["curl", "-sS", "-w", "\n%{http_code}", "-H", "Content-Type: application/json", "--data-binary", f"@{file}", url]
    for more in ([], ["-H", "Expect: 100-continue"], ["-H", "Transfer-Encoding: chunked"], ["--http1.0"]):
        content, status = subprocess.run(command + more, capture_output=True, text=True, check=True).stdout.rsplit("\n", 1)
        assert status == "200"
        assert len(json.loads(content)["predictions"]["mean"]) == 400


def connected(server: Server) -> socket.socket:
    assert server.http_address is not None
    host, port = server.http_address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=30)


def head(path: str, method: str = "POST", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: a", *(f"{name}: {value}" for name, value in (JSON | headers).items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def said(connection: socket.socket, until: bytes = b"") -> bytes:
    """All that the server says until it closes, or to the end of an answer whose length it told."""
    content = b""
    try:
        while piece := connection.recv(65536):
            content += piece
            if until and content.endswith(until):
                break
            if length := re.search(rb"content-length: (\d+)\r\n", content.lower()):
                if len(content.partition(b"\r\n\r\n")[2]) >= int(length[1]):
                    break
    except ConnectionError:
        pass
    return content
