"""For tests of code that talks to tensign: a real server in this process, on a free loopback port."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tensign.config import ServerConfig
from tensign.model import Model
from tensign.repository import Repository
from tensign.rpc.server import Server


@contextmanager
def serving(*models: Model, config: ServerConfig | None = None) -> Iterator[str]:
    """Serves loaded models, yields "127.0.0.1:port", then drains and closes them."""
    config = config or ServerConfig(grpc_port=0, drain_s=5.0)
    started: threading.Event = threading.Event()
    failure: list[BaseException] = []
    server: list[Server] = []
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        stop.append((asyncio.get_running_loop(), asyncio.Event()))
        server.append(Server(Repository(list(models)), config))
        try:
            await server[0].start()
        except BaseException as error:
            failure.append(error)
            raise
        finally:
            started.set()
        await server[0].wait(stop[0][1])

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="tensign-server", daemon=True)
    thread.start()
    started.wait()
    if failure:
        raise failure[0]
    try:
        yield f"127.0.0.1:{server[0].port}"
    finally:
        loop, event = stop[0]
        loop.call_soon_threadsafe(event.set)
        thread.join()
