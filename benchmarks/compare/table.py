"""A campaign as Markdown."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]
OURS = "tensign"
LIMIT = "the model in process, no server"


def markdown(document: Document) -> str:
    """Tables of every load, ours beside each other server, and who took no part, with the reason."""
    settings, machine = document["settings"], document["machine"]
    cpus = len(settings["cpus"])
    shares = settings["cpus"] == settings["client_cpus"]
    others = "which the load generator shares" if shares else "others for the load generator"
    head = (
        f"{document['date']}, {machine['processor']}, the same {cpus} CPUs for every server, {others}; h2load, one"
        f" request in flight on each connection, {settings['seconds']:g} s a run; medians of {settings['rounds']} alternating"
        " rounds, after one that warms up."
    )
    parts = ["# Servers of the same models", head]
    for load in document["loads"].values():
        parts += [f"## {load['title']}", *_load(load, settings["concurrency"], settings["seconds"])]
    return "\n\n".join([*parts, _notes(document)]) + "\n"


def _load(load: Document, concurrency: list[int], seconds: float) -> list[str]:
    head = ["images/s (p50 ms) at", *map(str, concurrency), "cores", "ready, s", "MB"]
    rows = [head]
    for name, server in load["servers"].items():
        points = [server["points"][str(each)] for each in concurrency]
        cores = [point["cores"] for point in points if point]
        rest = [f"{max(cores):.1f}" if cores else "-", f"{server['ready_s']:.1f}", f"{server['memory_bytes'] / 1e6:.0f}"]
        rows.append([name, *map(_cell, points), *rest])
    limit = load["in_process"]["rows_per_s"]
    rows.append([LIMIT, *[_short(limit)] * len(concurrency), "-", "-", "-"])
    parts = [_grid(rows)]
    if ours := load["servers"].get(OURS):
        ratios = [["tensign's images/s, as times those of", *map(str, concurrency)]]
        for name, server in load["servers"].items():
            if name != OURS:
                pairs = [(ours["points"][str(each)], server["points"][str(each)]) for each in concurrency]
                ratios.append([name, *(_ratio(*pair) for pair in pairs)])
        ratios.append([LIMIT, *(_ratio(ours["points"][str(each)], load["in_process"]) for each in concurrency)])
        parts.append(_grid(ratios))
    parts += _second_opinion(load["perf_analyzer"], concurrency)
    if any(None in server["points"].values() for server in load["servers"].values()):
        parts.append(f"-: fewer answers in {seconds:g} s than requests in flight.")
    if load["skipped"]:
        parts.append("\n".join(f"- {name} took no part: {reason}" for name, reason in load["skipped"].items()))
    return parts


def _second_opinion(found: Document, concurrency: list[int]) -> list[str]:
    rows = [["by perf_analyzer, once", *map(str, concurrency)]]
    rows += [
        [name, *(_cell(points.get(str(each))) for each in concurrency)]
        for name, points in found.items()
        if not isinstance(points, str)
    ]
    refused = [f"- perf_analyzer gives no figure of {name}: {said}" for name, said in found.items() if isinstance(said, str)]
    return [*([_grid(rows)] if len(rows) > 1 else []), *(["\n".join(refused)] if refused else [])]


def _cell(point: Document | None) -> str:
    return f"{_short(point['rows_per_s'])} ({point['p50_ms']:.3g})" if point else "-"


def _ratio(ours: Document | None, theirs: Document | None) -> str:
    if not (ours and theirs):
        return "-"
    ratio = ours["rows_per_s"] / theirs["rows_per_s"]
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.1g}"


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _grid(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _notes(document: Document) -> str:
    notes = {
        name: (server["version"], server["note"])
        for load in document["loads"].values()
        for name, server in load["servers"].items()
    }
    lines = [f"- {name}{f' ({version})' * bool(version)}: {note}." for name, (version, note) in notes.items()]
    return "\n".join(["## The servers\n", *lines])
