"""The ONNX Runtime that is installed, and the CUDA libraries it needs, read from its files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tensign.doctor.lookup import Lookup

PACKAGES = ("onnxruntime", "onnxruntime-gpu")  # which own one module name
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
_PROVIDERS = {TENSORRT: "libonnxruntime_providers_tensorrt.so", CUDA: "libonnxruntime_providers_cuda.so"}
_TENSORRT = ("libnvinfer.so.10", "libnvonnxparser.so.10")
FROM = (  # no extra of tensign brings it: tensorrt-cu13 of the package index holds no library
    "they are of NVIDIA's TensorRT 10 for CUDA 13, which no extra of tensign brings: install libnvinfer10 and"
    " libnvonnxparsers10 from NVIDIA's apt repository, or start from an nvcr.io/nvidia/tensorrt image"
)
_SYSTEM = "the system's"


@dataclass(frozen=True, slots=True)
class OnnxRuntime:
    """packages: those installed, with their versions; whole: its own library is there; cuda: it is built for, None where for
    none or it does not tell."""

    packages: dict[str, str]
    version: str
    whole: bool
    providers: tuple[str, ...]
    cuda: tuple[int, int] | None
    folder: Path


def find_runtime(lookup: Lookup) -> OnnxRuntime | None:
    """None where nothing is installed that calls itself so."""
    folder = lookup.folder("onnxruntime")
    packages = {package: version for package in PACKAGES if (version := lookup.version(package))}
    if folder is None and not packages:
        return None
    folder = folder or Path(os.devnull)  # where no file lies
    libraries = folder / "capi"
    try:
        built = (libraries / "build_and_package_info.py").read_text(errors="replace")
    except OSError:
        built = ""
    told = re.search(r"^__version__ *= *'([^']+)'", built, re.MULTILINE)
    cuda = re.search(r"^cuda_version *= *'(\d+)\.(\d+)", built, re.MULTILINE)
    return OnnxRuntime(
        packages,
        told[1] if told else next(iter(packages.values()), "of unknown version"),
        any(libraries.glob("onnxruntime_pybind11_state*.so")),
        (*(name for name, file in _PROVIDERS.items() if (libraries / file).exists()), "CPUExecutionProvider"),
        (int(cuda[1]), int(cuda[2])) if cuda else None,
        folder,
    )


def cuda_libraries(runtime: OnnxRuntime, lookup: Lookup) -> dict[str, str | None]:
    """Where each library lies that the CUDA provider needs, None where it is missing; {} where it needs none.

    cuDNN is among them though the provider starts without it: it then fails at the first convolution.
    """
    if CUDA not in runtime.providers or runtime.cuda is None:
        return {}
    major = runtime.cuda[0]
    names = [f"libcudart.so.{major}", f"libcublasLt.so.{major}", f"libcublas.so.{major}", "libcurand.so.10"]
    if major == 12:
        names.append("libcufft.so.11")
    return {name: _place(name, runtime, lookup) for name in (*names, "libcudnn.so.9")}


def tensorrt_libraries(lookup: Lookup) -> dict[str, str | None]:
    """The same for the TensorRT provider."""
    return {name: _SYSTEM if lookup.finds(name) else None for name in _TENSORRT}


def tensorrt_version(lookup: Lookup) -> str:
    """As its library tells it, "101300" for 10.13.0; "" where there is none."""
    try:
        return str(lookup.library(_TENSORRT[0]).getInferLibVersion())
    except (OSError, AttributeError):
        return ""


def _place(name: str, runtime: OnnxRuntime, lookup: Lookup) -> str | None:
    """As onnxruntime.preload_dlls() searches: NVIDIA's wheels beside it, then the loader's own places."""
    for file in sorted(runtime.folder.parent.glob(f"nvidia/*/lib/{name}")):
        return str(file)
    return _SYSTEM if lookup.finds(name) else None
