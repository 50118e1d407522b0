"""What came of one run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.bench.latency import Latency
from tensign.bench.load import Load
from tensign.bench.server import Served

_LATE_MS = 2.0  # less than that is no reproach
_LATE_SHARE = 0.1  # of the p99 that is reported
_BUSY = 0.9  # of a core


@dataclass(frozen=True, slots=True)
class Failures:
    """How often something failed in one way, and the text of the first."""

    count: int
    first: str


@dataclass(frozen=True, slots=True)
class Generator:
    """How the load generator itself fared. cores: processor time it used, in cores. late_p99_ms: how late it sent (open
    loop), or noticed answers (closed loop). held: requests of an open loop that waited in it, since too many were in flight.
    """

    cores: float
    late_p99_ms: float
    held: int


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """requests: due in the measured `seconds`; answered_per_s: answers in that time, of each `load.rows` rows.

    latency: of answered requests, from the moment each was due. errors: {kind: how many}. served: the server's own account,
    None where it gives none. stopped: why it ended before its time, "" where it did not. latencies_ms: all of them, [n].
    reconnects: streams that broke and were taken up again, with all that was unanswered; these are no errors.
    """

    load: Load
    target: str
    seconds: float
    requests: int
    answered_per_s: float
    latency: Latency
    errors: dict[str, Failures]
    served: Served | None
    generator: Generator
    stopped: str
    latencies_ms: npt.NDArray[np.float64] = field(repr=False)
    reconnects: Failures = Failures(0, "")

    @property
    def rows_per_s(self) -> float:
        """Images/s, where a row is an image."""
        return self.answered_per_s * self.load.rows

    @property
    def failed(self) -> int:
        """How many requests failed, in whatever way."""
        return sum(failures.count for failures in self.errors.values())

    def misses(self, limit_ms: float) -> int:
        """How many requests failed or took longer than that."""
        return self.failed + int((self.latencies_ms > limit_ms).sum())

    @property
    def limit(self) -> str:
        """Why these figures may be the generator's rather than the server's; "" where they are not."""
        late, worst = self.generator.late_p99_ms, self.latency.p99 or self.latency.max or 0.0
        if late > max(_LATE_MS, _LATE_SHARE * worst):
            did = "noticed answers" if self.load.rate is None else "sent requests"
            return f"the generator, or a busy machine, {did} up to {late:.1f} ms late (p99)"
        if self.generator.cores > _BUSY:
            return f"the generator used {self.generator.cores:.2f} cores, and has one to use"
        return ""

    def document(self) -> dict[str, Any]:
        """For JSON: everything but the single latencies, of which the curve stays."""
        parts = {
            name: getattr(self, name) for name in ("target", "seconds", "requests", "answered_per_s", "rows_per_s", "stopped")
        }
        nested = {name: asdict(getattr(self, name)) for name in ("load", "latency", "generator", "reconnects")}
        errors = {kind: asdict(failures) for kind, failures in self.errors.items()}
        served = asdict(self.served) if self.served else None
        return {**parts, **nested, "errors": errors, "served": served, "limit": self.limit, "level": self.load.level}
