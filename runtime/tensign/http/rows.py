"""Rows of one request through the batcher: at once where they fit, else piece by piece."""

from __future__ import annotations

import asyncio

from tensign.errors import QueueFull
from tensign.model import Model
from tensign.request import Enforced, Outputs, joined

_PIECES_AHEAD = 4  # of one request, so that it fills the batches behind the one that runs, and not the queue


async def answered(model: Model, inputs: Enforced, deadline: float, client: str = "") -> Outputs:
    """{input: [n,...]} -> {output: [n,...]}, for any n.

    Raises QueueFull at once for rows that fit into a batch: the caller can try another server. More rows wait for room.
    """
    rows, step = inputs.rows, model.largest_batch
    if rows <= step:
        return await asyncio.wrap_future(model.submit(inputs, deadline=deadline, client=client))
    few = asyncio.Semaphore(_PIECES_AHEAD)

    async def piece(first: int) -> Outputs:
        async with few:
            return await _patiently(model, inputs.part(first, first + step), deadline, client)

    pieces = [asyncio.create_task(piece(first)) for first in range(0, rows, step)]
    try:
        answers = await asyncio.gather(*pieces)
    finally:
        for each in pieces:
            each.cancel()  # when one failed, or nobody waits any longer
    return joined(answers)


async def _patiently(model: Model, inputs: Enforced, deadline: float, client: str) -> Outputs:
    while True:
        try:
            return await asyncio.wrap_future(model.submit(inputs, deadline=deadline, client=client))
        except QueueFull:
            await asyncio.wrap_future(model.room(inputs.rows, client))
