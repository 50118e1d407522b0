"""A server of known service time: one request after the other, each exactly `--ms` long; prints its address.

Its queue is that of the formula (M/D/1 under Poisson arrivals): a request is done one service time after it came, or after the
one before it was done. Only the waking up at that time has the loop's own delay.
"""

from __future__ import annotations

import argparse
import asyncio
from selectors import SelectSelector
from typing import Any

import grpc

from noop_server import answer


async def serve(service_s: float) -> None:
    """Until it is ended."""
    fixed = answer().SerializeToString()
    loop = asyncio.get_running_loop()
    free = 0.0

    async def infer(request: bytes, context: Any) -> bytes:
        nonlocal free
        free = done = max(free, loop.time()) + service_s
        await asyncio.sleep(done - loop.time())
        return fixed

    server = grpc.aio.server()
    methods: Any = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods),))
    print(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ms", type=float, default=10.0)
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(SelectSelector())) as runner:  # in microseconds
        runner.run(serve(given.ms / 1000))
