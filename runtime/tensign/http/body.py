"""The body of a request: read within limits of size, time and memory, and JSON made of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import Request

from tensign.budget import Budget
from tensign.errors import InvalidInput, TooLarge

# What parsing makes of a body, in bytes per byte of it: `0.1,` becomes an object of 24 and a pointer of 8.
_WEIGHT = 8
_MAX_CONTAINERS = 1 << 24  # lists and maps in one JSON body: a list of none takes 56 bytes, `[],` three


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


def parse_json(body: bytes) -> Any:
    """JSON in UTF-8, NaN and Infinity among its numbers as Python and MLflow write them. Raises InvalidInput, TooLarge.

    A name that stands twice in one map is refused: whoever is between us and the client may have looked at the other.
    """
    if body.count(b"[") + body.count(b"{") > _MAX_CONTAINERS:
        raise TooLarge(f"JSON: more than {_MAX_CONTAINERS} lists and maps; send several requests, or raw tensors over gRPC")
    try:
        return json.loads(body.decode("utf-8-sig"), object_pairs_hook=_unique)
    except RecursionError:
        raise InvalidInput("JSON: nested too deep") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"JSON: not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InvalidInput(f"JSON: {error.msg} at character {error.pos} of {len(error.doc)}") from None
    except ValueError:  # an integer of thousands of digits
        raise InvalidInput("JSON: a number of more digits than any type holds") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise InvalidInput(f"JSON: a map of {len(pairs)} entries has one name twice")
    return made
