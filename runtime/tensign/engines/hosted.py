"""The worker's side: runs one engine, whichever it is told, and answers one message after the other.

Started by process.py in a process of its own, by whatever Python the model wants; see channel.py for what crosses.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import socket
import sys
import traceback
from typing import Any

from tensign.engines.arena import BrokenFrame
from tensign.engines.channel import Channel, LostFrame
from tensign.errors import EngineError, ModelFailed, TooLarge

_SET_PDEATHSIG = 1  # of prctl(2)
_BAD_LUCK = "500"  # where memory runs out, the kernel shall take this process and not the server
_TRACE = 8000  # characters of a traceback's end


def main(connection: str, reads: str, writes: str) -> None:
    """Serves until the other side is gone. The arguments are file descriptors."""
    ctypes.CDLL(None, use_errno=True).prctl(_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the server's to understand
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(_BAD_LUCK)
    for descriptor in (connection, reads, writes):
        os.set_inheritable(int(descriptor), False)  # processes that the model starts must not keep the server waiting
    sys.argv[1:] = []
    channel = Channel(socket.socket(fileno=int(connection)), int(writes), int(reads))
    hosted = _Hosted()
    while True:
        try:
            header, arrays = channel.receive()
        except (EOFError, LostFrame):
            return
        except BrokenFrame as error:
            channel.send(_failure(EngineError(f"the worker could not read what it was sent: {error}")))
            continue
        try:
            answer, outputs = getattr(hosted, header["do"])(header, arrays)
            channel.send({**answer, "resident": _resident()}, outputs)
        except TooLarge as error:
            channel.send(_failure(ModelFailed(f"the model's answer: {error}")))
        except BaseException as error:  # sys.exit() of a model, too, is one answer that failed
            channel.send(_failure(error))


class _Hosted:
    """The one engine of this process; a method for each thing that the other side may ask to do."""

    def __init__(self) -> None:
        self._engine: Any = None

    def load(self, header: dict[str, Any], _: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        module, _, name = header["engine"].partition(":")
        self._engine = getattr(importlib.import_module(module), name)(**header["settings"])
        self._engine.load()
        specs = {kind: _listed(getattr(self._engine, kind)) for kind in ("inputs", "outputs")}
        known = {"labels": list(self._engine.labels), "threshold": self._engine.threshold}
        return {"device": self._engine.device, **specs, **known}, {}

    def warmup(self, header: dict[str, Any], arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        self._engine.warmup(arrays, header["params"])
        return {"apart": self._engine.apart}, {}

    def run(self, header: dict[str, Any], arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        outputs = self._engine.run(arrays, header["params"])
        form = self._engine.form
        return {"form": [form.kind, list(form.names)] if form else None}, outputs


def _failure(error: BaseException) -> dict[str, Any]:
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return {"error": type(error).__name__, "text": str(error)[:500], "trace": trace[-_TRACE:], "resident": _resident()}


def _listed(specs: Any) -> list[list[Any]]:
    return [[spec.name, spec.dtype.str, list(spec.shape)] for spec in specs]


def _resident() -> int:
    """Bytes of memory that this process alone has; what crosses lies in memory that it shares."""
    with open("/proc/self/statm") as file:
        _, resident, shared, *_ = map(int, file.read().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
