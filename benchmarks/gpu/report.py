"""A document of measurements in words: lines on the terminal, a Markdown report, and beside it the plots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu import device, judgement, peaks
from gpu.step import Document

_UNITS = {
    "bytes_per_s": (1e9, "GB/s"),
    "flop_per_s": (1e12, "TFLOP/s"),
    "bytes": (2**20, "MiB"),
    "taken_bytes": (2**20, "MiB taken of the device"),
    "flop": (1e9, "GFLOP"),
}


def lines(cells: Document) -> Iterator[str]:
    """A step on the terminal: one for each cell."""
    for name, cell in cells.items():
        yield f"{name}: {judgement.unmeasured(cell) or _short(cell)}"


def verdicts(document: Document) -> list[str]:
    return [
        f"{each['verdict']:>8}  {each['figure']}: {each['found'] or '-'} (wanted {each['wanted']}; {each['why']})"
        for each in document["figures"]
    ]


def write(document: Document, file: Path) -> list[Path]:
    """Markdown and, where matplotlib is there, PNG beside the JSON; what was written."""
    written = [file.with_suffix(".md")]
    try:
        from gpu import plots

        written += plots.draw(document, file.with_suffix(".png"))
    except ImportError as error:
        print(f"no plots: {error.name} is not installed: pip install matplotlib")
    written[0].write_text(markdown(document, [each.name for each in written[1:]]))
    return [file, *written]


def markdown(document: Document, plots: list[str] | None = None) -> str:
    """The whole report."""
    parts = [
        f"# {device.headline(document['device']).splitlines()[0]}",
        f"Made {document['made']} by `python benchmarks/gpu --device {document['on']}`. "
        + device.headline(document["device"]).splitlines()[1],
    ]
    if document["on"] == "cpu":
        parts.append("**This ran on the CPU: it shows that the script works, and nothing of a GPU.**")
    parts += ["## Figures to reach", _table(["figure", "wanted", "found", "verdict", "because"], _judged(document))]
    parts += [f"![{plot}]({plot})" for plot in plots or ()]
    for title, headings, rows in (
        ("Differences from CPU fp32", ["network", "method", "greatest", "top-1", "batch sizes"], _differences(document)),
        ("Ceilings", ["what", "found"], [[name, _short(cell)] for name, cell in _measured(document, "ceilings")]),
        (
            "In process",
            [
                "network",
                "method",
                "batch",
                "images/s",
                "ms",
                "in lanes",
                "device alone",
                "of the best",
                "of the roofline",
            ],
            _in_process(document),
        ),
        ("Decoding", ["what", "found"], [[name, _short(cell)] for name, cell in _measured(document, "decode")]),
        ("Over gRPC", ["model", "sent", "in flight", "images/s", "p50 ms", "p99 ms"], _over_grpc(document)),
        ("Memory", ["what", "found"], [[name, _short(cell)] for name, cell in _memory(document)]),
        ("Not measured", ["step", "what", "because"], _not_measured(document)),
    ):
        table = list(rows)
        parts += [f"## {title}", _note(title) + _table(headings, table)] if table else []
    return "\n\n".join(parts) + "\n"


def _note(title: str) -> str:
    notes = {
        "In process": "From host memory to host memory; in lanes: from several threads at once. Of the roofline: of the"
        " images/s that memory or arithmetic, whichever is less, allows by the data sheet where the device is known, else by"
        " what was measured of it.\n\n",
        "Over gRPC": "p99 of fewer than 100 requests is their greatest.\n\n",
    }
    return notes.get(title, "")


def _judged(document: Document) -> list[list[str]]:
    return [[each[key] for key in ("figure", "wanted", "found", "verdict", "why")] for each in document["figures"]]


def _measured(document: Document, step: str) -> list[tuple[str, Document]]:
    return list(judgement.cells(document, step).items())


def _differences(document: Document) -> Iterator[list[str]]:
    for _, cell in _measured(document, "correctness"):
        agreement = f"{cell['top1_agreement']:.2%} of {cell['rows']}"
        yield [cell["network"], cell["method"], f"{cell['difference']:.1e}", agreement, ", ".join(cell["buckets"])]


def _in_process(document: Document) -> Iterator[list[str]]:
    gpus = document["device"]["gpus"]
    known = peaks.DATA_SHEETS.get(gpus[0]["name"] if gpus and document["on"] != "cpu" else "")
    rates = known or peaks.measured(document["steps"].get("ceilings", {}).get("cells", {}))
    works = {cell["network"]: cell for _, cell in _measured(document, "inprocess") if "flop" in cell}
    for _, cell in _measured(document, "inprocess"):
        network = cell["network"]
        most = judgement.best(document, network, lambda each: True)
        for batch, figures in cell.get("batches", {}).items():
            whole, lanes, alone = (figures.get(way) for way in judgement.WAYS)
            top = max(figures[way]["images_per_s"] for way in judgement.WAYS if way in figures)
            limits = peaks.limits(works[network], cell["arithmetic"], rates, int(batch)) if network in works else {}
            yield [
                network,
                cell["method"],
                batch,
                f"{whole['images_per_s']:,.0f}",
                f"{whole['ms']:.2f}",
                f"{lanes['images_per_s']:,.0f}" if lanes else "",
                f"{alone['images_per_s']:,.0f}" if alone else "",
                f"{top / most['images_per_s']:.2f}" if most else "",
                f"{top / min(limits.values()):.0%}" if limits else "",
            ]


def _over_grpc(document: Document) -> Iterator[list[str]]:
    for name, cell in _measured(document, "served"):
        if "images_per_s" in cell:
            sent = f"{cell['kind']}{', open loop at 70 %' if 'share' in cell else ''}"
            model = name.partition(",")[0] if cell["network"] == "no-op" else cell["network"]
            numbers = f"{cell['images_per_s']:,.0f}", f"{cell['p50_ms']:.2f}", f"{cell['p99_ms']:.2f}"
            yield [model, sent, str(cell.get("level", "")), *numbers]


def _memory(document: Document) -> list[tuple[str, Document]]:
    after = [(name, cell) for name, cell in _measured(document, "served") if set(cell) == {"network", "bytes"}]
    return after + [
        (name, {"growth": f"{cell['growth_bytes'] / 2**20:.0f} MiB in {cell['seconds']:.0f} s"} if "seconds" in cell else cell)
        for name, cell in _measured(document, "memory")
    ]


def _not_measured(document: Document) -> Iterator[list[str]]:
    for step, found in document["steps"].items():
        if found["ended"]:
            yield [step, "the whole", found["ended"]]
        for name, cell in found["cells"].items():
            if reason := judgement.unmeasured(cell):
                yield [step, name, reason]


def _short(cell: Any) -> str:
    """A cell's figures in a line, with their units."""
    if not isinstance(cell, dict):
        return f"{len(cell)} runs"
    if "batches" in cell:
        return ", ".join(f"{batch}: {figures['whole']['images_per_s']:.0f}" for batch, figures in cell["batches"].items())
    if "buckets" in cell:
        return f"difference {cell['difference']:.1e}, top-1 {cell['top1_agreement']:.2%}"
    told = {name: value for name, value in cell.items() if isinstance(value, int | float | str) and name != "network"}
    return ", ".join(_told(name, value) for name, value in told.items())


def _told(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return f"{name.replace('_', ' ')} {value}"
    if name in _UNITS:
        scale, unit = _UNITS[name]
        return f"{value / scale:.4g} {unit}"
    return f"{name.replace('_', ' ')} {value:,.4g}"


def _table(headings: list[str], rows: list[list[str]]) -> str:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [headings, ["---"] * len(headings), *escaped])
