"""Machines that are not here: a driver, GPUs, an onnxruntime and its libraries, as `tensign.doctor` looks them up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensign.doctor.lookup import Lookup

NEEDED = ("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudnn.so.9")  # for CUDA 13

NAMES = {  # by handle
    1: "GPU-c08d91cb-e324-655c-71ba-7570956445bc",
    200: "MIG-c788539f-c1ea-5a36-8b4d-9b07d024b1bb",
    202: "MIG-c71dc464-b9f9-5611-9d29-d601a47cffd6",
}


@dataclass(frozen=True)
class FakeDriver:
    """libcuda.so.1: what it answers, as the C functions do, by pointers."""

    cuda: int = 13000
    gpus: tuple[str, ...] = ("NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3 MIG 1g.10gb")
    capability: tuple[int, int] = (9, 0)
    status: int = 0

    def cuDriverGetVersion(self, number: Any) -> int:
        number._obj.value = self.cuda
        return 0

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuDeviceGetCount(self, number: Any) -> int:
        number._obj.value = len(self.gpus)
        return 0

    def cuDeviceGet(self, handle: Any, index: int) -> int:
        handle._obj.value = index
        return 0

    def cuDeviceGetName(self, text: Any, size: int, handle: Any) -> int:
        text.value = self.gpus[handle.value].encode()
        return 0

    def cuDeviceTotalMem_v2(self, size: Any, handle: Any) -> int:
        size._obj.value = 80 << 30
        return 0

    def cuDeviceGetUuid_v2(self, number: Any, handle: Any) -> int:
        number.raw = bytes([handle.value]) * 16
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, handle: Any) -> int:
        value._obj.value = dict(zip((75, 76), self.capability, strict=True))[attribute]
        return 0

    def cuGetErrorString(self, status: int, text: Any) -> int:
        text._obj.value = {100: b"no CUDA-capable device is detected"}[status]
        return 0


class FakeManagement:
    """libnvidia-ml.so.1: a whole GPU, one in three MIG instances of which the second is gone, and one nobody may use.

    Handles are 1 more than the GPU's number, and of its instances a hundredfold; by name a thousand more than their place.
    free: bytes of the devices that it knows by name.
    """

    def __init__(self, free: Mapping[str, int] | None = None) -> None:
        self._free = free or {}

    def nvmlDeviceGetHandleByUUID(self, name: bytes, handle: Any) -> int:
        if name.decode() not in self._free:
            return 6
        handle._obj.value = 1000 + list(self._free).index(name.decode())
        return 0

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, size: int) -> int:
        text.value = b"580.159.04"
        return 0

    def nvmlDeviceGetCount_v2(self, number: Any) -> int:
        number._obj.value = 3
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:
        handle._obj.value = index + 1
        return 4 if index == 2 else 0

    def nvmlDeviceGetCudaComputeCapability(self, handle: Any, major: Any, minor: Any) -> int:
        major._obj.value, minor._obj.value = 9, 0
        return 0

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any, number: Any) -> int:
        number._obj.value = 3 if handle.value == 2 else 0
        return 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: int, part: Any) -> int:
        part._obj.value = 100 * handle.value + index
        return 6 if index == 1 else 0

    def nvmlDeviceGetName(self, handle: Any, text: Any, size: int) -> int:
        text.value = b"NVIDIA H100 80GB HBM3" + (b" MIG 1g.10gb" if handle.value > 100 else b"")
        return 0

    def nvmlDeviceGetUUID(self, handle: Any, text: Any, size: int) -> int:
        text.value = NAMES[handle.value].encode()
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:
        if handle.value >= 1000:
            memory._obj.free = list(self._free.values())[handle.value - 1000]
        else:
            memory[0] = (10 if handle.value > 100 else 80) << 30
        return 0

    def nvmlShutdown(self) -> int:
        return 0


@dataclass(frozen=True)
class Machine:
    """A machine under `root` with this onnxruntime, these libraries where the loader finds them, and what wheels brought."""

    root: Path
    driver: FakeDriver | None = FakeDriver()
    packages: tuple[str, ...] = ("onnxruntime-gpu",)
    wheels: tuple[str, ...] = NEEDED
    loader: tuple[str, ...] = ()
    managed: bool = True  # the library that names GPUs is there
    cuda: str = "13.0"
    files: tuple[str, ...] = ("dev/nvidia0",)
    whole: bool = True

    def lookup(self) -> Lookup:
        folder = self.root / "site-packages" / "onnxruntime"
        (folder / "capi").mkdir(parents=True, exist_ok=True)
        made = [*self.files, *(f"site-packages/nvidia/cu13/lib/{name}" for name in self.wheels)]
        if self.whole:
            made.append("site-packages/onnxruntime/capi/onnxruntime_pybind11_state.cpython-311-x86_64-linux-gnu.so")
        built = "package_name = 'any'\n__version__ = '1.31.1'\n"
        if "onnxruntime-gpu" in self.packages:
            made.append("site-packages/onnxruntime/capi/libonnxruntime_providers_cuda.so")
            built += f"cuda_version = '{self.cuda}'\n"
        for name in made:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).touch()
        (folder / "capi" / "build_and_package_info.py").write_text(built)
        versions = dict.fromkeys(self.packages, "1.31.1")
        opened: Mapping[str, Any] = dict.fromkeys(self.loader)
        if self.driver:
            opened = {**opened, "libcuda.so.1": self.driver}
        if self.driver and self.managed:
            opened = {**opened, "libnvidia-ml.so.1": FakeManagement()}

        def library(name: str) -> Any:
            if name not in opened:
                raise OSError(f"{name}: cannot open shared object file")
            return opened[name]

        return Lookup(versions.get, {"onnxruntime": folder}.get if self.packages else lambda _: None, library, self.root)
