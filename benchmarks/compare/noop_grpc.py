"""No rival: the floor of grpcio itself, which takes the bytes of a message, looks at none of them and sends a fixed answer."""

from __future__ import annotations

from functools import partial

from compare.loads import Load
from compare.rival import HERE, Rival, Stage
from compare.wire import infer_answer, infer_request
from h2load import Request


def _command(mode: str, stage: Stage) -> list[str]:
    return [str(stage.python), str(HERE.parent / "noop_server.py"), mode, "--raw", "--port", str(stage.ports[0])]


def _request(load: Load) -> Request:
    return infer_request("m", "image", load.pictures)


def _floor(mode: str, of: str) -> Rival:
    note = "takes the bytes of a message, looks at none, sends a fixed answer"
    return Rival(f"no-op grpcio, {of}", partial(_command, mode), _request, infer_answer, note=note, computes=False)


AIO, THREADS = _floor("aio", "asyncio"), _floor("threads", "threads")
