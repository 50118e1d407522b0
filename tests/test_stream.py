"""What one stream may hold while nobody reads its answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from tensign._pb import open_inference_pb2 as pb
from tensign.budget import Budget
from tensign.errors import ModelNotReady
from tensign.rpc.stream import WINDOW, WINDOW_BYTES, Stream
from tensign.rpc.wire import Received

MIB = 1 << 20


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield pb.ModelInferRequest(id="x").SerializeToString()
        await asyncio.sleep(0)


async def one() -> AsyncIterator[bytes]:
    yield pb.ModelInferRequest(id="x").SerializeToString()


def answer(size: int) -> pb.ModelStreamInferResponse:
    return pb.ModelStreamInferResponse(infer_response=pb.ModelInferResponse(raw_output_contents=[bytes(size)]))


def test_parts_that_nobody_reads_are_not_made_and_give_their_request_up_in_the_end() -> None:
    made = 0

    async def parts(request: Received) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        nonlocal made
        for _ in range(1000):
            made += 1
            yield answer(MIB)

    async def check() -> None:
        budget = Budget(4096 * MIB)
        answers = Stream(parts, budget, patience_s=0.1).answers(one())
        await anext(answers)
        await budget.take(4096 * MIB)  # to be had once its patience ends
        assert WINDOW_BYTES / MIB <= made <= WINDOW_BYTES / MIB + 2
        said = [each.error_message async for each in answers]
        assert said[-1] == "the answers were not read within 0.1 s" and not any(said[:-1])
        assert budget.kept == 0

    asyncio.run(check())


def test_a_reader_that_reads_gets_every_part_of_any_size() -> None:
    async def parts(request: Received) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        for _ in range(200):
            yield answer(MIB)

    async def check() -> None:
        said = [each async for each in Stream(parts, Budget(MIB), patience_s=30).answers(one())]
        assert len(said) == 200 and not any(each.error_message for each in said)

    asyncio.run(check())


def test_a_stream_reads_no_further_than_its_window_and_gives_everything_back() -> None:
    asked = 0

    async def small(request: Received) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        nonlocal asked
        asked += 1
        yield answer(1)

    async def check() -> None:
        budget = Budget(MIB)
        stream = Stream(small, budget, patience_s=30)
        answers = stream.answers(endless())
        await anext(answers)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert asked == WINDOW
        stream.end(ModelNotReady("enough"))
        rest = 0
        with pytest.raises(ModelNotReady, match="enough"):
            async for _ in answers:
                rest += 1
        assert rest == WINDOW - 1 and budget.held == budget.kept == 0

    asyncio.run(check())


@pytest.mark.parametrize("known", [True, False], ids=["sizes from the signature", "sizes as they were"])
def test_many_readers_who_do_not_read_stay_within_the_budget_and_stop_nobody_else(known: bool) -> None:
    """Each is answered 40,000 bytes for 7: unread answers of 32 streams fit into half of the budget, but for one each."""
    size, limit, slow = 40_000, 8 * MIB, 32

    async def large(request: Received) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        yield answer(size)

    async def a_few() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield pb.ModelInferRequest(id="x").SerializeToString()

    async def check() -> None:
        budget, streams = Budget(limit), list[AsyncGenerator[pb.ModelStreamInferResponse, None]]()
        for _ in range(slow):
            stream = Stream(large, budget, patience_s=30, expect=lambda _: size if known else 0)
            streams.append(stream.answers(endless()))
        for stream_answers in streams:
            await anext(stream_answers)
            for _ in range(300):
                await asyncio.sleep(0)
        assert limit // 4 < budget.kept <= limit // 2 + slow * (size + 100)
        assert budget.held + budget.kept <= limit
        reader = Stream(large, budget, patience_s=30, expect=lambda _: size)
        assert len([each async for each in reader.answers(a_few())]) == 20
        for stream_answers in streams:
            await stream_answers.aclose()
        await asyncio.sleep(0)
        assert budget.kept == budget.held == 0

    asyncio.run(check())


def test_what_a_request_makes_us_hold_beside_its_message_counts() -> None:
    held: list[int] = []

    async def check() -> None:
        budget = Budget(4096 * MIB)

        async def small(request: Received) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
            held.append(budget.held)
            yield answer(1)

        stream = Stream(small, budget, patience_s=30, beside=lambda request: MIB)
        assert len([each async for each in stream.answers(one())]) == 1
        await asyncio.sleep(0)
        assert budget.held == 0

    asyncio.run(check())
    assert held == [MIB + pb.ModelInferRequest(id="x").ByteSize()]
