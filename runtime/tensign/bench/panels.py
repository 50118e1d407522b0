"""The parts of a result's picture, each drawn on axes of its own from the reports of the JSON document."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import Formatter

Reports = list[dict[str, Any]]

INK, FAINT = "#222222", "#666666"
_TARGETS = ("#1f6fb4", "#d1660f")
_KEPT, _BROKEN, _LIMITED = "#2a8a4a", "#c0392b", "#d9a321"
_STAGES = {  # what a request goes through, in its order
    "queue": ("queue", "#bdbdbd"),
    "compute_input": ("input", "#8fbcdb"),
    "compute_infer": ("inference", "#1f6fb4"),
    "compute_output": ("output", "#d1660f"),
    "rest": ("the rest: gRPC,\nthe way, generator", "#e9e3d5"),
}
_MOST_BARS, _WIDEST = 9, 19  # characters of a line under a bar of two
_LABEL_WIDTH, _LABEL_HEIGHT = 48, 16  # of a label of a point, generously
_LINEAR = 12.0  # a wider range of latencies than this is drawn on a logarithmic axis


def trade(axes: Axes, document: dict[str, Any], reports: Reports) -> None:
    """Throughput against latency: a line over the levels of a sweep, a point for each round of a comparison."""
    sweep, several = document["kind"] == "sweep", len(document["targets"]) > 1
    for target, color in zip(document["targets"], _TARGETS, strict=False):
        mine = [report for report in reports if report["target"] == target["name"]]
        name = f"{shortened(target['name'])}, " if several else ""
        for figure, marker, style in (("p50", "o", "-"), ("p99", "s", "--")):
            points = [(report["rows_per_s"], report["latency"][figure]) for report in mine if report["latency"][figure]]
            if points:
                line = style if sweep else ""
                few = ", where 100 were answered" if len(points) < len(mine) else ""
                label = f"{name}{figure}{few}"
                axes.plot(*zip(*points, strict=True), ls=line, marker=marker, ms=5.5, color=color, label=label)
    axes.set_xlabel("throughput, images/s")
    axes.xaxis.set_major_formatter(_numbers())
    _latency_axis(axes, [report["latency"][name] for report in reports for name in ("p50", "p99")])
    axes.margins(x=0.08)
    _legend(axes, 2)
    axes.set_xlim(0, 1.08 * max(report["rows_per_s"] for report in reports))
    if sweep:
        _label(axes, reports)
        level = "requests in flight" if reports[0]["load"]["rate"] is None else "offered rate"
        axes.set_title(f"Throughput against latency, by {level}")
    else:
        axes.set_title("Each round: throughput, latency")


def _label(axes: Axes, reports: Reports) -> None:
    """The level of each point of a sweep, where there is room; the higher ones first."""
    axes.autoscale_view()
    placed: list[tuple[float, float]] = []
    for report in reversed(reports):
        latency = report["latency"]
        if (ms := latency["p99"] or latency["p50"]) is None:  # then there is no point to label
            continue
        at = (report["rows_per_s"], ms)
        x, y = axes.transData.transform(at)
        if all(abs(x - other) > _LABEL_WIDTH or abs(y - height) > _LABEL_HEIGHT for other, height in placed):
            axes.annotate(report["level"], at, (5, 5), textcoords="offset points")
            placed.append((x, y))


def search(axes: Axes, document: dict[str, Any], reports: Reports) -> None:
    """The p99 of each probe at the rate that it offered, and the limit."""
    limit = document["limit_ms"]
    groups: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    mute = [probe["rate"] for report, probe in _probes(document) if not report["latency"]["samples"]]
    for report, probe in _probes(document):
        kind = ("kept", "o", _KEPT) if probe["kept"] else ("broken", "X", _BROKEN)
        if probe["limited"] and not probe["kept"]:
            kind = ("broken, the generator late", "X", _LIMITED)
        if (ms := report["latency"]["p99"] or report["latency"]["max"]) is not None:
            groups.setdefault(kind, []).append((probe["rate"], ms))
    for (label, marker, color), points in sorted(groups.items(), reverse=True):  # kept before broken
        axes.plot(*zip(*points, strict=True), ls="", marker=marker, ms=7, color=color, label=label)
    if mute:
        at_top = axes.get_xaxis_transform()
        axes.plot(mute, [1.0] * len(mute), "v", ms=7, color=_BROKEN, transform=at_top, clip_on=False, label="none answered")
    axes.axhline(limit, color=INK, lw=1, ls="--")
    axes.annotate(
        f"limit {limit:g} ms", (1, limit), (-4, 4), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right"
    )
    found = (document["answer"] or {}).get("rate")
    if found:
        axes.axvline(found, color=_KEPT, lw=1, ls=":")
        axes.annotate(
            f"{found:,.4g}/s", (found, 1), (4, -10), xycoords=("data", "axes fraction"), textcoords="offset points", color=_KEPT
        )
    few = any(report["latency"]["p99"] is None for report, _ in _probes(document))
    axes.set_title("p99 of each probe" + ", of fewer than 100 answers the slowest" * few)
    axes.set_xlabel("offered rate, requests/s")
    axes.set_xscale("log")
    _plain(axes.xaxis)
    _latency_axis(axes, [limit, *(ms for points in groups.values() for _, ms in points)])
    _legend(axes)


def _probes(document: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(report, probe) of a search."""
    return list(zip(document["reports"], (document["answer"] or {"probes": []})["probes"], strict=False))


