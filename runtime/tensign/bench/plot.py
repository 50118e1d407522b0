"""A result as a picture: throughput against latency, the batches that the server formed, where the time went.

Draws from the JSON document, so that a kept one can be drawn again. matplotlib comes with the extra `plot`.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensign.bench import panels
from tensign.errors import InvalidConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".svg", ".png")


_STYLE: Any = {
    "font.size": 9.5,
    "text.color": panels.INK,
    "axes.labelcolor": panels.INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
}


def check(file: Path) -> None:
    """Raises InvalidConfig, before anything is measured, where the picture could not be drawn."""
    if file.suffix not in FORMATS:
        raise InvalidConfig(f"plot: wanted a file that ends in {' or '.join(FORMATS)}, got {file.name}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InvalidConfig("plot: needs matplotlib: pip install 'tensign[plot]'") from None


def draw(document: dict[str, Any], file: Path) -> None:
    """Writes the picture of a result's document, SVG or PNG by the file's name. Raises InvalidConfig, OSError."""
    check(file)
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "tensign"}):
        figure(document).savefig(file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else None)


def figure(document: dict[str, Any]) -> Figure:
    """The picture, not yet written."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    measured = [report for report in document["reports"] if report["latency"]["samples"]]
    bars = panels.bars(document, measured)
    with rc_context(_STYLE):
        figure = Figure(figsize=(11, 8.5))
        _title(figure, document)
        upper = figure.add_axes((0.075, 0.475, 0.9, 0.365))
        if not measured:
            panels.nothing(upper, "nothing was answered")
        elif document["kind"] == "search":
            panels.search(upper, document, measured)
        elif len(measured) == 1:
            panels.percentiles(upper, measured[0])
        else:
            panels.trade(upper, document, measured)
        panels.batches(figure.add_axes((0.075, 0.085, 0.33, 0.27)), bars)
        panels.stages(figure.add_axes((0.56, 0.085, 0.265, 0.27)), bars)
    return figure


def _title(figure: Figure, document: dict[str, Any]) -> None:
    """Model, device, load, versions, machine."""
    first, *others = document["targets"]
    model, machine, versions = first["model"], document["machine"], document["versions"]
    named = [f"{target['server']['name']} {target['server']['version']}" for target in document["targets"]]
    servers = " against ".join(dict.fromkeys(named))
    device = f" on {model['device']}" if model["device"] else ""
    against = f": {panels.shortened(first['name'])} against {panels.shortened(others[0]['name'])}" if others else ""
    lines = [
        f"{servers}; {_load(document)}",
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB; generator: tensign "
        f"{versions['tensign']}, grpcio {versions['grpcio']}, Python {versions['python']}; {document['made'][:10]}",
    ]
    if ratio := document["ratios"].get("rows_per_s"):
        lines.append(f"images/s, ratio of the rounds: {ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})")
    figure.text(0.02, 0.972, f"{model['name']}{device}{against}", fontsize=14, fontweight="bold", va="top")
    wrapped = "\n".join(part for line in lines for part in textwrap.wrap(line, 165))
    figure.text(0.02, 0.935, wrapped, fontsize=9, color=panels.FAINT, va="top", linespacing=1.35)


def _load(document: dict[str, Any]) -> str:
    load, kind = document["reports"][0]["load"], document["kind"]
    open_loop = load["rate"] is not None or kind == "search"
    loop = "open loop, Poisson arrivals" if open_loop else "closed loop"
    if kind == "comparison" or (kind == "run" and not open_loop):
        loop += f", {_level(load)}"
    way = f"{load['streams']} stream{'s' * (load['streams'] > 1)}" if load["streams"] else "unary"
    what = "encoded pictures" if load["encoded"] else "raw tensors"
    lasted = f"{load['requests']:,} requests" if load["requests"] else f"{load['duration_s']:g} s"
    lasted = "" if kind == "search" else f", {lasted} each"
    return f"{loop}, {way}, {load['rows']} row{'s' * (load['rows'] > 1)} of {what} a request{lasted}"


def _level(load: dict[str, Any]) -> str:
    return f"{load['concurrency']} in flight" if load["rate"] is None else f"{load['rate']:,.4g} requests/s"
