"""The comparison of servers: it measures, checks answers, skips by name, and leaves no process behind."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compare import kserve, mlflow, mlserver, noop_grpc, picture, server, table, triton
from compare.campaign import Settings, measured
from compare.loads import LOADS, Load
from compare.rival import Rival, Stage
from compare.server import Unavailable, made, running
from compare.wire import infer_answer, json_answer
from tensign.bench.machine import machine

CPUS = tuple(sorted(os.sched_getaffinity(0)))
FLOOR = noop_grpc.THREADS


def named(name: str, *command: str) -> Rival:
    return replace(FLOOR, name=name, command=lambda stage: list(command))


def test_servers_are_measured_in_turn_and_the_broken_are_named(tmp_path: Path) -> None:
    if shutil.which("h2load") is None:
        pytest.skip("h2load is not installed (package nghttp2-client)")
    settings = Settings(concurrency=(1, 2), rounds=1, seconds=0.2, cpus=CPUS, client_cpus=CPUS)
    document = measured([FLOOR, noop_grpc.AIO, named("broken", "false")], LOADS[:1], settings, tmp_path)
    load = document["mean-1"]
    assert list(load["servers"]) == [FLOOR.name, noop_grpc.AIO.name]
    assert load["servers"][FLOOR.name]["points"]["2"]["rows_per_s"] > 0
    assert load["servers"][FLOOR.name]["memory_bytes"] > 1e6
    assert load["in_process"]["rows_per_s"] > 100
    assert "ended with 1 before it was ready" in load["skipped"]["broken"]
    whole = {"date": "2026-01-01", "machine": machine(), "loads": document}
    whole["settings"] = {name: getattr(settings, name) for name in ("rounds", "seconds", "cpus", "client_cpus", "concurrency")}
    text = table.markdown(whole)
    assert f"| {FLOOR.name} | " in text and "- broken took no part: ended with 1" in text
    drawn = [tmp_path / f"{name}.svg" for name in "abcd"]
    picture.draw(whole, *drawn[:2])
    picture.draw(whole, *drawn[2:])
    assert drawn[0].read_bytes() == drawn[2].read_bytes() and drawn[1].read_bytes() == drawn[3].read_bytes()


def test_a_wrong_answer_takes_no_part(tmp_path: Path) -> None:
    with (
        pytest.raises(Unavailable, match=r"answers \(1, 3\) \[0. 0. 0.\], expected"),
        running(replace(FLOOR, computes=True), LOADS[0], tmp_path / "stage", CPUS),
    ):
        pass


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    def command(stage: Stage) -> list[str]:
        floor = " ".join(FLOOR.command(stage))
        return ["bash", "-c", f"(trap '' TERM; exec sleep 1000) & exec {floor}"]

    with running(replace(FLOOR, command=command), LOADS[0], tmp_path / "stage", CPUS) as started:
        assert len(server._members(started.pid)) == 2
    assert not server._members(started.pid)


def test_an_environment_that_cannot_be_made_is_named() -> None:
    with pytest.raises(Unavailable, match="there is no /no/python"):
        made("triton", "/no/python")


@pytest.mark.parametrize("rival", [kserve.KSERVE, mlflow.MLFLOW, mlserver.MLSERVER, triton.TRITON], ids=lambda each: each.name)
def test_every_rival_is_pinned_and_told(rival: Rival) -> None:
    assert rival.version.startswith(f"{rival.package}==") and rival.note


@pytest.mark.parametrize("load", [load for load in LOADS if load.model != "resnet18"], ids=lambda load: load.name)
def test_every_load_has_one_right_answer(load: Load) -> None:
    assert load.expected().shape == (load.rows, 3)


def test_answers_are_read_as_servers_write_them() -> None:
    assert np.array_equal(infer_answer(noop_answer()), np.zeros((1, 3), np.float32))
    for body in (b'{"predictions": [[1, 2]]}', b'{"predictions": {"mean": [[1, 2]]}}'):
        assert np.array_equal(json_answer(body), np.array([[1, 2]], np.float32))


def noop_answer() -> bytes:
    from noop_server import answer

    return answer().SerializeToString()
