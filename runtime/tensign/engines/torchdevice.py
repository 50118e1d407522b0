"""torch on the CPU or a GPU: where tensors are, how they get there, half precision, layouts. In the worker only."""

from __future__ import annotations

import contextlib
import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tensign.engines.faults import told
from tensign.errors import ProviderUnavailable, TensignError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tensign.signature import Arrays

    Fill = Callable[[Arrays], Mapping[str, Any]]  # gives tensors of the batch, on the device

HALVES = {"fp16": "float16", "bf16": "bfloat16"}  # variant -> of torch
_AMPERE = (8, 0)  # the first that multiplies in TF32 and bf16
_KINDS = 256  # of batches that are compiled at most
_CAPTURED_AFTER = 3  # runs, in which libraries plan and allocate


class Host:
    """The CPU: tensors lie in the memory of the batch itself."""

    kind = device = "cpu"
    lays_out = False

    def staged(self, batch: Arrays) -> Fill:
        return partial(tensors_of, self)

    def fetched(self, answer: Any) -> Any:
        return mapped(answer, lambda tensor: tensor.detach().cpu().numpy())

    def told(self, error: Exception) -> TensignError | None:
        return None

    def use_tf32(self, wanted: bool) -> None:
        """Nothing to be done."""


class Cuda:
    """One GPU. The four calls that only a GPU answers are methods of their own: tests have them answered by the CPU."""

    kind = "cuda"
    lays_out = True

    def __init__(self, device: str) -> None:
        import torch

        self.device = device
        self._pool: Any = None  # of all graphs: one runs at a time, and its answer is fetched before the next one
        torch.cuda.set_device(device)
        # As a search for plans, which takes 0.6 s for every new shape, gains ONNX Runtime nothing; fastai switches it on.
        torch.backends.cudnn.benchmark = False

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Any:
        import torch

        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def copy(self, target: Any, source: Any) -> None:
        """Starts it, from pinned memory; what is computed next waits for it, the host does not."""
        target.copy_(source, non_blocking=True)

    def synchronize(self) -> None:
        import torch

        torch.cuda.current_stream().synchronize()

    def captured(self, run: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """(replays it, the answer, which stays where it is and is overwritten)."""
        import torch

        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        aside: Any = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_CAPTURED_AFTER):
                run()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            answer = run()
        return graph.replay, answer

    def staged(self, batch: Arrays) -> Fill:
        """Through memory that stays: pinned here, and as much on the device."""
        import torch

        pinned = {name: self.pinned(array.shape, torch.from_numpy(array[:0]).dtype) for name, array in batch.items()}
        there = {name: torch.empty(host.shape, dtype=host.dtype, device=self.device) for name, host in pinned.items()}

        def fill(batch: Arrays) -> Mapping[str, Any]:
            for name, array in batch.items():
                pinned[name].copy_(torch.from_numpy(array))
                self.copy(there[name], pinned[name])
            return there

        return fill

    def fetched(self, answer: Any) -> Any:
        """All of it is on its way before any is waited for; torch takes pinned memory for it."""
        there = mapped(answer, lambda tensor: tensor.detach().to("cpu", non_blocking=True))
        self.synchronize()
        return mapped(there, lambda tensor: tensor.numpy())

    def told(self, error: Exception) -> TensignError | None:
        return told(error, self.device)

    def use_tf32(self, wanted: bool) -> None:
        """torch itself has it on for convolutions, and off for products of matrices."""
        import torch

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = wanted


def opened(wanted: str, variant: str = "fp32", accelerator: str = "") -> tuple[str, Any]:
    """The device's name, as of torch_device, and the device. Raises ProviderUnavailable for what it cannot do."""
    import torch

    name = torch_device(wanted)
    if accelerator == "compile" and not hasattr(torch, "compile"):
        raise ProviderUnavailable(f"accelerator compile: torch 2.0 or newer has it, and this is {torch.__version__}")
    if variant in HALVES and not hasattr(torch, "autocast"):
        raise ProviderUnavailable(f"variant {variant}: torch 1.10 or newer has it, and this is {torch.__version__}")
    if name == "cpu":
        if accelerator == "cuda-graphs":
            raise ProviderUnavailable("accelerator cuda-graphs: runs on CUDA alone; on a CPU compile does")
        if variant in ("fp16", "tf32"):
            raise ProviderUnavailable(f"variant {variant}: torch runs it on CUDA alone (--device cuda); on a CPU bf16 does")
        return name, Host()
    if variant in ("bf16", "tf32"):
        capability = torch.cuda.get_device_capability(name)
        if tuple(capability) < _AMPERE:
            raise ProviderUnavailable(
                "variant {}: wanted a GPU of compute capability 8.0 or more, {} has {}.{}".format(variant, name, *capability)
            )
    return name, Cuda(name)


