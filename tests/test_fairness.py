"""One client floods a slow model over gRPC, another sends one request at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from soak import models
from soak.client import SERVICE
from soak.identity import answer_to, rows_of
from tensign._pb import open_inference_pb2 as pb
from tensign.batcher import Batcher
from tensign.config import ModelConfig
from tensign.model import Model
from tensign.rpc.codec import decode_response, encode_request
from tensign.testing import serving

WORK = 20_000  # tens of milliseconds a batch: the engine is what all wait for
ROWS = 32
FEW = 4  # batches: the one that runs, one's own, and those that pass while a busy machine brings request and answer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path: Path = models.identity(tmp_path_factory.mktemp("slow"), work=WORK)
    return Model.load(path, ModelConfig(device="cpu", max_batch_size=64))


@pytest.fixture(scope="module")
def address(model: Model) -> Iterator[str]:
    with serving(model) as address:
        yield address


def message(client: int, number: int, rows: int) -> pb.ModelInferRequest:
    return encode_request("identity", {"row": rows_of(client, number, rows, 8)}, request_id=f"{client}/{number}")


@contextlib.asynccontextmanager
async def connected(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel


async def streamed(channel: grpc.aio.Channel) -> None:
    async def endless() -> AsyncIterator[pb.ModelInferRequest]:
        number = 0
        while True:
            yield message(1, number := number + 1, ROWS)

    call = channel.stream_stream(
        SERVICE + "ModelStreamInfer", pb.ModelInferRequest.SerializeToString, pb.ModelStreamInferResponse.FromString
    )
    async for answer in call(endless()):
        assert not answer.error_message


def unary(channel: grpc.aio.Channel) -> grpc.aio.UnaryUnaryMultiCallable[pb.ModelInferRequest, pb.ModelInferResponse]:
    return channel.unary_unary(SERVICE + "ModelInfer", pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString)


async def called(channel: grpc.aio.Channel) -> None:
    infer, number = unary(channel), 0
    while True:
        try:
            await infer(message(2, number := number + 1, ROWS))
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            await asyncio.sleep(0.1)  # as a client should that is told to try later


def test_every_request_of_a_trickle_is_answered_within_a_few_batches_of_a_flood(model: Model, address: str) -> None:
    async def check() -> list[int]:
        async with connected(address) as flooding, connected(address) as trickling:
            flood = [asyncio.create_task(streamed(flooding)) for _ in range(4)]
            flood += [asyncio.create_task(called(flooding)) for _ in range(8)]
            assert isinstance(model.batcher, Batcher)
            queue = model.batcher._queue
            while queue.rows < 0.7 * queue.max_rows:
                assert not any(task.done() for task in flood)
                await asyncio.sleep(0.01)
            infer, waited = unary(trickling), []
            for number in range(15):
                before = model.statistics.snapshot().executions
                answer = await infer(message(3, number, 1))
                waited.append(model.statistics.snapshot().executions - before)
                right = answer_to(rows_of(3, number, 1, 8), WORK)
                assert np.array_equal(decode_response(answer)["answer"], right)
            assert queue.rows > 0.5 * queue.max_rows and not any(task.done() for task in flood)
            for task in flood:
                task.cancel()
            await asyncio.gather(*flood, return_exceptions=True)
            return waited

    waited = asyncio.run(check())
    assert sorted(waited)[len(waited) // 2] <= FEW and max(waited) <= 3 * FEW, waited
