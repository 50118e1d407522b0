"""One target and the measurements of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict
from selectors import SelectSelector
from types import TracebackType
from typing import Any, Self, TypeVar

from tensign._pb import open_inference_pb2 as pb
from tensign.bench.latency import Latency
from tensign.bench.load import Load
from tensign.bench.messages import messages
from tensign.bench.report import Failures, Generator, Report
from tensign.bench.samples import Samples
from tensign.bench.sender import Sender, clock
from tensign.bench.server import Served
from tensign.bench.window import Window
from tensign.client.aio import AsyncClient
from tensign.client.metadata import ModelMetadata, ServerMetadata
from tensign.errors import ModelNotReady, TensignError

T = TypeVar("T")

_TICK_S = 0.1


class Session:
    """A server under load. name: what to call the target in reports. Raises tensign.errors where it cannot be asked for the
    model; whatever fails after that is in the report.

    notes: what this server cannot tell, each a sentence.
    """

    def __init__(self, address: str, *, model: str = "", name: str = "") -> None:
        self.name = name or address
        self.notes: list[str] = []
        self._address, self._model = address, model
        self.server: ServerMetadata
        self.metadata: ModelMetadata

    async def __aenter__(self) -> Self:
        async with AsyncClient(self._address, model=self._model, retries=0) as client:
            self.metadata = await client.metadata()
            self.server = await client.server()
            if self._model:
                await self._statistics(client)
        return self
