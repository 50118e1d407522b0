"""GET /metrics: what every model counts, read when Prometheus asks for it."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from tensign.admission import Admission
from tensign.buckets import Buckets
from tensign.metrics import Duration, Snapshot
from tensign.repository import Repository

_LABELS = ("model", "version")


def exposition(repository: Repository, admission: Admission, accept: str) -> tuple[bytes, str]:
    """The page and its content type: Prometheus's text, or OpenMetrics where the Accept header names it."""
    encode, content_type = choose_encoder(accept)
    return encode(_Counts(repository, admission)), content_type


class _Counts(Collector):
    """One consistent snapshot of each model, and of the process."""

    def __init__(self, repository: Repository, admission: Admission) -> None:
        self._repository = repository
        self._admission = admission

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("tensign_ready", "1 while the server takes requests.", float(self._admission.ready))
        active, held, kept = self._admission.counts
        yield GaugeMetricFamily("tensign_active_calls", "Unary calls and streams on their way.", active)
        yield GaugeMetricFamily("tensign_request_bytes", "Of requests on their way.", held)
        yield GaugeMetricFamily("tensign_unread_answer_bytes", "Of answers on streams that nobody has read yet.", kept)
        yield from self._of_models()
        yield from ProcessCollector(registry=None).collect()

    def _of_models(self) -> Iterator[Metric]:
        ready = GaugeMetricFamily("tensign_model_ready", "1 while the model can answer.", labels=_LABELS)
        requests = SummaryMetricFamily("tensign_request_seconds", "From the queue to the answer.", labels=(*_LABELS, "outcome"))
        queue = SummaryMetricFamily("tensign_queue_seconds", "Requests waiting for the engine.", labels=_LABELS)
        receive = SummaryMetricFamily(
            "tensign_receive_seconds", "Reading and checking requests that were answered.", labels=_LABELS
        )
        send = SummaryMetricFamily("tensign_send_seconds", "Encoding answers, or parts of them.", labels=_LABELS)
        preprocess = SummaryMetricFamily("tensign_preprocess_seconds", "Decoding and resizing, by request.", labels=_LABELS)
        stages = SummaryMetricFamily("tensign_batch_seconds", "Stages of a batch.", labels=(*_LABELS, "stage"))
        batches = HistogramMetricFamily("tensign_batch_rows", "Rows that batches held; the sum is rows.", labels=_LABELS)
        padding = CounterMetricFamily("tensign_padded_rows", "Rows that filled batches up and were no one's.", labels=_LABELS)
        memory = GaugeMetricFamily(
            "tensign_device_memory_bytes", "That loading and warm-up took of a GPU.", labels=(*_LABELS, "device")
        )
        large = GaugeMetricFamily(
            "tensign_gpu_decoding_pixels", "From so many on JPEGs are decoded on the GPU.", labels=_LABELS
        )
        apart = GaugeMetricFamily("tensign_gpu_decoding_levels", "How far pixels are off there, of 255.", labels=_LABELS)
        for model in self._repository:
            for device, size in model.memory.items():
                memory.add_metric((model.name, model.version, device), size)
            if (found := model.gpu_decoding) and found.pixels:
                large.add_metric((model.name, model.version), found.pixels)
                apart.add_metric((model.name, model.version), found.difference.most)
            seen, labels = model.statistics.snapshot(), (model.name, model.version)
            ready.add_metric(labels, float(model.ready))
            for outcome in ("success", "fail"):
                _add(requests, (*labels, outcome), getattr(seen, outcome))
            _add(queue, labels, seen.queue)
            _add(receive, labels, seen.receive)
            _add(preprocess, labels, seen.preprocess)
            _add(send, labels, seen.send)
            for stage in ("input", "infer", "output"):
                _add(stages, (*labels, stage), _total(seen, f"compute_{stage}"))
            batches.add_metric(labels, _cumulative(seen, model.buckets), seen.rows)
            padding.add_metric(labels, seen.padded_rows)
        yield from (ready, memory, requests, receive, preprocess, queue, stages, send, batches, padding, large, apart)


def _add(family: SummaryMetricFamily, labels: tuple[str, ...], duration: Duration) -> None:
    family.add_metric(labels, duration.count, duration.ns / 1e9)


def _total(seen: Snapshot, stage: str) -> Duration:
    durations = [getattr(times, stage) for times in seen.batches.values()]
    return Duration(sum(each.count for each in durations), sum(each.ns for each in durations))


def _cumulative(seen: Snapshot, buckets: Buckets) -> list[tuple[str, float]]:
    """(bound, batches of at most so many rows), for the sizes that were warmed up."""
    within = [sum(times.compute_infer.count for rows, times in seen.batches.items() if rows <= size) for size in buckets.rows]
    return [*((f"{size:.1f}", count) for size, count in zip(buckets.rows, within, strict=True)), ("+Inf", seen.executions)]
