"""GET /metrics, read by Prometheus's own parser."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text

from conftest import CPU, save_mean_model
from tensign.client import Client
from tensign.model import Model
from tensign.server import Server
from tensign.testing import running

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

NAME = 'a "b"\nc\\'  # labels are quoted


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model that has answered one request of three rows."""
    path = save_mean_model(tmp_path_factory.mktemp("metrics") / "mean")
    with running(Model.load(path, CPU, name=NAME)) as server:
        with Client(server.grpc_address) as client:
            client.infer({"input-0": np.zeros((3, 4, 5, 3), np.uint8)})
        yield server


def scraped(server: Server, accept: str = "") -> tuple[str, str]:
    """Content type and page."""
    assert server.http_address is not None
    with closing(http.client.HTTPConnection(server.http_address, timeout=60)) as connection:
        connection.request("GET", "/metrics", headers={"accept": accept})
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.headers["content-type"], answer.read().decode()


@pytest.fixture
def samples(server: Server) -> Samples:
    """{(name, labels but the model's): value}."""
    _, page = scraped(server)
    found = {}
    for family in text(page):
        for sample in family.samples:
            if sample.name.startswith("tensign_") and sample.labels:
                assert (sample.labels.pop("model"), sample.labels.pop("version")) == (NAME, "1")
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def test_what_was_counted(samples: Samples) -> None:
    def value(name: str, **labels: str) -> float:
        return samples[name, frozenset(labels.items())]

    assert (value("tensign_ready"), value("tensign_model_ready"), value("tensign_active_calls")) == (1, 1, 0)
    assert value("tensign_request_seconds_count", outcome="success") == 1
    assert value("tensign_request_seconds_count", outcome="fail") == 0
    assert 0 < value("tensign_request_seconds_sum", outcome="success") < 60
    assert value("tensign_receive_seconds_count") == value("tensign_send_seconds_count") == 1
    assert value("tensign_receive_seconds_sum") > 0 and value("tensign_send_seconds_sum") > 0
    assert value("tensign_queue_seconds_count") == 1 and value("tensign_preprocess_seconds_count") == 0
    batches = value("tensign_batch_rows_count")
    assert value("tensign_batch_rows_sum") == 3 and 1 <= batches <= 3
    assert value("tensign_batch_rows_bucket", le="+Inf") == batches
    assert value("tensign_batch_seconds_count", stage="infer") == batches
    assert value("tensign_padded_rows_total") in (0, 1)
    assert value("process_resident_memory_bytes") > 1e6


def test_the_bounds_are_the_sizes_that_were_warmed_up(
    samples: Samples,
) -> None:
    labels = [dict(labels) for name, labels in samples if name == "tensign_batch_rows_bucket"]
    bounds = sorted(float(each["le"]) for each in labels)
    assert bounds[0] == 1 and bounds[-1] == float("inf") and bounds == sorted(set(bounds))


def test_openmetrics_where_it_is_asked_for(server: Server) -> None:
    content_type, page = scraped(server, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    families = openmetrics(page)  # type: ignore[no-untyped-call]
    assert "tensign_batch_rows" in {family.name for family in families}
    assert scraped(server)[0].startswith("text/plain")
