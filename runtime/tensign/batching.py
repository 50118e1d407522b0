"""What a model sees of its batcher, here or in another process."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Protocol

from tensign.buckets import Buckets
from tensign.metrics import Statistics
from tensign.request import Outputs, Request
from tensign.signature import Arrays


class Batching(Protocol):
    """As `Batcher` documents it."""

    buckets: Buckets
    statistics: Statistics

    @property
    def working(self) -> bool: ...
    def reserve(self, rows: int, deadline: float | None = None, client: str = "") -> Request: ...
    def announce(self, request: Request) -> None: ...
    def enqueue(self, request: Request, arrays: Arrays, params: Mapping[str, Any] | None = None) -> None: ...
    def at_once(
        self, arrays: Arrays, params: Mapping[str, Any] | None = None, deadline: float | None = None
    ) -> Outputs | None: ...
    def room(self, rows: int, client: str = "") -> Future[None]: ...
    def dropped(self, request: Request) -> bool: ...
    def settle(self, request: Request, result: Outputs | Exception) -> None: ...
    def close(self, timeout_s: float = 30.0) -> None: ...
