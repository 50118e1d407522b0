"""The picture: everything is on it, nothing lies over anything else, and a kept result draws the same again."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text

from tensign.bench import plot
from tensign.bench.comparison import Ratio
from tensign.bench.latency import Latency
from tensign.bench.load import Load
from tensign.bench.machine import machine, versions
from tensign.bench.report import Generator, Report
from tensign.bench.search import Answer, Probe
from tensign.bench.server import Served
from tensign.errors import InvalidConfig

MODEL = {"name": "efficientnet-lite0", "device": "cuda:0", "versions": ["1"], "platform": "onnx", "batch_sizes": [1, 8]}


def report(load: Load, *, mean_ms: float, rate: float, batches: dict[int, int] | None, target: str = "one") -> dict[str, Any]:
    latencies = np.random.default_rng(1).gamma(4.0, mean_ms / 4.0, 3000)
    stages = {"queue": mean_ms / 2, "compute_input": mean_ms / 8, "compute_infer": mean_ms / 4, "compute_output": mean_ms / 99}
    served = None if batches is None else Served(2.0, batches, stages)
    return Report(
        load, target, 5.0, 3000, rate, Latency.of(latencies), {}, served, Generator(0.2, 0.1, 0), "", latencies
    ).document()


def document(kind: str) -> dict[str, Any]:
    """A result as `--keep` writes it."""
    levels = (1, 2, 4, 8, 16, 32, 64)
    batches = {1: 90, 2: 40, 3: 20, 8: 70, 16: 30, 64: 5}
    reports: list[dict[str, Any]] = []
    targets: list[str] = ["one"]
    extra: dict[str, Any] = {}
    if kind == "run":
        reports = [report(Load(rate=120.0), mean_ms=12, rate=120, batches=batches)]
    elif kind == "sweep":
        reports = [
            report(Load(concurrency=n, streams=1), mean_ms=4 * max(n, 4), rate=250 * min(n, 4) / 4, batches=batches)
            for n in levels
        ]
    elif kind == "rates":
        reports = [report(Load(rate=25.0 * n), mean_ms=4 + n, rate=25.0 * n, batches=None) for n in levels]
    elif kind == "search":
        probes = [Probe(10.0 * 2**n, 3000, 0 if n < 4 else 300, n == 5) for n in range(6)]
        reports = [
            report(Load(rate=probe.rate), mean_ms=4 * 1.6**n, rate=probe.rate, batches=batches)
            for n, probe in enumerate(probes)
        ]
        answer = Answer(rate=80.0, broke=160.0, finished=True, probes=probes)
        extra = {"limit_ms": 50.0, "answer": answer.document()}
    else:
        targets = ["127.0.0.1:8001", "some-other-model-of-a-long-name"]
        for number, (place, target) in itertools.product(range(5), enumerate(targets)):
            load = Load(concurrency=16)
            reports.append(report(load, mean_ms=10 + place, rate=300 + number - 20 * place, batches=batches, target=target))
        extra = {"ratios": {"rows_per_s": asdict(Ratio(302, 282, 1.071, 1.066, 1.078))}}
    made = {"kind": "sweep" if kind == "rates" else kind, "made": "2026-01-02T03:04:05+00:00", "limit_ms": None, "answer": None}
    told = [{"name": name, "server": {"name": "tensign", "version": "0.1.0"}, "model": MODEL} for name in targets]
    found = {**made, "versions": versions(), "machine": machine(), "targets": told, "reports": reports, "ratios": {}, **extra}
    return dict(json.loads(json.dumps(found)))


KINDS = pytest.mark.parametrize("kind", ["run", "sweep", "rates", "search", "comparison"])


def points(line: Line2D) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())]


def texts(figure: Figure) -> list[Text]:
    """All that are shown: not the labels of ticks beyond the ends of their axis."""
    hidden: set[Text] = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        hidden.update(tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high)
    found = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    return [text for text in found if text.get_visible() and text.get_text().strip() and text not in hidden]


@KINDS
def test_no_text_lies_over_another_or_leaves_the_picture(kind: str) -> None:
    figure = plot.figure(document(kind))
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text
    for (text, box), (other, second) in itertools.combinations(boxes, 2):
        assert not box.overlaps(second), f"{text!r} lies over {other!r}"


@KINDS
def test_it_names_model_device_versions_load_and_units(kind: str) -> None:
    said = "\n".join(text.get_text() for text in texts(plot.figure(document(kind))))
    for wanted in ("efficientnet-lite0 on cuda:0", "tensign 0.1.0", "Python", "cores", "latency, ms", "rows of"):
        assert wanted in said or (kind == "rates" and wanted == "rows of")
    assert ("open loop" in said) == (kind in ("run", "rates", "search"))
    if kind == "rates":
        assert "the server gives no batch sizes" in said and "the server gives no stage times" in said


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_a_kept_result_draws_the_same_again(tmp_path: Path, suffix: str) -> None:
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    kept = json.dumps(document("sweep"))
    for file in (first, second):
        plot.draw(json.loads(kept), file)
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes()[:5] == (b"<?xml" if suffix == ".svg" else b"\x89PNG\r")


def test_a_run_without_an_answer_is_a_picture_too(tmp_path: Path) -> None:
    empty = document("run")
    empty["reports"][0]["latency"]["samples"] = 0
    plot.draw(empty, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 1000


def test_a_search_shows_all_its_probes_and_which_rates_kept_the_limit() -> None:
    """Of fewer than 100 answers each, so that none has a p99, and one without any answer."""
    found = document("search")
    for report in found["reports"]:
        report["latency"]["p99"] = None
    found["reports"][-1]["latency"] = {"samples": 0, "p50": None, "p99": None, "max": None}
    upper, lower, _ = plot.figure(found).axes
    low, high = upper.get_ylim()
    drawn = {str(line.get_label()): points(line) for line in upper.lines}
    assert len(drawn["kept"]) == 4 and len(drawn["broken"]) == 1 and len(drawn["none answered"]) == 1
    assert all(low < ms < high for name in ("kept", "broken") for _, ms in drawn[name])
    labels = [label.get_text() for label in lower.get_xticklabels()]
    assert labels == ["10\nkept", "20\nkept", "40\nkept", "80\nkept", "160"]


def test_points_without_a_p99_are_labelled_where_they_are() -> None:
    found = document("sweep")
    for report in found["reports"][3:]:
        report["latency"]["p99"] = None
    (upper, *_) = plot.figure(found).axes
    drawn = {point for line in upper.lines for point in points(line)}
    labels = [text for text in upper.texts if isinstance(text, Annotation)]
    assert labels and all(label.xy in drawn for label in labels)
    assert "p99, where 100 were answered" in [line.get_label() for line in upper.lines]


def test_axes_of_a_comparison_begin_at_0_and_addresses_stay_whole() -> None:
    upper, lower, _ = plot.figure(document("comparison")).axes
    assert upper.get_xlim()[0] == 0 and upper.get_ylim()[0] == 0
    assert lower.get_xticklabels()[0].get_text() == "127.0.0.1:8001"


def test_other_formats_are_refused() -> None:
    with pytest.raises(InvalidConfig, match=r"plot: wanted a file that ends in \.svg or \.png, got x\.pdf"):
        plot.check(Path("x.pdf"))


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InvalidConfig, match=r"pip install 'tensign\[plot\]'"):
        plot.check(Path("x.svg"))
