"""Puts the HTTP faces on a port of their own, in the event loop of the gRPC server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from tensign.admission import Admission
from tensign.config import ServerConfig
from tensign.http.app import make_app
from tensign.http.connection import Connection
from tensign.repository import Repository

_BACKLOG = 1024
_LAST_ANSWERS_S = 1.0  # for what is written, but not yet sent


class HttpServer:
    """One HTTP/1.1 server over one Repository. `port` is the port it really listens on, once started."""

    def __init__(self, repository: Repository, config: ServerConfig, admission: Admission) -> None:
        self._config = config
        app = make_app(repository, config, admission)
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=int(_LAST_ANSWERS_S),
            )
        )
        self._serving: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Raises OSError when the port is taken, or the host is not one of this machine."""
        listener = _listener(self._config)
        self.port = listener.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve([listener]))

    async def stop(self) -> None:
        """Answers what is on its way and ends every connection."""
        if self._serving is not None:
            self._server.should_exit = True
            await self._serving


class _Uvicorn(uvicorn.Server):
    """Whoever runs the loop hears the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listener(config: ServerConfig) -> socket.socket:
    """Bound and listening, so that nobody who reads the port is too early."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.http_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise OSError(
            f"cannot listen on {config.bracketed_host}:{config.http_port} for HTTP: {error.strerror or error}"
        ) from None
    return listener
