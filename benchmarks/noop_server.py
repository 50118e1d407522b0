"""The least a Python gRPC server can be: grpcio takes the message, protobuf parses it, a fixed answer goes back.

It is the floor beneath every figure of ours. `python benchmarks/noop_server.py threads|aio [--raw] [--tuned] [--port N]` prints
its address; `--raw` skips protobuf's parsing, `--tuned` asks of its process what `tensign serve` asks of its own. `--uvloop`,
`--large` (frames, windows and reads of 1 MiB) and `--one-cpu` are for benchmarks/fronts.py.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from tensign._pb import open_inference_pb2 as pb
from tensign.tuning import tune

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
LARGE = [
    ("grpc.http2.max_frame_size", 1 << 20),
    ("grpc.http2.lookahead_bytes", 1 << 20),
    ("grpc.experimental.tcp_read_chunk_size", 1 << 20),
    ("grpc.experimental.tcp_min_read_chunk_size", 1 << 18),
    ("grpc.experimental.tcp_max_read_chunk_size", 1 << 22),
]


def answer() -> pb.ModelInferResponse:
    """The answer that a model of signature uint8 [-1,300,300,3] -> float32 [-1,3] gives to one picture."""
    output = pb.ModelInferResponse.InferOutputTensor(name="output-0", datatype="FP32", shape=[1, 3])
    return pb.ModelInferResponse(model_name="m", model_version="1", outputs=[output], raw_output_contents=[bytes(12)])


def handlers(mode: str, raw: bool) -> grpc.GenericRpcHandler:
    """Both ways of ModelInfer and ModelStreamInfer, for one of grpcio's two servers."""
    fixed = answer()
    single = fixed.SerializeToString()
    part = pb.ModelStreamInferResponse(infer_response=fixed).SerializeToString()

    def infer(request: Any, context: Any) -> bytes:
        return single

    def stream(requests: Iterator[Any], context: Any) -> Iterator[bytes]:
        for _ in requests:
            yield part

    async def infer_aio(request: Any, context: Any) -> bytes:
        return single

    async def stream_aio(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[bytes]:
        async for _ in requests:
            yield part

    parse: Any = None if raw else pb.ModelInferRequest.FromString
    one, many = (infer, stream) if mode == "threads" else (infer_aio, stream_aio)
    return grpc.method_handlers_generic_handler(
        "inference.GRPCInferenceService",
        {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(one, parse, None),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(many, parse, None),
        },
    )


async def serve_aio(handler: grpc.GenericRpcHandler, port: int) -> None:
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((handler,))
    print(f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}", flush=True)
    await server.start()
    await server.wait_for_termination()


def serve_threads(handler: grpc.GenericRpcHandler, port: int) -> None:
    server = grpc.server(ThreadPoolExecutor(64), options=OPTIONS)
    server.add_generic_rpc_handlers((handler,))
    print(f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}", flush=True)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=["threads", "aio"])
    parser.add_argument("--raw", action="store_true")
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--one-cpu", action="store_true")
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    if given.uvloop:
        import uvloop

        uvloop.install()
    if given.large:
        OPTIONS += LARGE
    if given.one_cpu:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if given.tuned:
        tune()
    if given.mode == "aio":
        asyncio.run(serve_aio(handlers("aio", given.raw), given.port))
    else:
        serve_threads(handlers("threads", given.raw), given.port)
