"""Bytes of requests that the server holds at once."""

from __future__ import annotations

import asyncio

import pytest

from tensign.budget import Budget
from tensign.errors import QueueFull


def test_whoever_is_cancelled_while_waiting_keeps_nothing_and_harms_nobody() -> None:
    async def check() -> None:
        budget = Budget(10)
        await budget.take(10)
        gone, next_one = (asyncio.create_task(budget.take(5)) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        budget.give_back(10)  # before the cancelled one has noticed
        with pytest.raises(asyncio.CancelledError):
            await gone
        await next_one
        assert budget.held == 5

    asyncio.run(check())


def test_who_waits_is_served_in_turn_and_what_fits_at_once_is_not_refused_for_them() -> None:
    async def check() -> None:
        budget, served = Budget(100), list[int]()

        async def waiter(size: int) -> None:
            await budget.take(size)
            served.append(size)

        await budget.take(60)
        large, small = asyncio.create_task(waiter(90)), asyncio.create_task(waiter(10))
        await asyncio.sleep(0)
        budget.grab(40)
        assert budget.held == 100
        budget.give_back(40)
        with pytest.raises(QueueFull, match="60 bytes of requests are on their way, 100 may be, this one has 41"):
            budget.grab(41)
        budget.give_back(60)
        await asyncio.gather(large, small)
        assert served == [90, 10] and budget.held == 100

    asyncio.run(check())


def test_what_is_larger_than_all_of_it_is_held_alone() -> None:
    async def check() -> None:
        budget = Budget(100)
        budget.grab(1000)
        later = asyncio.create_task(budget.take(1))
        await asyncio.sleep(0)
        assert not later.done()
        budget.give_back(1000)
        await later
        assert budget.held == 1

    asyncio.run(check())
