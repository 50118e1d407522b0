"""What keeps a device from running a model here, and how to get it: for `tensign doctor` and for the engine's errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tensign.doctor.driver import Driver, find_driver
from tensign.doctor.lookup import Lookup
from tensign.doctor.runtime import CUDA, FROM, OnnxRuntime, cuda_libraries, find_runtime, tensorrt_libraries

_DRIVERS = {12: "525", 13: "580"}  # the oldest for each CUDA
_OLDEST_OF_13 = (7, 5)  # Turing; CUDA 13 has no code for older ones


@dataclass(frozen=True, slots=True)
class Lack:
    """what is wrong; mend: what to do about it."""

    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.what}: {self.mend}"


def explained(device: str, saw: str = "", lookup: Lookup | None = None, *, tensorrt: bool = False) -> str:
    """One line on why `device` cannot run: what was seen, then everything that is missing, with the way to get it.

    tensorrt: whether TensorRT is wanted besides.
    """
    lookup = lookup or Lookup()
    missing = [*lacks(device, lookup), *(_of_tensorrt(lookup) if tensorrt else ())]
    found = "; ".join(map(str, missing)) or "nothing that is known to be needed is missing"
    other = "leave --accelerator tensorrt out" if tensorrt else "" if device == "cpu" else "choose --device cpu"
    return f"{device}: {' - '.join(filter(None, (saw, found)))}{'; or ' if other else ''}{other} (`tensign doctor` tells more)"


def lacks(device: str, lookup: Lookup | None = None) -> list[Lack]:
    """device: as of `--device`; "auto" is CUDA where the driver shows a GPU. [] is that it runs."""
    lookup = lookup or Lookup()
    runtime, driver = find_runtime(lookup), find_driver(lookup)
    cuda = device.startswith("cuda") or (device == "auto" and driver is not None and driver.gpus != ())
    found = list(_of_packages(runtime, cuda))
    for which in (device.partition(":")[2] or "0").split(",") if cuda else ():
        found += _of_driver(driver, f"cuda:{which}", lookup)
        if runtime:
            found += _of_cuda(runtime, driver, f"cuda:{which}", lookup)
    return list(dict.fromkeys(found))


def without_gpu(device: str, lookup: Lookup | None = None) -> str:
    """One line on why there is no such GPU, which names those that are; "" where there is. device: "cuda:N", or by name."""
    lookup = lookup or Lookup()
    return "; ".join(map(str, _of_driver(find_driver(lookup), device, lookup)))


def _of_packages(runtime: OnnxRuntime | None, cuda: bool) -> Iterator[Lack]:
    wanted = f"pip install 'tensign[{'gpu' if cuda else 'cpu'}]'"
    if runtime is None:
        yield Lack("onnxruntime is not installed", wanted)
    elif len(runtime.packages) > 1:
        both = " and ".join(f"{package} {version}" for package, version in runtime.packages.items())
        mend = f"pip uninstall -y {' '.join(runtime.packages)}, then {wanted}"
        yield Lack(f"{both} are both installed, and own the same files", mend)
    elif not runtime.whole:
        package, version = next(iter(runtime.packages.items()), ("onnxruntime", runtime.version))
        mend = f"pip install --force-reinstall --no-deps {package}=={version}"
        yield Lack(f"{package} {version} lacks its own library, as where another onnxruntime was removed", mend)
    elif cuda and CUDA not in runtime.providers:
        mend = f"pip uninstall -y {next(iter(runtime.packages), 'onnxruntime')}, then {wanted}"
        yield Lack(f"the onnxruntime {runtime.version} installed here has no {CUDA}", mend)


def _of_driver(driver: Driver | None, device: str, lookup: Lookup) -> Iterator[Lack]:
    shown = any((lookup.root / "dev").glob("nvidia[0-9]*"))
    container = any((lookup.root / mark).exists() for mark in (".dockerenv", "run/.containerenv"))
    give = "start the container with --gpus all (in Kubernetes, with resources.limits of nvidia.com/gpu: 1)"
    if driver is None and (container or lookup.text("/proc/driver/nvidia/version")):
        yield Lack("this container has no NVIDIA driver (libcuda.so.1)", f"{give}; the host needs the NVIDIA Container Toolkit")
    elif driver is None:
        yield Lack("no NVIDIA driver (libcuda.so.1)", f"install one, {_DRIVERS[13]} or newer, on a machine with a GPU")
    elif driver.gpu(device):
        return
    elif driver.named and not device.removeprefix("cuda:").isdigit():
        names = ", ".join(gpu.device for gpu in driver.named)
        yield Lack(f"there is no {device}, or several begin so: there are {names}", "give one of these names, in full")
    elif not driver.gpus and not shown:
        yield Lack(f"the NVIDIA driver shows no GPU: {driver.error}, and /dev/nvidia* is absent", f"in a container, {give}")
    elif not driver.gpus:
        mend = "see whether CUDA_VISIBLE_DEVICES hides it, MIG is on without instances, and what nvidia-smi -L lists"
        yield Lack(f"the NVIDIA driver shows no GPU: {driver.error}", mend)
    else:
        seen, known = ", ".join(gpu.device for gpu in driver.gpus), {gpu.uuid for gpu in driver.gpus}
        named = "".join(f" or {gpu.device}" for gpu in driver.named if gpu.uuid not in known)
        yield Lack(f"there is no {device}, this process sees {seen}", f"--device {driver.gpus[-1].device}{named}")


def _of_tensorrt(lookup: Lookup) -> Iterator[Lack]:
    if missing := [name for name, place in tensorrt_libraries(lookup).items() if place is None]:
        yield Lack(f"TensorRT is missing ({', '.join(missing)})", FROM)


def _of_cuda(runtime: OnnxRuntime, driver: Driver | None, device: str, lookup: Lookup) -> Iterator[Lack]:
    needs = runtime.cuda
    if needs is None:
        return
    package = f"onnxruntime-gpu {runtime.version} is built for CUDA {needs[0]}.{needs[1]}"
    if driver and driver.cuda[0] < needs[0]:
        called = f"the NVIDIA driver {driver.version}".strip()
        yield Lack(
            f"{called} runs CUDA up to {driver.cuda[0]}.{driver.cuda[1]}, {package}",
            f"install NVIDIA driver {_DRIVERS.get(needs[0], 'of that CUDA')} or newer",
        )
    gpu = driver.gpu(device) if driver else None
    if gpu and needs[0] >= 13 and gpu.capability < _OLDEST_OF_13:
        capability = "{}.{}".format(*gpu.capability)
        yield Lack(f"the {gpu.name} has compute capability {capability}, CUDA 13 needs 7.5", "use a newer GPU")
    if missing := [name for name, place in cuda_libraries(runtime, lookup).items() if place is None]:
        mend = f"pip install 'onnxruntime-gpu[cuda,cudnn]=={runtime.version}'"
        yield Lack(f"{package}, and these libraries are missing: {', '.join(missing)}", mend)
