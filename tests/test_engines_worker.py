"""Engines in a process of their own: what a model does to it is not done to the server, and nobody gets a wrong answer."""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tensign.client import Client
from tensign.config import ModelConfig
from tensign.engines.worker import Worker
from tensign.errors import DeadlineExceeded, EngineError, ModelNotReady, UnsupportedModel
from tensign.model import Model
from tensign.testing import serving

TRUSTED = ModelConfig(device="cpu", trust=True, max_batch_size=8)
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
                KEPT.append(np.ones(64 << 20, np.uint8))
        return answer

def _load_pyfunc(path):
    if os.path.exists(os.path.join(path, "broken")):
        raise RuntimeError("it is broken")
    return Odd()
'''


def odd_model(path: Path) -> Path:
    """A python_function with a loader module in its own code directory; needs pandas, not MLflow."""
    (path / "code").mkdir(parents=True)
    (path / "code" / "odd_loader.py").write_text(textwrap.dedent(LOADER))
    document = {
        "flavors": {"python_function": {"loader_module": "odd_loader", "code": "code"}},
        "signature": {"inputs": json.dumps(COLUMNS), "outputs": json.dumps([{"type": "long", "name": "answer"}])},
    }
    (path / "MLmodel").write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = odd_model(tmp_path_factory.mktemp("odd") / "model")
    model = Model.load(path, ModelConfig(device="cpu", trust=True, max_batch_size=8, max_growth_bytes=16 << 20))
    yield model
    model.close()


def rows(do: str, *ids: int) -> dict[str, Any]:
    return {"do": np.array([do] * len(ids), object), "id": np.array(ids, np.int64)}


def worker(model: Model) -> Worker:
    assert isinstance(model._engine, Worker)
    return model._engine


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
    "_exit": (EngineError, "process ended", False),
    "segfault": (EngineError, "process ended", False),
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
    with pytest.raises(EngineError):
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
            except EngineError:
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
    model = Model.load(odd_model(tmp_path / "model"), TRUSTED, name="odd")
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
                pid = worker(model).pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
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
    assert set(failures) <= {"ModelNotReady", "EngineError", "DeadlineExceeded"}
    assert max(recoveries) < 2 + loading_s
    assert worker(model).restarts >= 20


def test_one_that_no_longer_loads_is_given_up(tmp_path: Path) -> None:
    path = odd_model(tmp_path / "model")
    model = Model.load(path, TRUSTED)
    assert model.ready
    (path / "broken").touch()
    pid = worker(model).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ModelNotReady, match="does not start any more: odd_loader cannot load it: RuntimeError: it is broken"):
        model.infer(rows("", 1), timeout_s=60)
    assert not model.ready
    model.close()


def test_one_that_does_not_load_at_first_says_why_at_once(tmp_path: Path) -> None:
    path = odd_model(tmp_path / "model")
    (path / "broken").touch()
    with pytest.raises(UnsupportedModel, match="odd_loader cannot load it: RuntimeError: it is broken"):
        Model.load(path, TRUSTED)


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/true", "/bin/cat"])
def test_what_is_no_python(tmp_path: Path, python: str) -> None:
    with pytest.raises(UnsupportedModel, match=python if python == "/nowhere/python" else "process that should load it ended"):
        Model.load(odd_model(tmp_path / "model"), ModelConfig(device="cpu", trust=True, python=python))


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
        "from tensign.model import Model; m = Model.load(sys.argv[1], ModelConfig(device='cpu', trust=True));"
        "m.submit({'do': np.array([sys.argv[2]], object), 'id': np.array([1])}); print(m._engine.pid, flush=True);"
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
