"""ONNX Runtime, on CPU or CUDA; never on another provider than the one that was asked for."""

from __future__ import annotations

import ctypes
import platform
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign import datatypes
from tensign.engines import Engine
from tensign.errors import InvalidInput, ModelFailed, ProviderUnavailable, UnsupportedModel
from tensign.form import Form
from tensign.signature import Arrays, TensorSpec
from tensign.values import is_missing

MISSING_TEXT = "\uffff"  # ONNX has no missing text: this is what a network gets for it, and no text that anybody writes
_REFUSAL = re.compile(r"Name:'refuses[ _]([A-Za-z_ ]{1,80}[A-Za-z])[ \d]*'")
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_DTYPES = {"float": "float32", "double": "float64", "string": "object"}  # the rest are called as in numpy


class OnnxEngine(Engine):
    """One session. device: "auto" is CUDA where there is a GPU, else CPU; "cpu", "cuda" and "cuda:N" are orders."""

    def __init__(self, file: Path | str, device: str = "auto", **_: Any) -> None:
        self._file = Path(file)
        self.device = device
        self._session: Any = None
        self._sessions: dict[int, Any] = {}  # of a GPU, by the rows of the batch
        self._open: Callable[[], Any] = lambda: None

    def load(self) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise ProviderUnavailable(
                "onnxruntime is not installed: pip install 'tensign[cpu]', or 'tensign[gpu]' where there is a GPU"
            ) from None
        if self.device == "auto":
            self.device = "cuda:0" if _has_gpu() else "cpu"
        provider = _CPU if self.device == "cpu" else _CUDA
        _, _, index = self.device.partition(":")
        if provider not in onnxruntime.get_available_providers():
            raise ProviderUnavailable(
                f"{self.device}: the onnxruntime {onnxruntime.__version__} installed here has no {provider}; on a machine"
                " with a GPU: pip uninstall onnxruntime, then pip install 'tensign[gpu]' (or choose --device cpu)"
            )
        if provider == _CUDA:
            onnxruntime.preload_dlls()  # finds the CUDA and cuDNN libraries that wheels brought
        settings = [(_CUDA, _cuda_options(index or "0"))] if provider == _CUDA else [_CPU]
        self._open = lambda: onnxruntime.InferenceSession(str(self._file), session_options(), providers=settings)
        try:
            self._session = self._open()
        except Exception as error:  # onnxruntime's own exceptions share no base but Exception
            if provider == _CUDA and "CUDA" in str(error):
                raise ProviderUnavailable(f"{self.device}: {str(error)[:300]}") from None
            raise UnsupportedModel(f"{self._file}: ONNX Runtime cannot load it: {str(error)[:300]}") from None
        if self._session.get_providers()[0] != provider:
            raise ProviderUnavailable(
                f"{self.device}: ONNX Runtime fell back to {self._session.get_providers()[0]}; the driver or the CUDA and"
                f" cuDNN libraries are missing or too old for onnxruntime {onnxruntime.__version__}"
            )
        self.inputs = tuple(map(_spec, self._session.get_inputs()))
        self.outputs = tuple(map(_spec, self._session.get_outputs()))
        self.form = Form("dict", tuple(spec.name for spec in self.outputs))  # what MLflow's onnx flavor returns

    def warmup(self, batch: Arrays, params: Mapping[str, Any] | None = None) -> None:
        """On a GPU each batch size gets a session of its own: cuDNN plans every convolution anew when the size changes.

        ResNet-18 on an H100, batches of 8 and 16 in turn: 40 ms in one session, 2 ms in two (benchmarks/gpu/ceilings.py).
        """
        if self.device != "cpu" and _rows(batch) not in self._sessions:
            self._sessions[_rows(batch)] = self._open()
        self.run(batch)

    def run(
        self, batch: Arrays, params: Mapping[str, Any] | None = None, deadline: float | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        batch = {name: text(array) if array.dtype.kind == "O" else array for name, array in batch.items()}
        try:
            answers = self._sessions.get(_rows(batch), self._session).run(None, batch)
        except Exception as error:  # a node that fails on purpose is called after what it refuses
            if (refusal := _REFUSAL.search(str(error))) is None:
                raise
            raise ModelFailed(f"the model refuses {refusal.group(1).replace('_', ' ')}") from None
        return {spec.name: answer for spec, answer in zip(self.outputs, answers, strict=True)}

    def close(self) -> None:
        self._session = None
        self._sessions.clear()


def session_options(threads: int = 0) -> Any:
    """onnxruntime's SessionOptions of every session that computes what is served; threads: 0 is as many as there are cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; what matters is raised
    options.intra_op_num_threads = threads
    if _overflows():
        options.add_session_config_entry("session.x64quantprecision", "1")  # multiplies in another way: slower, and right
    return options


@cache
def _overflows() -> bool:
    """Whether ONNX Runtime adds products of unsigned and signed bytes in 16 bits here, as on x86 without VNNI.

    With VNNI that option would only make it slower, ResNet-18 2.5 times.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        return "vnni" not in Path("/proc/cpuinfo").read_text()
    except OSError:
        return True


def text(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Objects as ONNX has them: UTF-8 text, which a signature may call bytes, and no missing ones. Raises InvalidInput."""
    found = np.empty(array.shape, object)
    try:
        for index, value in np.ndenumerate(array):
            found[index] = value.decode() if isinstance(value, bytes) else MISSING_TEXT if is_missing(value) else value
    except UnicodeDecodeError as error:
        raise InvalidInput(f"text for the network is not UTF-8: {error.reason}") from None
    return found


def _rows(batch: Arrays) -> int:
    return len(next(iter(batch.values())))


def _cuda_options(index: str) -> dict[str, str]:
    """Exhaustive search costs 0.6 s for every new shape and gains nothing; the default arena only ever doubles."""
    return {"device_id": index, "cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}


def _has_gpu() -> bool:
    """Asks the driver itself, so that a GPU without a matching onnxruntime is noticed, not silently passed over."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def _spec(node: Any) -> TensorSpec:
    """ONNX Runtime's `tensor(float)` and symbolic axes as a TensorSpec."""
    name = node.type.removeprefix("tensor(").removesuffix(")")
    try:
        dtype = datatypes.of_numpy(np.dtype(_DTYPES.get(name, name))).numpy
    except (TypeError, InvalidInput):
        raise UnsupportedModel(f'the network\'s "{node.name}" is a {node.type}, which no signature can declare') from None
    return TensorSpec(node.name, dtype, tuple(axis if isinstance(axis, int) else -1 for axis in node.shape))
