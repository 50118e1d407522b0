"""One model on several devices, each an engine in a process of its own. The devices are this CPU: what is proved is what
happens to requests where one of them dies, nothing of a GPU."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tensign.config import ModelConfig
from tensign.engines.worker import ENGINE_CLASSES, Worker
from tensign.model import Model
from tensign.plan import ModelPlan

SOON = 30.0


@pytest.fixture
def model(mean_model: Path) -> Iterator[Model]:
    plan = ModelPlan.of(mean_model)
    settings = {"file": str(plan.file), "device": "cpu"}
    engines = [Worker(ENGINE_CLASSES["onnx"], settings, name=f"mean {number}") for number in range(2)]
    made = Model(plan, engines, name="mean", version="1", config=ModelConfig(device="cpu", max_batch_size=4))
    yield made
    made.close()


def workers(model: Model) -> list[Worker]:
    return [engine for engine in model._engines if isinstance(engine, Worker)]


def test_every_answer_is_right_while_one_of_them_dies_again_and_again(model: Model) -> None:
    wrong, stop = list[str](), threading.Event()

    def caller(number: int) -> None:
        random = np.random.default_rng(number)
        while not stop.is_set():
            pictures = random.integers(0, 256, (random.integers(1, 7), 4, 5, 3), np.uint8)
            try:
                if not np.allclose(model.infer(pictures, timeout_s=SOON)["output-0"], pictures.mean((1, 2)), rtol=1e-5):
                    wrong.append("other numbers")
            except Exception as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for number in range(4):
        worker, until = workers(model)[number % 2], time.monotonic() + SOON
        while not all(each.ready for each in workers(model)) and time.monotonic() < until:
            time.sleep(0.01)
        pid = worker.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        while worker.pid == pid and time.monotonic() < until:
            time.sleep(0.01)
        assert model.ready  # the other one is
    stop.set()
    for thread in threads:
        thread.join(SOON)
    assert not wrong
    assert [worker.restarts for worker in workers(model)] == [2, 2] and model.device == "cpu"
