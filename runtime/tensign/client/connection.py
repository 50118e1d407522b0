"""Where a server is and how to speak to it: TLS, token, limits, retries."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from tensign.client.reason import reason
from tensign.errors import DeadlineExceeded, InvalidConfig, ModelNotReady, TensignError, TooLarge
from tensign.rpc.status import error_of

_NAME = "inference.GRPCInferenceService"
_UNARY = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer", "ModelStatistics")
SERVICE = f"/{_NAME}/"
MAX_RETRIES = 4  # gRPC itself tries five times at most

_FIRST_BACKOFF_S, _MAX_BACKOFF_S, _BACKOFF_FACTOR = 0.1, 2.0, 3.0
_KEEPALIVE_MS, _KEEPALIVE_TIMEOUT_MS = 30_000, 10_000  # a dead peer is noticed within 40 s, also by a stream that waits
_TOO_LARGE = "message larger than max"  # gRPC's word, on either side
_TOO_LATE = "Deadline Exceeded"
_WRITTEN_TOO_LATE = "Internal error from Core"  # to a call that had ended: grpc/grpc#36066
_HOST_PORT = re.compile(r"(?P<host>\[[0-9a-fA-F:.%]+\]|[^\s:/@\[\]]+):(?P<port>[0-9]{1,5})")
_NAMES = re.compile(r"(unix|unix-abstract|dns|ipv4|ipv6|vsock):[^\s]+")  # what else gRPC resolves
_RETRIED_BYTES = 1 << 30  # gRPC forgets how to repeat a larger message; its default is less than one photograph


@dataclass(frozen=True, slots=True)
class Connection:
    """address: "host:port", or any other name that gRPC resolves ("unix:///run/x.sock", "dns:///host:port").

    tls: True trusts the system's authorities, a path names a PEM file of others. certificate: (certificate, key) PEM files
    that show the server who we are. token: sent as `authorization: Bearer ...`; a function is asked anew for every call.
    retries: how often something is tried again that the server did not take up, 0 to 4. Raises InvalidConfig.
    """

    address: str
    tls: bool | str | Path = False
    certificate: tuple[str | Path, str | Path] | None = None
    token: str | Callable[[], str] | None = None
    retries: int = MAX_RETRIES

    def __post_init__(self) -> None:
        _check(self.address)
        if not 0 <= self.retries <= MAX_RETRIES:
            raise InvalidConfig(f"retries: wanted 0 to {MAX_RETRIES}, got {self.retries}")
        if self.certificate is not None and self.tls is False:
            raise InvalidConfig("certificate: needs tls")
        if self.token is not None and self.tls is False and not self._is_local:
            raise InvalidConfig(f"token: would travel to {self.address} in the clear; needs tls")

    def open(self) -> grpc.aio.Channel:
        """A channel of the running event loop; it connects when it is used. Raises OSError where a PEM file cannot be read."""
        if self.tls is False:
            return grpc.aio.insecure_channel(self.address, options=self._options)
        roots = None if self.tls is True else Path(self.tls).read_bytes()
        if roots is not None and b"-----BEGIN " not in roots:  # gRPC would say that the connection was refused
            raise InvalidConfig(f"tls: {self.tls} holds no PEM certificate")
        chain, key = (None, None) if self.certificate is None else map(_read, self.certificate)
        credentials = grpc.ssl_channel_credentials(roots, key, chain)
        return grpc.aio.secure_channel(self.address, credentials, options=self._options)

    async def metadata(self) -> tuple[tuple[str, str], ...]:
        """Sent with every call."""
        if self.token is None:
            return ()
        token = self.token if isinstance(self.token, str) else await asyncio.to_thread(self.token)  # it may ask somebody
        return (("authorization", f"Bearer {token}"),)

    def failure(self, error: grpc.RpcError, deadline_s: float | None = None) -> TensignError:
        """What a failed call means. deadline_s: the one it had."""
        said = error.details() or ""
        if said == _WRITTEN_TOO_LATE:
            return ModelNotReady(f"{self.address}: the connection broke")
        if _TOO_LARGE in said:
            return TooLarge(f"{self.address}: {said}")
        if said == _TOO_LATE and deadline_s is not None:  # by our own clock: a server says how long it had
            return DeadlineExceeded(f"{self.address}: no answer within {deadline_s:.3g} s")
        trailer: Any = error.trailing_metadata()
        return error_of(error.code(), reason(said, tls=self.tls is not False), self.address, trailer or ())

    def backoff_s(self, failures: int) -> float:
        """How long to wait after so many failures in a row."""
        return min(_FIRST_BACKOFF_S * _BACKOFF_FACTOR ** (failures - 1), _MAX_BACKOFF_S)

    @property
    def _is_local(self) -> bool:
        host = self.address.removeprefix("dns:///").rpartition(":")[0]
        if self.address.startswith("unix:") or host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def _options(self) -> list[tuple[str, Any]]:
        return [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
            ("grpc.max_reconnect_backoff_ms", int(_MAX_BACKOFF_S * 1000)),  # 120 s, unless told: a server is back sooner
            ("grpc.use_local_subchannel_pool", 1),  # else clients of one process would share one connection
            ("grpc.per_rpc_retry_buffer_size", _RETRIED_BYTES),
            ("grpc.enable_retries", int(self.retries > 0)),
            ("grpc.service_config", json.dumps(self._service_config)),
        ]

    @property
    def _service_config(self) -> dict[str, Any]:
        if not self.retries:
            return {}
        policy = {
            "maxAttempts": self.retries + 1,
            "initialBackoff": f"{_FIRST_BACKOFF_S}s",
            "maxBackoff": f"{_MAX_BACKOFF_S}s",
            "backoffMultiplier": _BACKOFF_FACTOR,
            # Either means that nothing was computed, or that computing it again gives the same.
            "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
        }
        # Never streams: gRPC would replay them beneath the exchange, which knows better what was answered.
        names = [{"service": _NAME, "method": method} for method in _UNARY]
        return {"methodConfig": [{"name": names, "retryPolicy": policy}]}


def _check(address: object) -> None:
    wanted = "address: wanted host:port"
    if not isinstance(address, str):
        raise InvalidConfig(f"{wanted}, got {address!r:.100}")
    if "://" in address and not _NAMES.fullmatch(address):
        raise InvalidConfig(f"{wanted} of a gRPC server, no URL, got {address}")
    if _NAMES.fullmatch(address):
        return
    if not (found := _HOST_PORT.fullmatch(address)):
        hint = "; an IPv6 address stands in brackets" if address.count(":") > 1 else ""
        raise InvalidConfig(f"{wanted}, got {address or 'nothing'}{hint}")
    if not 0 < int(found["port"]) < 1 << 16:
        raise InvalidConfig(f"{wanted}, the port 1 to 65535, got {address}")


def _read(file: str | Path) -> bytes:
    return Path(file).read_bytes()
