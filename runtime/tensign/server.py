"""One server: the faces over one Repository in one event loop, which start together and drain together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from tensign.admission import Admission
from tensign.config import ServerConfig
from tensign.frontends.keeper import FrontEnds
from tensign.repository import Repository
from tensign.rpc.server import GrpcServer

log = logging.getLogger(__name__)

_LAST_S = 1.0  # for models that have to close when the time to drain is over


class Server:
    """gRPC, and HTTP where the config has a port for it. The ports are those it really listens on, once started."""

    def __init__(self, repository: Repository, config: ServerConfig) -> None:
        self._repository = repository
        self._config = config
        self._admission = Admission(config.max_inflight_bytes)
        self._grpc: GrpcServer | FrontEnds
        if config.front_ends:
            self._grpc = FrontEnds(repository, config, self._admission)
        else:
            self._grpc = GrpcServer(repository, config, self._admission)
        self._http = None
        if config.http_port is not None:
            from tensign.http.server import HttpServer  # a fifth of a second, which a server without it does not pay

            self._http = HttpServer(repository, config, self._admission)

    @property
    def grpc_address(self) -> str:
        """HOST:PORT for gRPC clients."""
        return f"{self._config.bracketed_host}:{self._grpc.port}"

    @property
    def http_address(self) -> str | None:
        """HOST:PORT for HTTP clients; None where there is no HTTP."""
        return f"{self._config.bracketed_host}:{self._http.port}" if self._http else None

    async def start(self) -> None:
        """Raises OSError when a port is taken, or the host is not one of this machine."""
        await self._grpc.start()
        if self._http:
            try:
                await self._http.start()
            except OSError:
                await self._grpc.stop()
                raise

    async def stop(self) -> None:
        """Says not ready, refuses new requests, finishes those in flight, then closes the models."""
        if active := self._admission.counts[0]:
            log.info("draining %d calls, for at most %g s", active, self._config.drain_s)
        until = time.monotonic() + self._config.drain_s
        self._admission.close()
        await self._grpc.drain()
        await self._admission.drained(self._config.drain_s)
        await asyncio.gather(self._grpc.stop(), *([self._http.stop()] if self._http else []))
        await asyncio.to_thread(self._repository.close, max(until - time.monotonic(), _LAST_S))

    async def wait(self, stop: asyncio.Event) -> None:
        """Serves until `stop` is set, then drains."""
        with contextlib.suppress(asyncio.CancelledError):
            await stop.wait()
        await self.stop()
