"""What to send, how fast, for how long."""

from __future__ import annotations

from dataclasses import dataclass

from tensign.errors import InvalidConfig


@dataclass(frozen=True, slots=True)
class Load:
    """A closed loop that keeps `concurrency` requests in flight, or, where `rate` is set, an open loop: Poisson arrivals at so
    many requests/s from `seed`, sent when they are due, whatever has been answered.

    streams: over how many streams; 0 sends unary calls. rows: of each request. encoded: pictures in place of raw tensors.
    It lasts `requests` requests where they are set, else `duration_s`. Before it counts, it runs for `warmup_s`, and until
    `warmup_requests` were answered. timeout_s: the deadline of each request; a later answer is an error. Raises InvalidConfig.
    """

    concurrency: int = 4
    rate: float | None = None
    streams: int = 0
    rows: int = 1
    encoded: bool = False
    requests: int | None = None
    duration_s: float = 10.0
    warmup_s: float = 1.0
    warmup_requests: int = 0
    timeout_s: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("concurrency", 1), ("streams", 0), ("rows", 1), ("warmup_s", 0), ("warmup_requests", 0)):
            if not least <= getattr(self, name) < float("inf"):
                raise InvalidConfig(f"{name}: wanted at least {least}, got {getattr(self, name)}")
        for name in ("rate", "duration_s", "timeout_s", "requests"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InvalidConfig(f"{name}: wanted more than 0, got {value}")
        if self.rate is None and self.streams > self.concurrency:
            raise InvalidConfig(f"streams: {self.concurrency} requests in flight cannot fill {self.streams} streams")

    @property
    def level(self) -> str:
        """How hard it presses, in a few characters: what a sweep varies."""
        return f"{self.concurrency}" if self.rate is None else f"{self.rate:,.4g}/s"

    def __str__(self) -> str:
        loop = f"{self.concurrency} in flight" if self.rate is None else f"open loop at {self.rate:,.4g} requests/s"
        way = f"over {self.streams} stream{'s' * (self.streams > 1)}" if self.streams else "unary"
        what = "encoded pictures" if self.encoded else "raw tensors"
        return f"{loop}, {way}, {self.rows} row{'s' * (self.rows > 1)} of {what}"
