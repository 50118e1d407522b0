"""The body of a request: read within limits of size, time and memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from tensign.budget import Budget
from tensign.errors import TooLarge

# What parsing makes of a body, in bytes per byte of it: `0.1,` becomes an object of 24 and a pointer of 8.
_WEIGHT = 8


@asynccontextmanager
async def received(request: Request, budget: Budget, limit: int) -> AsyncIterator[bytes]:
    """The whole body, whose weight the budget holds for as long as the block runs.

    Only what has arrived is held: whoever announces much and sends nothing keeps nobody waiting.
    Raises TooLarge, QueueFull, or starlette's ClientDisconnect.
    """
    announced = request.headers.get("content-length", "0")
    if int(announced) > limit:  # the HTTP parser let digits through only
        raise TooLarge(f"the body has {announced[:32]} bytes, at most {limit} may be")
    chunks, size, held = [], 0, 0
    try:
        async for chunk in request.stream():
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"the body has more than {limit} bytes")
            if size * _WEIGHT > held:
                budget.give_back(held)
                wanted, held = max(2 * held, size * _WEIGHT), 0
                budget.grab(wanted)
                held = wanted
        yield b"".join(chunks)
    finally:
        budget.give_back(held)
