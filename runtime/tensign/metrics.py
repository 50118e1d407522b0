"""Counts and times of every stage of one model, in the terms of Triton's statistics extension."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Duration:
    """How often something happened, and how long it took in all."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        self.count += count
        self.ns += ns


@dataclass(slots=True)
class BatchTimes:
    """Runs of one batch size: gathering its rows, the engine, splitting its answers."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)


@dataclass(slots=True)
class Snapshot:
    """What has happened since the model was loaded.

    success, fail and queue count requests; receive, reading and checking them, and preprocess too; send counts what was
    encoded, answers or parts of them; rows counts answered rows; batches is keyed by the rows that a batch held.
    """

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    receive: Duration = field(default_factory=Duration)
    preprocess: Duration = field(default_factory=Duration)
    send: Duration = field(default_factory=Duration)
    batches: dict[int, BatchTimes] = field(default_factory=dict)
    padded_rows: int = 0
    last_inference_ms: int = 0

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Snapshot:
        """What `dataclasses.asdict` made of one, as JSON brought it here."""
        stages = ("success", "fail", "receive", "preprocess", "queue", "send")
        durations = {stage: Duration(**document[stage]) for stage in stages}
        batches = {
            int(rows): BatchTimes(**{stage: Duration(**each) for stage, each in times.items()})
            for rows, times in document["batches"].items()
        }
        return cls(**{**document, **durations, "batches": batches})

    @property
    def rows(self) -> int:
        return sum(rows * times.compute_infer.count for rows, times in self.batches.items())

    @property
    def executions(self) -> int:
        return sum(times.compute_infer.count for times in self.batches.values())


class Statistics:
    """Collects from many threads; `snapshot` gives a consistent copy."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen = Snapshot()

    def snapshot(self) -> Snapshot:
        with self._lock:
            return deepcopy(self._seen)

    def request(self, ns: int, *, succeeded: bool) -> None:
        with self._lock:
            (self._seen.success if succeeded else self._seen.fail).add(ns)

    def exchanged(self, receive_ns: int | None, send_ns: int) -> None:
        """One answer was encoded; receive_ns: None where it is not the first one to its request."""
        with self._lock:
            if receive_ns is not None:
                self._seen.receive.add(receive_ns)
            self._seen.send.add(send_ns)

    def exchanged_elsewhere(self, receive: Duration, send: Duration) -> None:
        """What another process counted."""
        with self._lock:
            self._seen.receive.add(receive.ns, receive.count)
            self._seen.send.add(send.ns, send.count)

    def preprocess(self, ns: int) -> None:
        with self._lock:
            self._seen.preprocess.add(ns)

    def batch(self, rows: int, bucket: int, *, queue_ns: int, begun: int, input_ns: int, infer_ns: int, output_ns: int) -> None:
        """One run of the engine; `begun` requests left the queue for it, after `queue_ns` in all."""
        with self._lock:
            times = self._seen.batches.setdefault(rows, BatchTimes())
            times.compute_input.add(input_ns)
            times.compute_infer.add(infer_ns)
            times.compute_output.add(output_ns)
            self._seen.queue.add(queue_ns, begun)
            self._seen.padded_rows += bucket - rows
            self._seen.last_inference_ms = time.time_ns() // 1_000_000
