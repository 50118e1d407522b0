"""`python -m tensign.rpc.health HOST:PORT` asks a server's grpc.health.v1, for a container's HEALTHCHECK: 0 where it serves."""

from __future__ import annotations

import sys
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SECONDS = 2.0


def why_not_serving(address: str) -> str:
    """What the server at HOST:PORT, or gRPC, answers; "" where it serves."""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        try:
            status = health.Check(health_pb2.HealthCheckRequest(service=""), timeout=_SECONDS).status
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code.name
    if status == health_pb2.HealthCheckResponse.SERVING:
        return ""
    return health_pb2.HealthCheckResponse.ServingStatus.Name(status)


def main(arguments: list[str]) -> None:
    """Ends with status 1, and says why, where the server does not serve; with 2 where no address was given."""
    if len(arguments) != 1:
        print("usage: python -m tensign.rpc.health HOST:PORT", file=sys.stderr)
        sys.exit(2)
    if why := why_not_serving(arguments[0]):
        sys.exit(f"{arguments[0]}: {why}")


if __name__ == "__main__":
    main(sys.argv[1:])
