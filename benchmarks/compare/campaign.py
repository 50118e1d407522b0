"""The rounds: every server in turn, again and again, and what they come to."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc

import h2load
from compare.in_process import rows_per_s
from compare.loads import Load
from compare.perf_analyzer import PerfAnalyzer
from compare.rival import Rival
from compare.server import Server, Unavailable, running
from compare.wire import ask, data_bytes
from h2load import INFER, grpc_request
from tensign._pb import open_inference_pb2 as pb
from tensign.bench.server import Served

_ANSWER_S = 120
_STATISTICS = INFER.replace("ModelInfer", "ModelStatistics")

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """How it is measured. cpus: of every server alike; client_cpus: of the load generator, the same where there are no more.

    A run lasts `seconds`; the first of `rounds` + 1 warms up and does not count.
    """

    concurrency: tuple[int, ...]
    rounds: int
    seconds: float
    cpus: tuple[int, ...]
    client_cpus: tuple[int, ...]


def measured(rivals: Sequence[Rival], loads: Sequence[Load], settings: Settings, scratch: Path) -> Document:
    """{load: its document}; a server of which nothing comes stands among `skipped`, with the reason."""
    found: Document = {}
    for model, group in itertools.groupby(loads, key=lambda load: load.model):
        same = list(group)
        with contextlib.ExitStack() as stack:
            servers, skipped = _started(rivals, same[0], settings, scratch / model, stack)
            for load in same:
                found[load.name] = _rounds(load, servers, skipped, settings)
    return found


def _started(
    rivals: Sequence[Rival], load: Load, settings: Settings, scratch: Path, stack: contextlib.ExitStack
) -> tuple[list[Server], dict[str, str]]:
    servers, skipped = [], {}
    for number, rival in enumerate(rivals):
        print(f"{load.model}: {rival.name}: starting (its environment first, where it is not there: minutes)", flush=True)
        try:
            servers.append(stack.enter_context(running(rival, load, scratch / str(number), settings.cpus)))
        except Unavailable as reason:
            skipped[rival.name] = str(reason)
            print(f"{load.model}: {rival.name}: skipped: {reason}", flush=True)
    return servers, skipped


def _rounds(load: Load, servers: list[Server], skipped: dict[str, str], settings: Settings) -> Document:
    """Servers that fail leave `servers` and stand in `skipped` from then on."""
    runs: dict[tuple[str, int], list[Document]] = {}
    too_slow: dict[str, int] = {}  # from this concurrency on, fewer answers than connections
    requests = {server.rival.name: server.rival.request(load) for server in servers}
    answers: dict[str, int] = {}
    limits: list[float] = []
    for number in range(settings.rounds + 1):
        if number:
            limits.append(rows_per_s(load, settings.seconds, settings.cpus))
        for concurrency, server in itertools.product(settings.concurrency, list(servers)):
            name = server.rival.name
            if server not in servers or concurrency >= too_slow.get(name, concurrency + 1):
                continue
            try:
                if name not in answers:
                    answers[name] = data_bytes(requests[name], ask(server.address, requests[name], _ANSWER_S))
                run = _run(server, requests[name], answers[name], concurrency, settings)
            except (Unavailable, RuntimeError, OSError, http.client.HTTPException, grpc.RpcError) as reason:
                servers.remove(server)
                skipped[name] = f"failed at {concurrency} at once: {' '.join(str(reason).split())[:300]}"
                print(f"{load.name}: {name}: {skipped[name]}", flush=True)
                continue
            if run["requests"] < concurrency:
                too_slow[name] = concurrency
            elif number:
                runs.setdefault((name, concurrency), []).append(run)
        print(f"{load.name}: round {number} of {settings.rounds}{'' if number else ', to warm up'}", flush=True)
    shown = {server.rival.name: _shown(server, load, runs, settings) for server in servers}
    second = _second_opinion(load, servers, shown, settings) if not load.encoded else {}
    return {
        "title": load.title,
        "rows": load.rows,
        "in_process": {"rows_per_s": statistics.median(limits), "rounds_rows_per_s": limits},
        "servers": shown,
        "perf_analyzer": second,
        "skipped": dict(skipped),
    }


def _run(server: Server, request: h2load.Request, answer: int, concurrency: int, settings: Settings) -> Document:
    before, cpu_s = _statistics(server, request), server.cpu_s()
    load = h2load.timed(
        server.address,
        request,
        concurrency=concurrency,
        seconds=settings.seconds,
        answer_bytes=answer,
        cpus=settings.client_cpus,
    )
    cores = (server.cpu_s() - cpu_s) / settings.seconds
    served = Served.between(before, _statistics(server, request), "m")
    server.settle()  # what it still does for connections that are gone is not the next one's to pay
    return {**asdict(load), "cores": cores, "served": asdict(served) if served else None}


def _second_opinion(load: Load, servers: list[Server], shown: Document, settings: Settings) -> Document:
    """{server: {concurrency: figures}} by perf_analyzer, once; {server: the reason} where it gives none."""
    found: Document = {}
    asked = [server for server in servers if server.rival.computes and not server.rival.request(load).http1]
    for server in asked:
        points = {level: point for level, point in shown[server.rival.name]["points"].items() if point}
        try:
            analyzer = PerfAnalyzer.installed()
            found[server.rival.name] = {
                level: analyzer.run(
                    server.address,
                    rows=load.rows,
                    concurrency=int(level),
                    requests=max(int(point["requests_per_s"] * settings.seconds), 4 * int(level)),
                )
                for level, point in points.items()
            }
            server.settle()
        except (RuntimeError, Unavailable) as reason:
            found[server.rival.name] = str(reason)
    return found


def _statistics(server: Server, request: h2load.Request) -> list[pb.ModelStatistics]:
    """Empty where it keeps none."""
    if request.http1:
        return []
    try:
        message = ask(server.address, grpc_request(b"", _STATISTICS), _ANSWER_S)
    except grpc.RpcError:
        return []
    return list(pb.ModelStatisticsResponse.FromString(message).model_stats)


def _shown(server: Server, load: Load, runs: dict[tuple[str, int], list[Document]], settings: Settings) -> Document:
    rival = server.rival
    points = {}
    for concurrency in settings.concurrency:
        own = runs.get((rival.name, concurrency))
        points[str(concurrency)] = _point(own, load.rows) if own else None
    return {
        "version": rival.version,
        "note": rival.note,
        "floor": not rival.computes,
        "ready_s": server.ready_s,
        "memory_bytes": server.memory_bytes(),
        "points": points,
    }


def _point(runs: list[Document], rows: int) -> Document:
    """Medians over the rounds, and the rounds."""
    names = ("requests_per_s", "mean_ms", "p50_ms", "p99_ms", "cores")
    point: Document = {name: statistics.median(run[name] for run in runs) for name in names}
    typical = sorted(runs, key=lambda run: float(run["mean_ms"]))[(len(runs) - 1) // 2]
    rates = [run["requests_per_s"] * rows for run in runs]
    return {"rows_per_s": point["requests_per_s"] * rows, **point, "served": typical["served"], "rounds_rows_per_s": rates}
