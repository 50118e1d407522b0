"""The worker's side: runs one engine, whichever it is told, and answers one message after the other.

Started by worker.py in a process of its own, by whatever Python the model wants; see frames.py for what crosses.
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

from tensign.engines.frames import Channel

_SET_PDEATHSIG = 1  # of prctl(2)
_BAD_LUCK = "500"  # where memory runs out, the kernel shall take this process and not the server


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
    engine: Any = None
    while True:
        try:
            header, arrays = channel.receive()
        except EOFError:
            return
        try:
            if header["do"] == "load":
                module, _, name = header["engine"].partition(":")
                engine = getattr(importlib.import_module(module), name)(**header["settings"])
                engine.load()
                answer, outputs = {"device": engine.device, **{kind: _listed(getattr(engine, kind)) for kind in _TENSORS}}, {}
            elif header["do"] == "warmup":
                engine.warmup(arrays, header["params"])
                answer, outputs = {}, {}
            else:
                outputs = engine.run(arrays, header["params"])
                answer = {"form": [engine.form.kind, list(engine.form.names)] if engine.form else None}
            channel.send({**answer, "resident": _resident()}, outputs)
        except BaseException as error:  # sys.exit() of a model, too, is one answer that failed
            traceback.print_exc()
            channel.send({"error": type(error).__name__, "text": str(error)[:500], "resident": _resident()})


_TENSORS = ("inputs", "outputs")


def _listed(specs: Any) -> list[list[Any]]:
    return [[spec.name, spec.dtype.str, list(spec.shape)] for spec in specs]


def _resident() -> int:
    """Bytes of memory that this process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
