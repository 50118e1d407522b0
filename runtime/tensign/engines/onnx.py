"""ONNX Runtime, on CPU or CUDA; never on another provider than the one that was asked for."""

from __future__ import annotations

import importlib.util
import logging
import platform
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tensign import datatypes
from tensign.devicememory import DeviceArray
from tensign.doctor.driver import find_driver
from tensign.doctor.lacks import explained
from tensign.doctor.lookup import Lookup
from tensign.engines import Engine, cuda, tensorrt
from tensign.errors import DeviceLost, InvalidInput, ModelFailed, ProviderUnavailable, TensignError, UnsupportedModel
from tensign.form import Form
from tensign.signature import Arrays, TensorSpec
from tensign.values import is_missing

log = logging.getLogger(__name__)

MISSING_TEXT = "\uffff"  # ONNX has no missing text: this is what a network gets for it, and no text that anybody writes
_REFUSAL = re.compile(r"Name:'refuses[ _]([A-Za-z_ ]{1,80}[A-Za-z])[ \d]*'")
_T = TypeVar("_T")
_CPU = "CPUExecutionProvider"
_DTYPES = {"float": "float32", "double": "float64", "string": "object"}  # the rest are called as in numpy


class OnnxEngine(Engine):
    """One network on one device: "auto" is CUDA where there is a GPU, else CPU; "cpu", "cuda" and "cuda:N" are orders.

    tf32: whether CUDA may multiply in fewer bits; half: the network has float16 in it; accelerator: "" or one of
    config.ACCELERATORS; cache: a folder for what that builds; headroom: bytes of the GPU's memory that have to stay free, None
    where it does not matter.
    """

    def __init__(
        self,
        file: Path | str,
        device: str = "auto",
        *,
        tf32: bool = False,
        half: bool = False,
        accelerator: str = "",
        cache: str = "",
        headroom: int | None = None,
        **_: Any,
    ) -> None:
        self._file = Path(file)
        self.device = device
        self._tf32, self._half, self._accelerator, self._cache = tf32, half, accelerator, cache
        self._session: Any = None
        self._open_plain: Any = None  # opens that one again
        self._warmed: cuda.Sessions | None = None  # on a GPU
        self._runtime: cuda.Runtime | None = None
        self._headroom = headroom
        # ONNX Runtime keeps captured graphs by thread: on another one it would capture anew, among other models' runs.
        self._thread = ThreadPoolExecutor(1, "tensign-graphs") if accelerator == "cuda-graphs" else None
        self.lost = False

    @property
    def ready(self) -> bool:
        return not self.lost

    def load(self) -> None:
        if importlib.util.find_spec("onnxruntime") is None:
            raise ProviderUnavailable(explained(self.device))
        if self.device == "auto":
            self.device = "cuda:0" if _has_gpu() else "cpu"
        kind, _, index = self.device.partition(":")
        if kind == "cpu":
            if self._tf32 or self._accelerator:
                raise ProviderUnavailable(
                    f"{'variant tf32' if self._tf32 else self._accelerator}: runs on CUDA alone (--device cuda)"
                )
            self._open_plain = partial(self._open, [_CPU])
            self._session, self.local = self._open_plain(), True
        else:
            self.device = f"cuda:{int(index or 0)}"
            self._load_cuda(int(index or 0))
        self.inputs = tuple(map(_spec, self._session.get_inputs()))
        self.outputs = tuple(map(_spec, self._session.get_outputs()))
        self.form = Form("dict", tuple(spec.name for spec in self.outputs))  # what MLflow's onnx flavor returns

    def _load_cuda(self, index: int) -> None:
        import onnxruntime

        provider = cuda.TENSORRT if self._accelerator == "tensorrt" else cuda.CUDA
        if provider not in onnxruntime.get_available_providers():
            raise ProviderUnavailable(self._lacking(f"{provider} is asked for"))
        onnxruntime.preload_dlls()  # finds the CUDA and cuDNN libraries that wheels brought
        graphs = self._accelerator == "cuda-graphs"
        kept = tensorrt.folder(self._cache, f"cuda:{index}") if provider == cuda.TENSORRT else ""

        def opened(batch: Arrays | None, *, channels_last: bool) -> Any:
            replays = graphs and batch is not None  # what takes any shape would replay the graph of another one
            given = cuda.settings(index, tf32=self._tf32, channels_last=channels_last, graphs=replays, memory=self._left(index))
            built = [(provider, tensorrt.settings(index, batch, kept, half=self._half))] if provider == cuda.TENSORRT else []
            return self._open([*built, (cuda.CUDA, given)])

        ways = [partial(opened, channels_last=way) for way in ((False, True) if provider == cuda.CUDA else (False,))]
        try:
            self._runtime = cuda.CudaRuntime()
        except ProviderUnavailable as error:  # it runs, and copies at a quarter of the speed
            log.warning("%s: memory is not pinned: %s", self.device, error)
        self.device_rows = self._runtime is not None
        self._open_plain = partial(ways[0], None)
        self._session = self._open_plain()
        self._warmed = cuda.Sessions(ways, ("cuda", index), graphs=graphs)
        self.lanes = 1 if graphs else cuda.LANES  # one thread runs all that is captured and replayed

    def _left(self, index: int) -> int | None:
        """Bytes that a session's arena may take now, at least one; None for any number."""
        if self._headroom is None or self._runtime is None:
            return None
        return max(self._runtime.memory(index)[0] - self._headroom, 1)

    def _open(self, providers: list[Any]) -> Any:
        import onnxruntime

        wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
        try:
            session = onnxruntime.InferenceSession(str(self._file), session_options(), providers=providers)
        except Exception as error:  # onnxruntime's own exceptions share no base but Exception
            if wanted != _CPU and (found := cuda.told(error, self.device)):
                raise found from None
            if wanted != _CPU and "CUDA" in str(error):
                raise ProviderUnavailable(self._lacking(str(error)[:300])) from None
            raise UnsupportedModel(f"{self._file}: ONNX Runtime cannot load it: {str(error)[:300]}") from None
        if session.get_providers()[0] != wanted:
            raise ProviderUnavailable(self._lacking(f"ONNX Runtime fell back to {session.get_providers()[0]}"))
        return session

    def _lacking(self, saw: str) -> str:
        return explained(self.device, saw, tensorrt=self._accelerator == "tensorrt")

    def empty(self, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        return cuda.pinned(self._runtime, shape, dtype) if self._runtime else np.empty(shape, dtype)

    def warmup(self, batch: Arrays, params: Mapping[str, Any] | None = None) -> None:
        if self._warmed is not None and all(array.dtype.kind != "O" for array in batch.values()):  # text stays on the host
            try:
                self._here(self._warmed.warm, batch)
            except TensignError:
                raise
            except Exception as error:  # no name for what is raised: it would keep this frame, and the session's memory
                raise cuda.told(error, self.device) or error from None
            if all(-1 not in spec.shape[1:] for spec in self.inputs):
                self._session = None  # no other shape comes, and its weights are on the device once more
        self.run(batch)

    def run(
        self, batch: Arrays, params: Mapping[str, Any] | None = None, deadline: float | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        batch = {name: text(array) if array.dtype.kind == "O" else array for name, array in batch.items()}
        try:
            answers = self._here(self._answers, batch)
        except Exception as error:
            if (refusal := _REFUSAL.search(str(error))) is not None:  # a node that fails on purpose is called after that
                raise ModelFailed(f"the model refuses {refusal.group(1).replace('_', ' ')}") from None
            found = cuda.told(error, self.device) if self._warmed is not None else None
            self.lost = self.lost or isinstance(found, DeviceLost)
            raise (found or error) from None
        return {spec.name: answer for spec, answer in zip(self.outputs, answers, strict=True)}

    def close(self) -> None:
        self._session = self._open_plain = self._warmed = None
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    def _answers(self, batch: Arrays) -> list[npt.NDArray[Any]]:
        if self._warmed is not None and self._warmed.holds(batch):
            return self._warmed.run(batch)
        if self._session is None:
            self._session = self._open_plain()
        if self._warmed is not None and any(isinstance(array, DeviceArray) for array in batch.values()):
            return self._warmed.once(self._session, batch)
        return list(self._session.run(None, batch))

    def _here(self, work: Callable[[Arrays], _T], batch: Arrays) -> _T:
        """On the one thread that graphs are captured and replayed on, where there are any."""
        return work(batch) if self._thread is None else self._thread.submit(work, batch).result()


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

    With VNNI that option would only make it slower, ResNet-18 2.5 times; where there is no /proc/cpuinfo to tell, the slow
    way is taken.
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


def _has_gpu() -> bool:
    """Asks the driver itself, so that a GPU without a matching onnxruntime is noticed, not silently passed over."""
    driver = find_driver(Lookup())
    return driver is not None and driver.gpus != ()


def _spec(node: Any) -> TensorSpec:
    """ONNX Runtime's `tensor(float)` and symbolic axes as a TensorSpec."""
    name = node.type.removeprefix("tensor(").removesuffix(")")
    try:
        dtype = datatypes.of_numpy(np.dtype(_DTYPES.get(name, name))).numpy
    except (TypeError, InvalidInput):
        raise UnsupportedModel(f'the network\'s "{node.name}" is a {node.type}, which no signature can declare') from None
    return TensorSpec(node.name, dtype, tuple(axis if isinstance(axis, int) else -1 for axis in node.shape))
