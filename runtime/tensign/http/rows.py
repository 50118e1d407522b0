"""Rows of one request through the batcher: at once where they fit, else piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np

from tensign.errors import QueueFull
from tensign.model import Model
from tensign.request import Outputs
from tensign.signature import Arrays

_PIECES_AHEAD = 4  # of one request, so that it fills the batches behind the one that runs, and not the queue


async def answered(model: Model, arrays: Arrays, params: Mapping[str, Any], deadline: float) -> Outputs:
    """{input: [n,...]} as `Model.enforced` gave it -> {output: [n,...]}, for any n.

    Raises QueueFull at once for rows that fit into a batch: the caller can try another server. More rows wait for room.
    """
    rows, step = len(next(iter(arrays.values()))), model.largest_batch
    if rows <= step:
        return await asyncio.wrap_future(model.submit(arrays, deadline=deadline))
    few = asyncio.Semaphore(_PIECES_AHEAD)

    async def piece(first: int) -> Outputs:
        async with few:
            return await _patiently(model, {name: array[first : first + step] for name, array in arrays.items()}, deadline)

    async with asyncio.TaskGroup() as group:
        pieces = [group.create_task(piece(first)) for first in range(0, rows, step)]
    answers = [each.result() for each in pieces]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


async def _patiently(model: Model, arrays: Arrays, deadline: float) -> Outputs:
    while True:
        try:
            return await asyncio.wrap_future(model.submit(arrays, deadline=deadline))
        except QueueFull:
            await asyncio.wrap_future(model.room(len(next(iter(arrays.values())))))
