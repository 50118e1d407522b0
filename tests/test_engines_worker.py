"""Engines in a process of their own: what a model does to it is not done to the server, and nobody gets a wrong answer."""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tensign.client import Client
from tensign.config import ModelConfig
from tensign.engines.process import Process, Refused
from tensign.engines.worker import ENGINE_CLASSES, Worker
from tensign.errors import DeadlineExceeded, EngineError, ModelNotReady, TooLarge, UnsupportedModel, WorkerDied
from tensign.model import Model
from tensign.testing import serving

TRUSTED = ModelConfig(device="cpu", trust=True, engine="pyfunc")
BATCHED = ModelConfig(device="cpu", trust=True, engine="sklearn", max_batch_size=8)
COLUMNS = [{"type": "string", "name": "do", "required": True}, {"type": "long", "name": "id", "required": True}]

LOADER = '''
import ctypes, os, sys, time
import numpy as np

KEPT = []

class Odd:
    """Gives each row's id + 1000, or does what a row of the batch says."""

    def predict(self, model_input, params=None):
        answer = model_input["id"].to_numpy() + 1000
        for do in model_input["do"]:
            if do == "raise":
                raise ValueError("a payload that nobody else shall see")
            if do == "shorter":
                return answer[:-1]
            if do == "longer":
                return np.append(answer, 7)
            if do == "text":
                return "text"
            if do == "object":
                return object()
            if do == "floats":
                return answer.astype(float)
            if do == "none":
                return None
            if do == "print":
                print("printed by a model", flush=True)
                os.write(1, b"and written past Python")
            if do == "exit":
                sys.exit(3)
            if do == "_exit":
                os._exit(3)
            if do == "segfault":
                ctypes.string_at(0)
            if do == "loop":
                while True:
                    pass
            if do == "leak":
                KEPT.append(np.ones(256 << 20, np.uint8))
        return answer

def _load_pyfunc(path):
    if os.path.exists(os.path.join(path, "broken")):
        raise RuntimeError("it is broken")
    return Odd()
'''


def odd_model(path: Path, loader: str = LOADER, output: str = "long") -> Path:
    """Code in a directory of its own, as a python_function, and pickled as an estimator; needs pandas, not MLflow."""
    (path / "code").mkdir(parents=True)
    (path / "code" / "odd_loader.py").write_text(textwrap.dedent(loader))
    (path / "model.pkl").write_bytes(b"\x80\x02codd_loader\nOdd\n)\x81.")
    document: dict[str, Any] = {
        "flavors": {
            "python_function": {"loader_module": "odd_loader", "code": "code"},
            "sklearn": {"pickled_model": "model.pkl", "serialization_format": "pickle", "code": "code"},
        },
        "signature": {"inputs": json.dumps(COLUMNS)},
    }
    if output:
        document["signature"]["outputs"] = json.dumps([{"type": output, "name": "answer"}])
    (path / "MLmodel").write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = odd_model(tmp_path_factory.mktemp("odd") / "model")
    model = Model.load(path, replace(BATCHED, max_growth_bytes=16 << 20))
    yield model
    model.close()


def rows(do: str, *ids: int) -> dict[str, Any]:
    return {"do": np.array([do] * len(ids), object), "id": np.array(ids, np.int64)}


def worker(model: Model) -> Worker:
    (engine,) = model._engines
    assert isinstance(engine, Worker)
    return engine


def kill(model: Model) -> None:
    """And waits until that was noticed."""
    engine = worker(model)
    pid = engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with engine._changed:
        assert engine._changed.wait_for(lambda: engine.pid != pid, 30)


def answered(model: Model, *ids: int) -> None:
    np.testing.assert_array_equal(model.infer(rows("", *ids), timeout_s=30)["answer"], np.array(ids) + 1000)


MISBEHAVIOUR = {  # what a row makes the model do: (what whoever sent it hears, does the process survive)
    "raise": (EngineError, "raised ValueError", True),
    "shorter": (EngineError, "expected 2 rows, got 1", True),
    "longer": (EngineError, "expected 2 rows, got 3", True),
    "text": (EngineError, "returned a str, which holds no rows", True),
    "object": (EngineError, "returned a object, which holds no rows", True),
    "floats": (EngineError, 'output "answer"', True),
    "none": (EngineError, "returned None, which holds no rows", True),
    "print": (None, "", True),
    "exit": (EngineError, "raised SystemExit", True),
    "_exit": (WorkerDied, "process ended", False),
    "segfault": (WorkerDied, "process ended", False),
    "loop": (DeadlineExceeded, "within the timeout", False),
    "leak": (None, "", False),
}