def torch_device(wanted: str) -> str:
    """Where it will run: "auto" is CUDA where torch has it. Raises ProviderUnavailable."""
    import torch

    if wanted == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        return wanted
    if not torch.cuda.is_available():
        raise ProviderUnavailable(
            f"{wanted}: the torch {torch.__version__} of the worker's Python sees no GPU; install one that is built for CUDA,"
            " give --python one that has it, or choose --device cpu"
        )
    index, there = int(wanted.partition(":")[2] or 0), torch.cuda.device_count()
    if index >= there:
        raise ProviderUnavailable(f"{wanted}: torch sees {there} GPU, the last of which is cuda:{there - 1}")
    return f"cuda:{index}"


def laid_out(network: Any, place: Any) -> list[Any]:
    """The network, and where there are convolutions, for which that may pay, the same with channels last.

    Only the weights of convolutions are there twice: those with channels last make cuDNN hand on everything so.
    """
    import torch

    if not place.lays_out or not isinstance(network, torch.nn.Module):
        return [network]
    tensors = [*network.parameters(), *network.buffers()]
    if not any(tensor.dim() == 4 for tensor in tensors):
        return [network]
    try:
        other = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors if tensor.dim() != 4})
        return [network, other.to(memory_format=torch.channels_last)]
    except Exception:  # modules may hold what cannot be copied, and a full device has no room
        return [network]


def halved(network: Any, place: Any, variant: str) -> Any:
    """As a module that computes in half precision where torch holds that to be safe, and answers in fp32."""
    import torch

    if variant not in HALVES:
        return network
    dtype = getattr(torch, HALVES[variant])

    class Halved(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.training = False  # of this one alone: an exported network has no eval()

        def forward(self, *given: Any, **named: Any) -> Any:
            with torch.autocast(place.kind, dtype=dtype, cache_enabled=False):  # each weight is used once
                answer = self.network(*given, **named)
            return mapped(answer, lambda tensor: tensor.float() if tensor.dtype == dtype else tensor)

    return Halved()


def compiled(network: Any, backend: str = "inductor") -> Any:
    """For each kind of batch anew, the whole of it or not at all; nothing is compiled before it runs."""
    import torch
    from torch._dynamo import config

    for name in ("recompile_limit", "cache_size_limit"):  # beyond it torch would go on without
        if hasattr(config, name):
            setattr(config, name, _KINDS)
    return torch.compile(network, dynamic=False, fullgraph=True, backend=backend)


def tensors_of(place: Any, batch: Arrays) -> dict[str, Any]:
    """Of a batch that no memory was made for."""
    import torch

    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(place.device) for name, array in batch.items()}


def mapped(answer: Any, function: Callable[[Any], Any]) -> Any:
    """The same with every tensor in it replaced, lists as tuples."""
    if hasattr(answer, "detach"):
        return function(answer)
    if isinstance(answer, dict):
        return {name: mapped(value, function) for name, value in answer.items()}
    if isinstance(answer, (tuple, list)):
        return tuple(mapped(value, function) for value in answer)
    return answer


@contextlib.contextmanager
def translated(place: Any) -> Iterator[None]:
    """Errors of the device by our names: OutOfMemory, DeviceLost."""
    try:
        yield
    except Exception as error:
        if isinstance(error, TensignError) or (found := place.told(error)) is None:
            raise
        raise found from None


def inference() -> Any:
    """Nothing is kept for gradients."""
    import torch

    return getattr(torch, "inference_mode", torch.no_grad)()  # of torch 1.9 or newer
