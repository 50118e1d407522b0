"""Two plots: every method at its batch sizes below what the device allows, and what is left of it behind gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from gpu import judgement, peaks
from gpu.step import Document

_COLORS = ("#1f6fb4", "#d1660f", "#2a8a4a", "#8e44ad", "#c0392b", "#d9a321", "#444444", "#999999")
_MARKS = "osv^"


def draw(document: Document, file: Path) -> list[Path]:
    """Writes FILE, of what was measured in process, and FILE-served; what was written."""
    written = []
    for step, target, one in (
        ("inprocess", file, _in_process),
        ("served", file.with_stem(f"{file.stem}-served"), _over_grpc),
    ):
        networks = sorted({judgement.network_of(cell) for cell in _lines(document, step)})
        if networks:
            figure = Figure(figsize=(6.5 * len(networks), 5), layout="constrained")
            for axes, network in zip(figure.subplots(1, len(networks), squeeze=False)[0], networks, strict=True):
                one(axes, document, network)
                axes.set_title(network, loc="left")
                axes.legend(fontsize=7, frameon=False)
                axes.grid(alpha=0.3)
            figure.savefig(target, dpi=120)
            written.append(target)
    return written


def _lines(document: Document, step: str) -> list[Document]:
    """Cells that a plot shows."""
    of = "batches" if step == "inprocess" else "level"
    return [cell for cell in judgement.cells(document, step).values() if of in cell and cell["network"] != "no-op"]


def _in_process(axes: Axes, document: Document, network: str) -> None:
    own = [cell for cell in _lines(document, "inprocess") if cell["network"] == network]
    for number, cell in enumerate(own):
        batches = [int(batch) for batch in cell["batches"]]
        rates = [max(each["images_per_s"] for each in _ways(figures)) for figures in cell["batches"].values()]
        axes.plot(batches, rates, label=cell["method"], lw=2 if cell["own"] else 1, **_look(number))
    work = next((c for c in judgement.cells(document, "inprocess").values() if c["network"] == network and "flop" in c), None)
    gpus = document["device"]["gpus"]
    if work and gpus and (sheet := peaks.DATA_SHEETS.get(gpus[0]["name"])) and document["on"] != "cpu":
        limit = min(peaks.limits(work, "fp16", sheet, 256).values())
        axes.axhline(limit, color="black", ls=":", label="fp16, all that the data sheet allows")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_yscale("log")
    axes.set_xlabel("rows of a batch")
    axes.set_ylabel("images/s, in process")


def _look(number: int) -> Any:
    return {"color": _COLORS[number % len(_COLORS)], "marker": _MARKS[number // len(_COLORS) % len(_MARKS)]}


def _ways(figures: Document) -> list[Document]:
    return [figures[how] for how in judgement.WAYS if how in figures]


def _over_grpc(axes: Axes, document: Document, network: str) -> None:
    lines: dict[str, list[tuple[float, float]]] = {}
    for cell in _lines(document, "served"):
        if judgement.network_of(cell) == network:
            called = cell["kind"] + cell["network"].removeprefix(network)
            lines.setdefault(called, []).append((cell["images_per_s"], cell["p50_ms"]))
    for number, (called, points) in enumerate(lines.items()):
        rates, latencies = zip(*points, strict=True)
        axes.plot(rates, latencies, label=called, lw=1, **_look(number))
    for what, limit in (
        ("in process", judgement.best(document, network, lambda cell: cell["own"])),
        ("no-op server", judgement.fastest(document, "no-op")),
    ):
        if limit:
            axes.axvline(limit["images_per_s"], color="black", ls=":" if what == "in process" else "--", lw=1, label=what)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("images/s over gRPC")
    axes.set_ylabel("p50, ms")