@pytest.mark.parametrize("do", MISBEHAVIOUR)
def test_what_a_model_does_is_told_to_whoever_made_it_do_that(odd: Model, do: str) -> None:
    """Its neighbours, in the same batch or after it, get their own answers."""
    error, text, survives = MISBEHAVIOUR[do]
    answered(odd, 1)
    before = worker(odd).pid
    if error is None:
        np.testing.assert_array_equal(odd.infer(rows(do, 5, 6))["answer"], [1005, 1006])
    else:
        with pytest.raises(error, match=text):
            odd.infer(rows(do, 5, 6), timeout_s=0.5 if do == "loop" else 30)
    answered(odd, 7, 8, 9)
    assert (worker(odd).pid == before) == survives


def test_neighbours_in_the_batch_of_one_that_kills_are_answered(odd: Model) -> None:
    holding = odd.submit(rows("", *range(8)))  # while it runs, the others gather
    good = [odd.submit(rows("", id)) for id in range(100, 103)]
    bad = odd.submit(rows("_exit", 0))
    more = [odd.submit(rows("", id)) for id in range(200, 203)]
    holding.result(30)
    for id, future in zip([*range(100, 103), *range(200, 203)], [*good, *more], strict=True):
        assert future.result(30)["answer"].tolist() == [id + 1000]
    with pytest.raises(WorkerDied):
        bad.result(30)


def test_no_answer_comes_from_another_request(odd: Model) -> None:
    """Threads with rows of their own, while some make the process die."""
    wrong: list[str] = []
    seen: list[str] = []

    def ask(number: int) -> None:
        for turn in range(12):
            do = "_exit" if (number, turn) in ((0, 4), (1, 7)) else ""
            ids = [number * 1000 + turn * 10 + n for n in range(3)]
            try:
                got = odd.infer(rows(do, *ids), timeout_s=30)["answer"].tolist()
                if got != [id + 1000 for id in ids]:
                    wrong.append(f"{ids} gave {got}")
            except WorkerDied:
                seen.append(do)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert seen == ["_exit", "_exit"]


def test_killed_twenty_times_under_load(tmp_path: Path) -> None:
    """Over gRPC: every row answered is its own, every other one has a status, recovery takes 2 s and the model's loading."""
    began = time.perf_counter()
    model = Model.load(odd_model(tmp_path / "model"), BATCHED, name="odd")
    loading_s = time.perf_counter() - began
    done = threading.Event()
    answers, recoveries = [0] * 3, list[float]()
    failures, wrong = list[str](), list[str]()

    def stream(address: str, number: int) -> None:
        def requests() -> Iterator[dict[str, Any]]:
            for turn in itertools.count():
                if done.is_set():
                    return
                yield rows("", number * 1_000_000 + turn)

        with Client(address, retries=0) as client:
            for turn, answer in enumerate(client.stream(requests(), window=8)):
                if answer.error is not None:
                    failures.append(type(answer.error).__name__)
                elif answer.outputs["answer"].tolist() != [number * 1_000_000 + turn + 1000]:
                    wrong.append(f"{number} {turn} {answer.outputs['answer'].tolist()}")
                else:
                    answers[number] += 1

    with serving(model) as address:
        threads = [threading.Thread(target=stream, args=(address, number)) for number in range(3)]
        for thread in threads:
            thread.start()
        try:
            for turn in range(20):
                kill(model)
                killed = time.perf_counter()
                answered(model, 5_000_000 + turn)
                recoveries.append(time.perf_counter() - killed)
        finally:
            done.set()
            for thread in threads:
                thread.join()
    print(f"loading {loading_s:.2f} s; recoveries {max(recoveries):.2f} s at most; {sum(answers)} answers, {failures}")
    assert not wrong
    assert all(answers)
    assert set(failures) <= {"ModelNotReady", "WorkerDied"}  # of requests that two kills hit
    assert max(recoveries) < 2 + loading_s
    assert worker(model).restarts >= 20


def test_one_that_no_longer_loads_is_given_up(tmp_path: Path) -> None:
    path = odd_model(tmp_path / "model")
    model = Model.load(path, TRUSTED)
    assert model.ready
    (path / "broken").touch()
    kill(model)
    with pytest.raises(ModelNotReady, match="does not start any more: odd_loader cannot load it: RuntimeError: it is broken"):
        model.infer(rows("", 1), timeout_s=60)
    assert not model.ready
    model.close()


def test_one_that_does_not_load_at_first_says_why_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = odd_model(tmp_path / "model")
    (path / "broken").touch()
    with pytest.raises(UnsupportedModel, match="odd_loader cannot load it: RuntimeError: it is broken"):
        Model.load(path, TRUSTED)
    assert capfd.readouterr().err == ""  # the error is all that there is to say


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/true", "/bin/cat"])
def test_what_is_no_python(tmp_path: Path, python: str) -> None:
    with pytest.raises(UnsupportedModel, match=python if python == "/nowhere/python" else "process that should load it ended"):
        Model.load(odd_model(tmp_path / "model"), replace(TRUSTED, python=python))