def percentiles(axes: Axes, report: dict[str, Any]) -> None:
    """The latencies of one run, the tail drawn wide."""
    curve = [(1 / (1 - percentile / 100), ms) for percentile, ms in report["latency"]["curve"]]
    axes.plot(*zip(*curve, strict=True), color=_TARGETS[0], lw=2)
    shown = {"p50": 50, "p90": 90, "p99": 99, "p99.9": 99.9}
    for name, percentile in shown.items():
        ms = report["latency"][name.replace(".", "")]
        if ms is not None:
            axes.plot(1 / (1 - percentile / 100), ms, "o", color=_TARGETS[0])
            axes.annotate(
                f"{name} {ms:.3g} ms", (1 / (1 - percentile / 100), ms), (-6, 6), textcoords="offset points", ha="right"
            )
    axes.set_xscale("log")
    ticks = [q for q in (0, 50, 75, 90, 95, 99, 99.5, 99.9, 99.99) if 1 / (1 - q / 100) <= curve[-1][0] * 1.01]
    axes.set_xticks([1 / (1 - q / 100) for q in ticks], [f"{q:g}" for q in ticks])
    axes.minorticks_off()
    samples = report["latency"]["samples"]
    axes.set_title(f"Latency of {samples:,} requests at {report['rows_per_s']:,.4g} images/s")
    axes.set_xlabel("percentile of requests")
    _latency_axis(axes, [ms for _, ms in curve])


