"""For tests of code that talks to tensign: a real server in this process, on a free loopback port."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial

from tensign.config import ServerConfig
from tensign.model import Model
from tensign.repository import Repository
from tensign.server import Server


@contextmanager
def serving(*models: Model, config: ServerConfig | None = None) -> Iterator[str]:
    """Serves loaded models over gRPC, yields "127.0.0.1:port", then drains and closes them."""
    with running(*models, config=config or ServerConfig(grpc_port=0, drain_s=5.0)) as server:
        yield server.grpc_address


@contextmanager
def running(*models: Model, config: ServerConfig | None = None) -> Iterator[Server]:
    """The same with HTTP beside it; yields the server, whose `grpc_address` and `http_address` tell where it listens."""
    config = config or ServerConfig(grpc_port=0, http_port=0, drain_s=5.0)
    started: Future[tuple[Server, Callable[[], object]]] = Future()

    async def run() -> None:
        try:
            stop, loop = asyncio.Event(), asyncio.get_running_loop()
            server = Server(Repository(list(models)), config)
            await server.start()
            started.set_result((server, partial(loop.call_soon_threadsafe, stop.set)))
        except BaseException as error:
            started.set_exception(error)
            return
        await server.wait(stop)

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="tensign-server", daemon=True)
    thread.start()
    server, stop = started.result()
    try:
        yield server
    finally:
        stop()
        thread.join()
