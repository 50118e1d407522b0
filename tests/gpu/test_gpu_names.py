"""GPUs by number and by name, and what `tensign doctor` says of them."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import ondevice
from tensign.demo import MODEL
from tensign.doctor.driver import Driver, find_driver
from tensign.doctor.lookup import Lookup
from tensign.errors import ProviderUnavailable
from tensign.model import Model

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def driver(device: str) -> Driver:
    """Of the machine; a CPU has no names."""
    driver = find_driver(Lookup())
    if device == "cpu" or driver is None:
        pytest.skip("a CPU has no name")
    return driver


def test_doctor_says_ready(device: str) -> None:
    command = [sys.executable, "-m", "tensign", "doctor", "--json", "--device", device]
    done = subprocess.run(command, capture_output=True, text=True)
    facts = json.loads(done.stdout)
    assert (done.returncode, facts["missing"], facts["runs"]) == (0, [], device)
    assert device == "cpu" or (facts["gpus"] and facts["named"] and facts["driver"]["version"])


def test_what_cuda_numbers_has_the_name_that_the_driver_gives_it(driver: Driver) -> None:
    by_name = {gpu.uuid: gpu for gpu in driver.named}
    for gpu in driver.gpus:
        known = by_name[gpu.uuid]
        assert (known.capability, known.mig) == (gpu.capability, gpu.mig) and known.name == gpu.name


def answers(device: str, path: Path) -> None:
    rows = ondevice.photographs(8)
    with closing(Model.load(ondevice.plain(path), ondevice.config(device, max_batch_size=8))) as model:
        assert model.device == device and model.ready
        (answer,) = model.infer(rows).values()
        np.testing.assert_allclose(answer, ondevice.on_cpu(rows), atol=1e-4)


def test_the_first_device_as_it_is_asked_for(device: str, tmp_path: Path) -> None:
    answers(device, tmp_path / "model")


def test_a_gpu_by_its_name_and_by_its_beginning(driver: Driver, tmp_path: Path) -> None:
    for name in (driver.gpus[0].uuid, driver.gpus[0].uuid[:12]):
        answers(f"cuda:{name}", tmp_path / name)


def test_all_there_are_by_name_answer_as_one(driver: Driver, tmp_path: Path) -> None:
    answers("cuda:" + ",".join(gpu.uuid for gpu in driver.named), tmp_path / "model")


def test_several_by_number(driver: Driver, tmp_path: Path) -> None:
    if len(driver.gpus) < 2:
        pytest.skip("this machine shows one GPU")
    answers("cuda:0,1", tmp_path / "model")


def test_a_name_that_no_gpu_has_is_refused_with_those_there_are(driver: Driver) -> None:
    with pytest.raises(ProviderUnavailable, match=driver.named[0].uuid):
        Model.load(MODEL, ondevice.config("cuda:GPU-00000000-0000-0000-0000-00000000dead"))
