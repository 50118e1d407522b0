"""A campaign as pictures: throughput against latency of every server, batches and stages of those that tell them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from compare.table import LIMIT, OURS
from tensign.bench import panels

Document = dict[str, Any]

_COLORS = ("#1f6fb4", "#999999", "#444444", "#2a8a4a", "#d1660f", "#8e44ad", "#c0392b", "#d9a321")
_STYLE: Any = {
    "font.size": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
}


def draw(document: Document, trade: Path, stages: Path) -> None:
    """Writes both as SVG, the same bytes for the same figures."""
    with rc_context({**_STYLE, "svg.hashsalt": "tensign"}):
        _trade(document).savefig(trade, metadata={"Date": None})
        _stages(document).savefig(stages, metadata={"Date": None})


def _trade(document: Document) -> Figure:
    loads = list(document["loads"].values())
    figure = Figure(figsize=(12, 4.2 * -(-len(loads) // 2) + 0.6), layout="constrained")
    grid = figure.subplots(-(-len(loads) // 2), 2, squeeze=False).ravel()
    names = list(dict.fromkeys(name for load in loads for name in load["servers"]))
    colors = dict(zip(sorted(names, key=lambda name: name != OURS), _COLORS, strict=False))
    for axes, load in zip(grid, loads, strict=False):
        for name, server in load["servers"].items():
            _line(axes, name, server, colors[name])
        limit = load["in_process"]["rows_per_s"]
        axes.axvline(limit, color=panels.FAINT, lw=1, ls=":", label=LIMIT)
        axes.set_title(load["title"])
        axes.set_xlabel("throughput, images/s")
        axes.set_ylabel("p50, ms")
        _logarithmic(axes)
    for axes in grid[len(loads) :]:
        axes.remove()
    handles = {label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _line(axes: Axes, name: str, server: Document, color: str) -> None:
    """One server over the levels of concurrency, which stand beside our own points."""
    points = [(point["rows_per_s"], point["p50_ms"], level) for level, point in server["points"].items() if point]
    if not points:
        return
    style = "--" if server["floor"] else "-"
    axes.plot(*list(zip(*points, strict=True))[:2], style, marker="o", ms=5 if name == OURS else 3.5, color=color, label=name)
    if name == OURS:
        for rate, ms, level in points:
            axes.annotate(level, (rate, ms), (5, -10), textcoords="offset points", color=color)


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.grid(color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)


def _stages(document: Document) -> Figure:
    """A row for each load, a bar for each server that keeps statistics, at each level of concurrency."""
    loads = list(document["loads"].values())
    figure = Figure(figsize=(14, 3.4 * len(loads)), layout="constrained")
    for (left, right), load in zip(figure.subplots(len(loads), 2, squeeze=False), loads, strict=True):
        bars = [
            (f"{name}, {level}", {"served": point["served"], "latency": {"mean": point["mean_ms"]}, **_level(name, level)})
            for name, server in load["servers"].items()
            for level, point in server["points"].items()
            if point and point["served"]
        ]
        panels.batches(left, bars)
        panels.stages(right, bars)
        left.set_title(f"{load['title']}: batches")
        right.set_title("where the time goes")
    return figure


def _level(name: str, level: str) -> Document:
    return {"load": {"rate": None, "concurrency": int(level)}, "target": name}