def bars(document: dict[str, Any], reports: Reports) -> list[tuple[str, dict[str, Any]]]:
    """(label, report) of each bar: the levels of a sweep, the rates of a search, the median round of each target."""
    if document["kind"] == "search":
        return _thinned(_rates(document))
    if document["kind"] != "comparison":
        ordered = sorted(reports, key=lambda report: report["load"]["rate"] or report["load"]["concurrency"])
        return _thinned([(_short(report["load"]), report) for report in ordered])
    bars = []
    for target in document["targets"]:
        mine = sorted(
            (report for report in reports if report["target"] == target["name"]), key=lambda r: float(r["rows_per_s"])
        )
        if mine:
            bars.append((target["name"], mine[(len(mine) - 1) // 2]))
    return bars


def _rates(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(label, report) of every rate that was probed, the last probe of each; marked where most of its probes kept the limit."""
    votes: dict[float, list[bool]] = {}
    last: dict[float, dict[str, Any]] = {}
    for report, probe in _probes(document):
        votes.setdefault(probe["rate"], []).append(probe["kept"])
        last[probe["rate"]] = report
    kept = {rate: 2 * sum(given) > len(given) for rate, given in votes.items()}
    found = [(f"{rate:.3g}" + "\nkept" * kept[rate], last[rate]) for rate in sorted(last)]
    return [(label, report) for label, report in found if report["latency"]["samples"]]


def _thinned(bars: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    step = -(-len(bars) // _MOST_BARS) if bars else 1
    return bars[::step]


def _short(load: dict[str, Any]) -> str:
    return f"{load['concurrency']}" if load["rate"] is None else f"{load['rate']:.3g}"


def batches(axes: Axes, bars: list[tuple[str, dict[str, Any]]]) -> None:
    """The share of all rows that ran in batches of each size."""
    from matplotlib import colormaps

    axes.set_title("Batches that the server formed")
    served = [(label, report["served"]["batches"] if report["served"] else {}) for label, report in bars]
    largest = max((int(size) for _, batches in served for size in batches), default=0)
    if not largest:
        nothing(axes, "the server gives no batch sizes")
        return
    bins = [(1, 1)]
    while bins[-1][1] < largest:
        bins.append((bins[-1][1] + 1, bins[-1][1] * 2))
    for number, (low, high) in enumerate(bins):
        shares, bottoms = [], []
        for _, batches in served:
            total = sum(int(size) * runs for size, runs in batches.items()) or 1
            rows = {int(size): int(size) * runs for size, runs in batches.items()}
            shares.append(100 * sum(count for size, count in rows.items() if low <= size <= high) / total)
            bottoms.append(100 * sum(count for size, count in rows.items() if size < low) / total)
        color = colormaps["YlGnBu"](0.15 + 0.75 * number / max(len(bins) - 1, 1))
        axes.bar(range(len(served)), shares, 0.72, bottoms, color=color, label=f"{low}" if low == high else f"{low}-{high}")
    axes.set_ylabel("share of rows, %")
    axes.set_ylim(0, 100)
    _bar_axis(axes, bars)
    axes.legend(title="rows of\na batch", loc="upper left", bbox_to_anchor=(1.0, 1.03), reverse=True)


def stages(axes: Axes, bars: list[tuple[str, dict[str, Any]]]) -> None:
    """Where the mean latency went; what the server does not account for is the rest."""
    axes.set_title("Where the time goes")
    if not any(report["served"] for _, report in bars):
        nothing(axes, "the server gives no stage times")
        return
    bottoms = [0.0] * len(bars)
    for stage, (label, color) in _STAGES.items():
        heights = []
        for (_, report), bottom in zip(bars, bottoms, strict=True):
            own = report["served"]["stage_ms"] if report["served"] else {}
            heights.append(max(report["latency"]["mean"] - bottom, 0) if stage == "rest" else own.get(stage, 0.0))
        axes.bar(range(len(bars)), heights, 0.72, bottoms, color=color, label=label)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    axes.set_ylabel("mean of a request, ms")
    _bar_axis(axes, bars)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.03), reverse=True)


def shortened(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:12]}...{name[-9:]}"


def _broken(label: str) -> str:
    """In lines that fit under a bar; an address breaks before its port and nowhere else."""
    if "\n" in label or len(label) <= _WIDEST:
        return label
    host, colon, port = label.rpartition(":")
    if colon and len(host) <= _WIDEST:
        return f"{host}\n:{port}"
    return "\n".join(textwrap.wrap(shortened(label), _WIDEST))


def _bar_axis(axes: Axes, bars: list[tuple[str, dict[str, Any]]]) -> None:
    labels = [_broken(label) for label, _ in bars]
    longest = max((len(line) for label in labels for line in label.splitlines()), default=0)
    axes.set_xticks(range(len(bars)), labels)
    axes.tick_params(axis="x", length=0, labelsize=8 if len(bars) > 7 or longest > 8 else None)
    middle, half = (len(bars) - 1) / 2, max(len(bars), 2) / 2 + 0.1
    axes.set_xlim(middle - half, middle + half)
    levels = {report["load"]["rate"] is None for _, report in bars}
    if len({report["target"] for _, report in bars}) == 1:
        axes.set_xlabel("requests in flight" if levels == {True} else "offered rate, requests/s")


def _legend(axes: Axes, columns: int = 4) -> None:
    """Above the axes, where no line can run through it."""
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 0.995), ncols=columns, columnspacing=1.4, handletextpad=0.5, borderpad=0
    )


def _latency_axis(axes: Axes, latencies: list[float | None]) -> None:
    found = [ms for ms in latencies if ms]
    axes.set_ylabel("latency, ms")
    axes.grid(axis="y", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    if found and max(found) > _LINEAR * min(found):
        axes.set_yscale("log")
        axes.margins(y=0.12)
        _plain(axes.yaxis)
    else:
        axes.set_ylim(0, max(found, default=1) * 1.18)


def _plain(axis: Any) -> None:
    """A logarithmic axis with ticks at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(_numbers())


def _numbers() -> Formatter:
    """As people write them."""
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{value:,.10g}")


def nothing(axes: Axes, why: str) -> None:
    axes.text(0.5, 0.5, why, ha="center", va="center", color=FAINT, transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])
