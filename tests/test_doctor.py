"""Real runs on this machine; what is not here (drivers, GPUs, a broken installation) through fakes of what is looked up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import onnxruntime
import pytest

from machines import NAMES, NEEDED, FakeDriver, Machine
from tensign.doctor import machine
from tensign.doctor.driver import find_driver
from tensign.doctor.facts import examine
from tensign.doctor.lacks import explained, lacks, without_gpu
from tensign.doctor.lookup import Lookup
from tensign.doctor.runtime import find_runtime

WITHOUT_GPU = find_driver(Lookup()) is None
RESTART = "start the container with --gpus all"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`tensign doctor`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TENSIGN_")}
    command = [sys.executable, "-W", "error", "-m", "tensign", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_a_machine_that_has_everything_lacks_nothing(tmp_path: Path) -> None:
    lookup = Machine(tmp_path).lookup()
    assert [lacks(device, lookup) for device in ("auto", "cpu", "cuda", "cuda:1")] == [[], [], [], []]
    facts = examine("auto", tmp_path / "cache", lookup)
    assert (facts["runs"], facts["missing"], facts["remarks"]) == ("cuda:0", [], [])
    assert facts["driver"] == {"version": "580.159.04", "cuda": "13.0", "error": ""}
    first, second = facts["gpus"]
    assert first["name"] == "NVIDIA H100 80GB HBM3"
    assert (first["memory_bytes"], first["capability"], first["mig"]) == (80 << 30, "9.0", False)
    assert (second["device"], second["mig"]) == ("cuda:1", True)
    assert set(facts["onnxruntime"]["libraries"]) == set(NEEDED)
    assert all(place.startswith(str(tmp_path)) for place in facts["onnxruntime"]["libraries"].values())
    json.dumps(facts)


def test_every_gpu_has_a_name_and_instances_stand_for_the_gpu_they_are_of(tmp_path: Path) -> None:
    driver = find_driver(Machine(tmp_path).lookup())
    assert driver is not None
    assert [gpu.uuid for gpu in driver.gpus] == [f"GPU-{UUID(int=0)}", "MIG-01010101-0101-0101-0101-010101010101"]
    assert [(gpu.device, gpu.memory_bytes >> 30, gpu.mig) for gpu in driver.named] == [
        (f"cuda:{NAMES[1]}", 80, False),
        (f"cuda:{NAMES[200]}", 10, True),
        (f"cuda:{NAMES[202]}", 10, True),
    ]
    assert [gpu.capability for gpu in driver.named] == [(9, 0)] * 3
    assert driver.gpu("cuda") == driver.gpu("cuda:0") == driver.gpus[0]
    assert driver.gpu("cuda:MIG-c788") == driver.named[1] and driver.gpu(f"cuda:{NAMES[1]}") == driver.named[0]
    assert [driver.gpu(device) for device in ("cuda:2", "cuda:MIG-c7", "cuda:MIG-0")] == [None] * 3


def test_without_the_library_of_names_those_that_cuda_shows_have_theirs(tmp_path: Path) -> None:
    driver = find_driver(Machine(tmp_path, managed=False).lookup())
    assert driver is not None
    assert [gpu.device for gpu in driver.named] == [f"cuda:{gpu.uuid}" for gpu in driver.gpus]
    assert (driver.version, driver.gpu("cuda:MIG-01")) == ("", driver.named[1])


def test_a_gpu_by_name_lacks_what_one_by_number_does(tmp_path: Path) -> None:
    for device in (f"cuda:{NAMES[202]}", "cuda:GPU-c08,MIG-c788", "cuda:0,MIG-c788"):
        assert lacks(device, Machine(tmp_path).lookup()) == []
    facts = examine("cuda:MIG-c788", tmp_path, Machine(tmp_path).lookup())
    assert facts["runs"] == "cuda:MIG-c788" and [gpu["mig"] for gpu in facts["named"]] == [False, True, True]
    hidden = Machine(tmp_path, driver=FakeDriver(gpus=())).lookup()  # by CUDA_VISIBLE_DEVICES, which a worker has of its own
    assert lacks("cuda:MIG-c788", hidden) == [] and lacks("cuda:0", hidden) != []
    assert without_gpu("cuda:MIG-c788", hidden) == ""
    assert "no NVIDIA driver" in without_gpu("cuda:GPU-0", Machine(tmp_path, driver=None).lookup())


FAULTS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "no package": ({"packages": ()}, "cuda", "onnxruntime is not installed", "pip install 'tensign[gpu]'"),
    "no package, cpu": ({"packages": ()}, "cpu", "onnxruntime is not installed", "pip install 'tensign[cpu]'"),
    "both packages": (
        {"packages": ("onnxruntime", "onnxruntime-gpu")},
        "cuda",
        "onnxruntime 1.31.1 and onnxruntime-gpu 1.31.1 are both installed, and own the same files",
        "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'tensign[gpu]'",
    ),
    "both packages, cpu": (
        {"packages": ("onnxruntime", "onnxruntime-gpu"), "driver": None},
        "auto",
        "both installed",
        "then pip install 'tensign[cpu]'",
    ),
    "the wrong package": (
        {"packages": ("onnxruntime",)},
        "auto",
        "the onnxruntime 1.31.1 installed here has no CUDAExecutionProvider",
        "pip uninstall -y onnxruntime, then pip install 'tensign[gpu]'",
    ),
    "half a package": (
        {"whole": False},
        "cuda",
        "onnxruntime-gpu 1.31.1 lacks its own library",
        "pip install --force-reinstall --no-deps onnxruntime-gpu==1.31.1",
    ),
    "no driver": ({"driver": None, "files": ()}, "cuda", "no NVIDIA driver (libcuda.so.1)", "install one, 580 or newer"),
    "no driver in a container": (
        {"driver": None, "files": (".dockerenv",)},
        "cuda:0",
        "this container has no NVIDIA driver",
        RESTART,
    ),
    "no devices in a container": (
        {"driver": FakeDriver(status=100), "files": ()},
        "cuda",
        "no CUDA-capable device is detected (100), and /dev/nvidia* is absent",
        RESTART,
    ),
    "a hidden GPU": (
        {"driver": FakeDriver(gpus=())},
        "cuda",
        "the NVIDIA driver shows no GPU: it shows this process none",
        "CUDA_VISIBLE_DEVICES",
    ),
    "no such GPU": ({}, "cuda:2", "there is no cuda:2, this process sees cuda:0, cuda:1", "--device cuda:1"),
    "no such name": (
        {},
        "cuda:MIG-c78,MIG-c7",
        f"there is no cuda:MIG-c7, or several begin so: there are cuda:{NAMES[1]}, cuda:{NAMES[200]}, cuda:{NAMES[202]}",
        "give one of these names",
    ),
    "an instance that CUDA does not number": (
        {"driver": FakeDriver(gpus=("NVIDIA H100 80GB HBM3",))},
        "cuda:1",
        "there is no cuda:1, this process sees cuda:0",
        f"--device cuda:0 or cuda:{NAMES[1]} or cuda:{NAMES[200]}",
    ),
    "an old driver": (
        {"driver": FakeDriver(cuda=12040)},
        "auto",
        "the NVIDIA driver 580.159.04 runs CUDA up to 12.4, onnxruntime-gpu 1.31.1 is built for CUDA 13.0",
        "install NVIDIA driver 580 or newer",
    ),
    "an old GPU": (
        {"driver": FakeDriver(gpus=("Tesla V100-SXM2-16GB",), capability=(7, 0))},
        "cuda",
        "the Tesla V100-SXM2-16GB has compute capability 7.0, CUDA 13 needs 7.5",
        "newer GPU",
    ),
    "no cuDNN": (
        {"wheels": NEEDED[:-1]},
        "cuda",
        "these libraries are missing: libcudnn.so.9",
        "pip install 'onnxruntime-gpu[cuda,cudnn]==1.31.1'",
    ),
    "CUDA of another version": (
        {"cuda": "12.8", "loader": ("libcudart.so.12", "libcublasLt.so.12", "libcublas.so.12")},
        "cuda",
        "these libraries are missing: libcufft.so.11",
        "pip install 'onnxruntime-gpu[cuda,cudnn]==1.31.1'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_missing_is_named_with_the_way_to_get_it(fault: str, tmp_path: Path) -> None:
    given, device, what, mend = FAULTS[fault]
    lookup = replace(Machine(tmp_path), **given).lookup()
    (lack,) = lacks(device, lookup)
    assert what in lack.what
    assert mend in lack.mend
    assert examine(device, tmp_path, lookup)["runs"] is None
    said = explained(device, "what was seen", lookup)
    assert what in said and mend in said and said.startswith(f"{device}: what was seen - ") and "\n" not in said


def test_everything_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    lookup = Machine(tmp_path, driver=None, wheels=(), loader=("libcudart.so.13",)).lookup()
    driver, libraries = lacks("cuda", lookup)
    assert "libcuda.so.1" in driver.what
    assert libraries.what.endswith("missing: libcublasLt.so.13, libcublas.so.13, libcurand.so.10, libcudnn.so.9")
    assert lacks("auto", lookup) == lacks("cpu", lookup) == []
    assert "--device cpu" in explained("cuda", lookup=lookup)
    assert explained("cpu", lookup=lookup) == (
        "cpu: nothing that is known to be needed is missing (`tensign doctor` tells more)"
    )


def test_tensorrt_is_told_where_it_is_wanted(tmp_path: Path) -> None:
    lookup = Machine(tmp_path).lookup()
    said = explained("cuda", "it fell back", lookup, tensorrt=True)
    assert said.startswith("cuda: it fell back - TensorRT is missing (libnvinfer.so.10, libnvonnxparser.so.10): ")
    assert "no extra of tensign brings" in said and "nvcr.io/nvidia/tensorrt" in said and "--device cpu" not in said
    assert "TensorRT" not in explained("cuda", "it fell back", lookup)


def test_control_groups_of_both_versions_bind(tmp_path: Path) -> None:
    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    lookup = Lookup(root=tmp_path)
    assert (machine.core_quota(lookup), machine.memory_limit(lookup), machine.memory_total(lookup)) == (None, None, None)
    assert machine.shared_memory(lookup) is None
    write("proc/self/cgroup", "0::/pod/box\n")
    write("sys/fs/cgroup/pod/box/cpu.max", "max 100000\n")
    write("sys/fs/cgroup/pod/cpu.max", "150000 100000\n")
    write("sys/fs/cgroup/pod/box/memory.max", "2147483648\n")
    write("sys/fs/cgroup/pod/memory.max", "max\n")
    assert (machine.core_quota(lookup), machine.memory_limit(lookup)) == (1.5, 2 << 30)
    write("proc/self/cgroup", "3:cpu,cpuacct:/box\n2:memory:/box\n")
    write("sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "50000\n")
    write("sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n")
    write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "1073741824\n")
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert (machine.core_quota(lookup), machine.memory_limit(lookup)) == (0.5, 1 << 30)


def test_a_cache_that_cannot_be_written_is_a_remark(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    facts = examine("cpu", tmp_path / "file" / "models", Machine(tmp_path).lookup())
    (remark,) = facts["remarks"]
    assert "--cache-dir" in remark["mend"] and facts["runs"] == "cpu"


def test_here_it_tells_a_fact_a_line_and_ends_with_0() -> None:
    began = os.times()
    done = run("--device", "cpu")
    ended = os.times()
    spent = ended.children_user + ended.children_system - began.children_user - began.children_system
    assert (done.returncode, done.stderr) == (0, "")
    facts = {line[:16].strip(): line[16:] for line in done.stdout.splitlines()}
    assert facts["device"] == "cpu runs on cpu"
    assert {"tensign", "python", "numpy", "onnxruntime", "torch", "cores", "memory", "cache", "experimental"} <= set(facts)
    assert "no extra of tensign brings" in facts["TensorRT"] or "installed" in facts["TensorRT"]
    assert "nvidia-nvimgcodec-cu13" in facts["GPU decoding"] or "installed" in facts["GPU decoding"]
    assert onnxruntime.__version__ in facts["onnxruntime"]
    assert spent < 4  # seconds of a core, on a machine that others use too; one is usual


@pytest.mark.skipif(not WITHOUT_GPU, reason="this machine has a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_here_what_cannot_run_ends_with_2_and_says_why(device: str) -> None:
    done = run("--device", device, "--json")
    facts = json.loads(done.stdout)
    assert (done.returncode, done.stderr, facts["asked"], facts["runs"]) == (2, "", device, None)
    assert any("libcuda.so.1" in lack["what"] for lack in facts["missing"])
    told = run("--device", device).stdout
    assert told.endswith(f"{device} cannot run here\n") and "(only of use on a GPU)" in told
    names = [line[:16].strip() for line in told.splitlines()]
    assert names.count("experimental") == 1 and names.index("missing") < names.index("experimental")


def test_a_device_of_another_kind_is_an_error() -> None:
    done = run("--device", "tpu")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith('error: device: wanted "auto", "cpu", "cuda", "cuda:N" or "cuda:N,M"')
    assert done.stderr.endswith('got "tpu"\n') and done.stderr.count("\n") == 1


def test_it_imports_nothing_that_it_looks_at() -> None:
    program = (
        "import sys; from pathlib import Path; from tensign.doctor.facts import examine; examine('cuda', Path('/tmp'));"
        "print(sorted({'onnxruntime', 'torch', 'fastai', 'mlflow', 'numpy', 'grpc', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_its_providers_are_those_onnxruntime_tells_of() -> None:
    here = find_runtime(Lookup())
    assert here is not None
    assert (here.version, here.whole) == (onnxruntime.__version__, True)
    assert set(here.providers) == set(onnxruntime.get_available_providers()) - {"AzureExecutionProvider"}