def test_a_python_without_numpy_is_told_as_that(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    with pytest.raises(UnsupportedModel, match="that Python has no numpy"):
        Model.load(odd_model(tmp_path / "model"), replace(TRUSTED, python=str(python)))
    assert capfd.readouterr().err == ""


CELLS = """
import numpy as np
import pandas as pd

class Odd:
    def predict(self, model_input):
        return pd.DataFrame({"cells": [np.full(1000 + id % 7, id) for id in model_input["id"]]})

def _load_pyfunc(path):
    return Odd()
"""


@pytest.mark.parametrize("engine", ["pyfunc", "sklearn"])
def test_arrays_in_cells_are_nobody_elses(tmp_path: Path, engine: str) -> None:
    """An answer outlives the batches after it, which go through the same memory."""
    with closing(Model.load(odd_model(tmp_path / "model", CELLS, ""), replace(BATCHED, engine=engine))) as model:

        def ask(id: int) -> tuple[int, Any]:
            return id, model.infer(rows("", id, id + 1), timeout_s=30)["cells"]

        with ThreadPoolExecutor(8) as callers:
            answers = list(callers.map(ask, range(1, 161)))
        for id, cells in answers:
            assert [(len(cell), set(cell.tolist())) for cell in cells] == [(1000 + one % 7, {one}) for one in (id, id + 1)], id


SLOW_AT_FIRST = """
import os, time

HERE = os.path.dirname(os.path.dirname(__file__))
KEPT = []

class Odd:
    def predict(self, model_input):
        if not KEPT:
            time.sleep(1.5)
        if os.path.exists(os.path.join(HERE, "choosy")) and (model_input["id"] < 1000).any():
            raise ValueError("no made-up rows")
        KEPT.append(b"x" * (256 << 20) if "leak" in set(model_input["do"]) else b"")
        return model_input["id"] + 1000

def _load_pyfunc(path):
    if os.path.exists(os.path.join(path, "broken once")):
        os.remove(os.path.join(path, "broken once"))
        raise RuntimeError("it is broken")
    return Odd()
"""


def test_a_first_run_that_takes_long_is_repeated_before_anybody_waits_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Callers in a hurry do not have it killed again and again; the log says how it died, and when it was back."""
    caplog.set_level("INFO")
    with closing(Model.load(odd_model(tmp_path / "model", SLOW_AT_FIRST), BATCHED, name="slow")) as model:
        kill(model)
        assert worker(model)._awaited(time.monotonic() + 30).warm
        kill(model)
        assert eventually(model, 1000, timeout_s=0.5) > 0
        assert worker(model).restarts == 2
    log = [record.getMessage() for record in caplog.records]
    assert any("ended by signal 9 (SIGKILL)" in line for line in log), log
    assert any("is ready again after" in line for line in log), log


COUNTING = """
import os

class Odd:
    def predict(self, model_input):
        with open(os.path.join(os.path.dirname(os.path.dirname(__file__)), "seen"), "a") as file:
            file.write(f"{len(model_input)} ")
        return model_input["id"] + 1000
"""


@pytest.mark.parametrize(("accelerator", "again"), [("", "1 "), ("compile", "1 2 4 ")])
def test_a_new_process_is_warmed_as_the_first_one_was(tmp_path: Path, accelerator: str, again: str) -> None:
    """With every batch size where something was made for each: no request pays for that."""
    path = odd_model(tmp_path / "model", COUNTING)
    with closing(Model.load(path, BATCHED)) as model:
        settings = {**worker(model)._settings, "accelerator": accelerator}
    engine = Worker(ENGINE_CLASSES["sklearn"], settings)
    with closing(engine):
        engine.load()
        for count in (1, 2, 4):
            engine.warmup(rows("", *range(count)))
        (path / "seen").unlink()
        pid = engine.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with engine._changed:
            assert engine._changed.wait_for(lambda: engine.pid not in (None, pid), 30)
        assert (path / "seen").read_text() == again


def test_one_that_refuses_made_up_rows_has_patience_a_limit_and_further_attempts(tmp_path: Path) -> None:
    path = odd_model(tmp_path / "model", SLOW_AT_FIRST)
    (path / "choosy").touch()
    with closing(Model.load(path, replace(TRUSTED, max_growth_bytes=16 << 20))) as model:
        first = worker(model).pid
        np.testing.assert_array_equal(model.infer(rows("", 1000), timeout_s=5)["answer"], [2000])
        assert worker(model).pid == first
        (path / "broken once").touch()
        kill(model)
        assert eventually(model, 1000, timeout_s=0.5) >= 0
        assert worker(model).restarts == 1
        second = worker(model).pid
        model.infer(rows("leak", 1000), timeout_s=30)
        np.testing.assert_array_equal(model.infer(rows("", 1000), timeout_s=30)["answer"], [2000])
        assert worker(model).pid != second


def eventually(model: Model, id: int, timeout_s: float) -> int:
    """Asks again and again until there is an answer; how many times there was none."""
    for failed in range(20):
        try:
            assert model.infer(rows("", id), timeout_s=timeout_s)["answer"].tolist() == [id + 1000]
        except (DeadlineExceeded, ModelNotReady):
            continue
        return failed
    raise AssertionError("never answered")


def test_a_traceback_is_logged_once_with_the_models_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with closing(Model.load(odd_model(tmp_path / "model"), TRUSTED, name="called so")) as model:
        for _ in range(3):
            with pytest.raises(EngineError):
                model.infer(rows("raise", 1))
    log = [record.getMessage() for record in caplog.records if record.name == "tensign.engines.worker"]
    assert [line.count("Traceback") for line in log] == [1, 0, 0]
    assert all(line.startswith("called so: the model raised ValueError") for line in log)
    assert "Traceback" not in capfd.readouterr().err


@pytest.fixture
def process() -> Iterator[Process]:
    """A worker's process in which nothing is loaded."""
    process = Process(sys.executable, trust=False)
    yield process
    process.kill()
    process.wait()


def lives(process: Process) -> None:
    with pytest.raises(Refused, match="has no attribute 'nothing'"):
        process.call({"do": "nothing"}, {}, time.monotonic() + 30)


def test_what_cannot_cross_harms_nobody(process: Process) -> None:
    for params, cells, error in (
        ({"text": "x" * (17 << 20)}, [], TooLarge),
        ({}, ["x" * (65 << 20), 1], TooLarge),
        ({"object": object()}, [], EngineError),
        ({}, [object()], EngineError),
    ):
        with pytest.raises(error):
            process.call({"do": "run", "params": params}, {"x": np.array(cells, object)}, time.monotonic() + 30)
        lives(process)


@pytest.mark.parametrize("text", [b"[]", b"{", b'{"header": {}, "arrays": [["x"]], "bytes": 0}'])
def test_a_message_that_a_worker_cannot_read_is_answered(process: Process, text: bytes) -> None:
    process._channel.transmit(struct.pack("<I16s", len(text), bytes(16)) + text)
    said, _ = process._channel.receive(time.monotonic() + 30)
    assert said["error"] == "EngineError" and "could not read what it was sent" in said["text"]
    lives(process)


def test_a_worker_gets_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"OMP_NUM_THREADS": "3", "LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"], "HF_HOME": "/cache"}
    secrets = {"AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "DATABASE_URL", "TENSIGN_TOKEN", "PYTHONHOME"}
    for name, value in {**wanted, **dict.fromkeys(secrets - {"PYTHONHOME"}, "secret")}.items():
        monkeypatch.setenv(name, value)
    for trust in (False, True):
        process = Process(sys.executable, trust=trust)
        lives(process)
        given = dict(line.split("=", 1) for line in Path(f"/proc/{process.pid}/environ").read_text().split("\0") if line)
        process.kill()
        process.wait()
        assert wanted.items() <= given.items() and not secrets & given.keys()
        assert given.get("MLFLOW_ALLOW_PICKLE_DESERIALIZATION") == ("true" if trust else None)


def test_close_ends_the_process_even_while_it_computes(tmp_path: Path) -> None:
    model = Model.load(odd_model(tmp_path / "model"), TRUSTED)
    with ended(worker(model).pid):
        running = model.submit(rows("loop", 1))
        model.close(0.5)
    with pytest.raises(ModelNotReady):
        running.result(10)


@pytest.mark.parametrize("do", ["", "loop"])
def test_it_ends_with_the_server(tmp_path: Path, do: str) -> None:
    """However the server ends, and whatever the model does."""
    program = (
        "import os, signal, sys; from pathlib import Path; import numpy as np; from tensign.config import ModelConfig;"
        "from tensign.model import Model; m = Model.load(sys.argv[1], ModelConfig(device='cpu', trust=True, engine='pyfunc'));"
        "m.submit({'do': np.array([sys.argv[2]], object), 'id': np.array([1])}); print(m._engines[0].pid, flush=True);"
        "sys.stdin.read(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", program, str(odd_model(tmp_path / "model")), do]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None and server.stdout is not None
        with ended(int(server.stdout.readline())):
            server.stdin.close()
            server.wait(30)


@contextmanager
def ended(pid: int | None) -> Iterator[None]:
    """Waits until a process has ended, after what is done within."""
    assert pid is not None
    descriptor = os.pidfd_open(pid)
    yield
    assert select.select([descriptor], [], [], 30)[0], f"process {pid} lives on"
    os.close(descriptor)
