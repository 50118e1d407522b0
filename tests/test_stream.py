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


def answer(size: int) -> bytes:
    return pb.ModelStreamInferResponse(
        infer_response=pb.ModelInferResponse(raw_output_contents=[bytes(size)])
    ).SerializeToString()


def read(answer: bytes) -> pb.ModelStreamInferResponse:
    return pb.ModelStreamInferResponse.FromString(answer)


def test_parts_that_nobody_reads_are_not_made_and_give_their_request_up_in_the_end() -> None:
    made = 0

    async def parts(request: Received) -> AsyncGenerator[bytes, None]:
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
        said = [read(each).error_message async for each in answers]
        assert said[-1] == "the answers were not read within 0.1 s" and not any(said[:-1])
        assert budget.kept == 0

    asyncio.run(check())


def test_a_reader_that_reads_gets_every_part_of_any_size() -> None:
    async def parts(request: Received) -> AsyncGenerator[bytes, None]:
        for _ in range(200):
            yield answer(MIB)

    async def check() -> None:
        said = [each async for each in Stream(parts, Budget(MIB), patience_s=30).answers(one())]
        assert len(said) == 200 and not any(read(each).error_message for each in said)

    asyncio.run(check())


def test_a_stream_reads_no_further_than_its_window_and_gives_everything_back() -> None:
    asked = 0

    async def small(request: Received) -> AsyncGenerator[bytes, None]:
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

    async def large(request: Received) -> AsyncGenerator[bytes, None]:
        yield answer(size)

    async def a_few() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield pb.ModelInferRequest(id="x").SerializeToString()

    async def check() -> None:
        budget, streams = Budget(limit), list[AsyncGenerator[bytes, None]]()
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

        async def small(request: Received) -> AsyncGenerator[bytes, None]:
            held.append(budget.held)
            yield answer(1)

        stream = Stream(small, budget, patience_s=30, beside=lambda request: MIB)
        assert len([each async for each in stream.answers(one())]) == 1
        await asyncio.sleep(0)
        assert budget.held == 0

    asyncio.run(check())
    assert held == [MIB + pb.ModelInferRequest(id="x").ByteSize()]


@pytest.mark.parametrize("ordered", [True, False], ids=["by request", "as completed"])
def test_answers_come_in_the_order_that_was_asked_for_and_parts_in_theirs(ordered: bool) -> None:
    """The first request waits until the second is answered, between its two parts until the third is."""

    async def check() -> None:
        done = {name: asyncio.Event() for name in "abc"}
        after: dict[str, tuple[str, ...]] = {"a": ("b", "c"), "b": ("",), "c": ("",)}

        async def respond(request: Received) -> AsyncGenerator[bytes, None]:
            name = request.id
            for part, other in enumerate(after[name]):
                if other:
                    await done[other].wait()
                one = pb.ModelInferResponse(id=name, model_name=str(part))
                yield pb.ModelStreamInferResponse(infer_response=one).SerializeToString()
            done[name].set()

        async def three() -> AsyncIterator[bytes]:
            for name in "abc":
                yield pb.ModelInferRequest(id=name).SerializeToString()

        budget = Budget(MIB)
        stream = Stream(respond, budget, patience_s=30, expect=lambda _: 10, ordered=ordered)
        got = [read(answer).infer_response async for answer in stream.answers(three())]
        said = [f"{answer.id}{answer.model_name}" for answer in got]
        assert sorted(said) == ["a0", "a1", "b0", "c0"] and said.index("a0") < said.index("a1")
        assert (said == ["a0", "a1", "b0", "c0"]) == ordered and (said[0] == "b0") != ordered
        await asyncio.sleep(0)
        assert budget.held == budget.kept == 0

    asyncio.run(check())


@pytest.mark.parametrize("ordered", [True, False], ids=["by request", "as completed"])
def test_a_stream_that_is_left_cancels_what_runs(ordered: bool) -> None:
    cancelled = 0

    async def respond(request: Received) -> AsyncGenerator[bytes, None]:
        nonlocal cancelled
        yield answer(1)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled += 1
            raise

    async def check() -> None:
        budget = Budget(MIB)
        answers = Stream(respond, budget, patience_s=30, expect=lambda _: 10, ordered=ordered).answers(endless())
        await anext(answers)
        for _ in range(500):
            await asyncio.sleep(0)
        await answers.aclose()
        for _ in range(10):
            await asyncio.sleep(0)
        assert budget.held == budget.kept == 0

    asyncio.run(check())
    assert cancelled == WINDOW


def test_a_stream_as_completed_that_is_ended_answers_what_was_read() -> None:
    async def respond(request: Received) -> AsyncGenerator[bytes, None]:
        for _ in range(20):
            await asyncio.sleep(0)
        yield answer(1)

    async def check() -> None:
        stream = Stream(respond, Budget(MIB), patience_s=30, expect=lambda _: 10, ordered=False)
        answers, got = stream.answers(endless()), 0
        with pytest.raises(ModelNotReady, match="enough"):
            async for _ in answers:
                got += 1
                stream.end(ModelNotReady("enough"))
        assert got > 1

    asyncio.run(check())
