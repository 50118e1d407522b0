"""A connection that may not linger: uvicorn bounds the time between requests, this the time until a request has come."""

from __future__ import annotations

import asyncio
import resource
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

_HEADERS_S = 20.0  # from the first byte, or from the connection, to the end of the headers
_LAST_BYTES_S = 60.0  # for a client to fetch what was written before it is cut off
_MANY = 1 << 14  # connections


def most() -> int:
    """Connections that may be open: half of the system's limit, for gRPC and the models want files, too."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MANY if soft == resource.RLIM_INFINITY else max(min(soft // 2, _MANY), 1)


class Connection(H11Protocol):
    """uvicorn's, with a limit on how long headers may take to come and answers to be fetched."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > most():
            transport.abort()
            return
        self._patience = self.loop.call_later(_HEADERS_S, self._give_up)

    def handle_events(self) -> None:
        """While a request is on its way its own deadline holds; between requests uvicorn's keep-alive does."""
        waiting = self.cycle is None or self.cycle.response_complete
        super().handle_events()
        still = self.cycle is None or self.cycle.response_complete
        if not still:
            self._hear()
        elif waiting and self._patience is None and not self.transport.is_closing():
            self._patience = self.loop.call_later(_HEADERS_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._hear()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self.loop.call_later(_LAST_BYTES_S, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        if self.transport.get_write_buffer_size():
            self.loop.call_later(_LAST_BYTES_S, self.transport.abort)

    def _hear(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        self.transport.abort()
