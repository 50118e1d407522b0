"""Puts the service on a gRPC port, with health, reflection and limits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from tensign._pb import open_inference_pb2 as pb
from tensign.admission import Admission
from tensign.config import ServerConfig
from tensign.model import Model
from tensign.repository import Repository
from tensign.rpc.service import SERVICE, InferenceService

_KEEPALIVE_MS, _KEEPALIVE_TIMEOUT_MS = 60_000, 20_000  # a dead client's streams are given up within 80 s
_CLIENTS_MAY_PING_MS = 10_000  # gRPC's default of 5 minutes ends connections of clients that keep theirs alive
_HANDSHAKE_MS = 20_000  # a connection that says nothing keeps its descriptor no longer
_STREAMS = 1000  # of one connection at once; further calls wait at the client
_PENDING = 20_000  # calls that nobody has looked at yet; at gRPC's own 1000 a flood makes it cancel good ones at random
_LOOKS_S = 1.0  # between looks for what is lost
_LAST_ANSWERS_S = 1.0  # for what is written, but not yet sent


class GrpcServer:
    """One gRPC server over one Repository. `port` is the port it really listens on, once started."""

    def __init__(
        self, repository: Repository, config: ServerConfig, admission: Admission, *, shares_port: bool = False
    ) -> None:
        """shares_port: with other processes of this server, whose own keeps it."""
        self._repository = repository
        self._config = config
        self._shares_port = shares_port
        self._service = InferenceService(repository, config, admission)
        self._health = _Health(self._look)
        self._server: grpc.aio.Server | None = None
        self._looking: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Raises OSError when the port is taken, or the host is not one of this machine."""
        if not self._shares_port:
            check_free(self._config)
        self._server = grpc.aio.server(options=_options(self._config, self._shares_port))
        self._server.add_generic_rpc_handlers((self._service.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server, pool=_reflected())
        self.port = self._server.add_insecure_port(self._config.address)
        await self._server.start()
        self._set_health(health_pb2.HealthCheckResponse.SERVING, list(self._repository))
        self._looking = asyncio.create_task(self._keep_looking())

    async def drain(self) -> None:
        """Says not ready and reads no further requests.

        gRPC's own grace period would cancel calls that arrive meanwhile; a balancer understands UNAVAILABLE.
        """
        self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING, list(self._repository))
        self._service.stop_reading()

    async def stop(self) -> None:
        """Ends every connection."""
        if self._looking is not None:
            self._looking.cancel()
        if self._server is not None:
            await self._server.stop(_LAST_ANSWERS_S)
        self._service.forget()

    async def _keep_looking(self) -> None:
        """For those who watch: a device is lost on a lane's thread, or another process's, which know nothing of them."""
        while True:
            self._look()
            await asyncio.sleep(_LOOKS_S)

    def _look(self) -> None:
        """A model whose device is lost is served again by another process alone: whoever watches this one should start it."""
        if lost := [model for model in self._repository if model.lost]:
            self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING, lost)

    def _set_health(self, status: int, models: list[Model]) -> None:
        self._health.set(("", SERVICE.full_name, *(model.name for model in models)), status)


class _Health(health_pb2_grpc.HealthServicer):
    """Looks first, whenever somebody asks. That of grpcio-health-checking tells nobody any more once one of several leaves."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._statuses: dict[str, int] = {"": health_pb2.HealthCheckResponse.SERVING}
        self._changed = asyncio.Event()

    def set(self, names: Iterable[str], status: int) -> None:
        self._statuses.update(dict.fromkeys(names, status))
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(self, request: Any, context: Any) -> Any:
        self._look()
        if request.service not in self._statuses:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return health_pb2.HealthCheckResponse(status=self._statuses[request.service])

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        told: int | None = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            if status != told:
                yield health_pb2.HealthCheckResponse(status=status)
                told = status
            else:
                await changed.wait()


def _options(config: ServerConfig, shares_port: bool) -> list[tuple[str, int]]:
    options = [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", config.max_message_bytes),
        ("grpc.so_reuseport", int(shares_port)),  # two servers on one port by accident would share its requests
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _CLIENTS_MAY_PING_MS),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        ("grpc.max_concurrent_streams", _STREAMS),
        ("grpc.server.max_pending_requests", _PENDING),
        ("grpc.server.max_pending_requests_hard_limit", 2 * _PENDING),
    ]
    if config.max_connection_age_s:
        age_ms = int(config.max_connection_age_s * 1000)
        # A stream ends itself at that age, the youngest one as much later than the connection.
        grace_ms = age_ms + int(config.drain_s * 1000)
        options += [("grpc.max_connection_age_ms", age_ms), ("grpc.max_connection_age_grace_ms", grace_ms)]
    return options


def check_free(config: ServerConfig) -> None:
    """Raises OSError where nobody can listen there; grpc says neither why, nor says it quietly."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.grpc_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise OSError(f"cannot listen on {config.address}: {error.strerror or error}") from None


def _reflected() -> DescriptorPool:
    """Our messages live in a private pool, where the other services' have to be added to be told of."""
    pool = pb.DESCRIPTOR.pool
    for other in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        pool.AddSerializedFile(other.serialized_pb)
    return pool
