"""Bytes of requests that the server holds at once."""

from __future__ import annotations

import asyncio

import pytest

from tensign.rpc.budget import Budget


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
