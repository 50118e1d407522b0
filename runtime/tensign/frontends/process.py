"""One front end, a process of its own: a gRPC server over models whose batches run in the process that started it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from typing import Any

from tensign.admission import Admission
from tensign.config import ServerConfig
from tensign.engines.arena import BrokenFrame
from tensign.errors import TensignError
from tensign.frontends.description import described, follow
from tensign.frontends.link import Link
from tensign.frontends.remote import Calls, RemoteStatistics
from tensign.repository import Repository
from tensign.rpc.server import GrpcServer
from tensign.tuning import tune

_SET_PDEATHSIG = 1  # of prctl(2)
_BAD_LUCK = "500"  # where memory runs out, the kernel shall take this process and not the one with the models
_COUNTED_S = 0.5


def main(connection: int, writes: int, reads: int) -> None:
    """Serves until it is told to drain, or the other side is gone. The arguments are file descriptors."""
    ctypes.CDLL(None, use_errno=True).prctl(_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGTERM, signal.SIGINT):  # the server's to understand, who then has this one drain
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(_BAD_LUCK)
    for descriptor in (connection, writes, reads):
        os.set_inheritable(descriptor, False)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    tune()
    link = Link(socket.socket(fileno=connection), writes, reads)
    said, _, _ = link.receive()
    try:
        asyncio.run(_serve(link, said))
    except (TensignError, OSError, RuntimeError) as error:
        link.send({"do": "tell", "failed": str(error)})
    sys.exit()


async def _serve(link: Link, said: dict[str, Any]) -> None:
    calls, config = Calls(link), ServerConfig(**said["config"])
    models = [described(model, calls, number, said["front_ends"]) for number, model in enumerate(said["models"])]
    admission, drain, loop = Admission(config.max_inflight_bytes), asyncio.Event(), asyncio.get_running_loop()

    def heard(told: dict[str, Any]) -> None:
        if told["do"] == "drain":
            with contextlib.suppress(RuntimeError):  # the loop has ended: told twice
                loop.call_soon_threadsafe(drain.set)
        for model, state in zip(models, told.get("states", ()), strict=False):
            follow(model, state)

    def read() -> None:
        with contextlib.suppress(EOFError, BrokenFrame):
            calls.read(heard)
        os._exit(1)  # nobody is left to run anything

    threading.Thread(target=read, name="tensign-calls", daemon=True).start()
    server = GrpcServer(Repository(models), config, admission, shares_port=True)
    await server.start()
    link.send({"do": "tell", "listening": True})
    counted = [model.statistics for model in models if isinstance(model.statistics, RemoteStatistics)]
    counting = asyncio.create_task(_count(link, admission, counted))
    await drain.wait()
    counting.cancel()
    admission.close()
    await server.drain()
    await admission.drained(config.drain_s)
    await server.stop()
    for statistics in counted:
        statistics.tell()


async def _count(link: Link, admission: Admission, counted: Sequence[RemoteStatistics]) -> None:
    """Tells what is on its way here, and what was exchanged, for whoever asks the server."""
    told = (0, 0, 0)
    while True:
        for statistics in counted:
            statistics.tell()
        if (counts := admission.counts) != told:
            link.send({"do": "tell", "counts": counts})
            told = counts
        await asyncio.sleep(_COUNTED_S)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
