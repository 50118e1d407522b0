"""What the server says it did in the time of a run, by the difference of its statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from tensign._pb import open_inference_pb2 as pb

STAGES = ("compute_input", "compute_infer", "compute_output")


@dataclass(frozen=True, slots=True)
class Served:
    """batches: {rows of a batch: how many ran}. stage_ms: mean time of a request in the queue, and of a row's batch in each
    stage: what a request went through.
    """

    mean_batch: float
    batches: dict[int, int]
    stage_ms: dict[str, float]

    @classmethod
    def between(cls, before: Sequence[pb.ModelStatistics], after: Sequence[pb.ModelStatistics], model: str) -> Self | None:
        """None where nothing ran."""
        old, new = (next((stats for stats in side if stats.name == model), None) for side in (before, after))
        if old is None or new is None or new.execution_count <= old.execution_count:
            return None
        runs = new.execution_count - old.execution_count
        was, now = old.inference_stats, new.inference_stats
        stage_ms = {"queue": _mean_ms(was.queue, now.queue)}
        batches = _batches(old, new)
        if rows := sum(size * count for size, count in batches.items()):
            for stage in STAGES:  # every row of a batch waits for all of it
                ns = {batch.batch_size: getattr(batch, stage).ns for batch in old.batch_stats}
                waited = sum((getattr(b, stage).ns - ns.get(b.batch_size, 0)) * b.batch_size for b in new.batch_stats)
                stage_ms[stage] = waited / rows / 1e6
            stage_ms["compute_input"] += _preprocess_ms(old, new)
        else:
            stage_ms |= {stage: _mean_ms(getattr(was, stage), getattr(now, stage)) for stage in STAGES}
        return cls((new.inference_count - old.inference_count) / runs, batches, stage_ms)


def _batches(old: pb.ModelStatistics, new: pb.ModelStatistics) -> dict[int, int]:
    earlier = {batch.batch_size: batch.compute_infer.count for batch in old.batch_stats}
    ran = {batch.batch_size: batch.compute_infer.count - earlier.get(batch.batch_size, 0) for batch in new.batch_stats}
    return {size: count for size, count in sorted(ran.items()) if count > 0}


def _preprocess_ms(old: pb.ModelStatistics, new: pb.ModelStatistics) -> float:
    """Of each request: what tensign spends before there is a batch, which it adds to the input stage of the whole.

    Triton, which counts a stage once for each request of a batch, has no such thing.
    """
    was, now = old.inference_stats.compute_input, new.inference_stats.compute_input
    if now.count - was.count != new.execution_count - old.execution_count:
        return 0.0
    of_batches = sum(b.compute_input.ns for b in new.batch_stats) - sum(b.compute_input.ns for b in old.batch_stats)
    requests = new.inference_stats.success.count - old.inference_stats.success.count
    return max(now.ns - was.ns - of_batches, 0) / max(requests, 1) / 1e6


def _mean_ms(was: pb.StatisticDuration, now: pb.StatisticDuration) -> float:
    return (now.ns - was.ns) / max(now.count - was.count, 1) / 1e6
