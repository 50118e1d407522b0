"""Every knob, as frozen values that validate themselves. `cli/` resolves them once; no other module reads the environment."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tensign.errors import InvalidConfig

MIB = 1 << 20
VARIANTS = ("fp16", "int8")  # beside fp32, of a model that was converted with them
TF32 = "tf32"  # fp32, multiplied in 10 bits by CUDA
_NATIVE = ("fp32", TF32, "fp16", "bf16")
ENGINE_VARIANTS = {
    "onnx": ("fp32", TF32),
    "torch": _NATIVE,
    "fastai": _NATIVE,
}  # that an engine makes of any model; others fp32
# Experimental, for none has run on a GPU yet; of which engines.
ACCELERATORS = {"cuda-graphs": ("onnx", "torch"), "tensorrt": ("onnx",), "compile": ("torch",)}
ENGINES = ("onnx", "torch", "fastai", "sklearn", "pyfunc")
_ONE = r"(\d+|(GPU|MIG)-[0-9a-f][0-9a-f-]*)"  # of several devices: its number, or its name
MAX_FRONT_ENDS = 64
_DEVICE = f"auto|cpu|cuda(:{_ONE}(,{_ONE})*)?"
MAX_PIXELS = 64_000_000  # of one picture, decoded or padded; Pillow warns from 89 million on


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """How one model is run.

    device: "auto", "cpu", "cuda", "cuda:N" or, one queue for several, "cuda:N,M"; N is a number, of those that the process
    sees, or a name: GPU-... or MIG-..., or a beginning of it; max_batch_size: the largest batch that warm-up tries, in rows;
    max_queue_rows: rows that may wait before QueueFull; max_pixels: the largest picture that is decoded;
    max_decoded_bytes: pictures that wait decoded, all together. engine: which of the model's flavors runs, "auto" the preferred
    one; variant: which of its precisions, "fp32", "tf32", of native engines "fp16" or "bf16", or one that it was converted
    with; accelerator: "" or one of ACCELERATORS, cache_dir: where what that builds is kept, "" for nowhere; trust: code of
    the model's own may run, in a process of its own; python: the interpreter of that process, "" for this one;
    max_growth_bytes: memory that process may have beyond twice what it had after warm-up, before it is started afresh.
    gpu_decoding: large JPEGs are decoded on the model's GPU where that is found to be faster; their pixels are near those of
    the CPU, not the same.
    """

    device: str = "auto"
    max_batch_size: int = 64
    max_queue_rows: int = 512
    max_pixels: int = MAX_PIXELS
    max_decoded_bytes: int = 1024 * MIB
    engine: str = "auto"
    variant: str = "fp32"
    accelerator: str = ""
    cache_dir: str = ""
    trust: bool = False
    python: str = ""
    max_growth_bytes: int = 2048 * MIB
    gpu_decoding: bool = False

    def __post_init__(self) -> None:
        if self.engine not in ("auto", *ENGINES):
            raise InvalidConfig(f'engine: wanted auto or one of {", ".join(ENGINES)}, got "{self.engine}"')
        if self.accelerator not in ("", *ACCELERATORS):
            raise InvalidConfig(f'accelerator: wanted one of {", ".join(ACCELERATORS)}, got "{self.accelerator}"')
        if not re.fullmatch(_DEVICE, self.device):
            raise InvalidConfig(
                f'device: wanted "auto", "cpu", "cuda", "cuda:N" or "cuda:N,M", each N a number or the name of a GPU (GPU-...)'
                f' or of a MIG instance (MIG-...), got "{self.device}"{_meant(self.device)}'
            )
        for one in self.devices:
            if self.devices.count(one) > 1:
                raise InvalidConfig(f'device: {one.partition(":")[2]} is named twice in "{self.device}"; name each GPU once')
        for knob in ("max_batch_size", "max_queue_rows", "max_pixels", "max_decoded_bytes", "max_growth_bytes"):
            if getattr(self, knob) < 1:
                raise InvalidConfig(f"{knob}: wanted at least 1, got {getattr(self, knob)}")

    @property
    def devices(self) -> tuple[str, ...]:
        """Each by itself: "cuda:0,1" is "cuda:0" and "cuda:1"."""
        kind, _, several = self.device.partition(":")
        each = (str(int(one)) if one.isdigit() else one for one in several.split(","))
        return tuple(f"{kind}:{one}" for one in each) if several else (self.device,)


def _meant(device: str) -> str:
    """The device that was nearly named, as the end of an error."""
    if device.endswith(","):  # the shell took the rest for another word
        return "; several are written without blanks: cuda:0,1"
    together = "".join(device.split())
    found = next((one for one in (together, f"cuda:{together}") if re.fullmatch(_DEVICE, one)), "")
    return f"; did you mean {found}?" if found else ""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where and how the server listens.

    grpc_port, http_port: 0 asks the system for a free one, http_port None is no HTTP; timeout_s: the deadline of a
    request that brings none; drain_s: how long a stopping server lets requests in flight finish, less than the 30 s that
    Kubernetes gives it; max_message_bytes: one gRPC message, both ways, or one HTTP body; max_inflight_bytes: requests
    that are on their way, all together; max_connection_age_s: after so long a gRPC client has to connect again, so that a
    balancer can spread them; 0 is never. shared_memory: keys of the system's shared memory that clients may register, a star
    behind one for all that begin so; cuda_shared_memory: whether they may register a device's. device_memory_bytes: of each
    GPU, for all models together, None for all of it but a reserve. front_ends: processes that share the gRPC port and decode,
    each with its part of max_inflight_bytes; 0 where this one does it all.
    """

    host: str = "127.0.0.1"
    grpc_port: int = 8001
    http_port: int | None = None
    timeout_s: float = 60.0
    drain_s: float = 20.0
    max_message_bytes: int = 256 * MIB
    max_inflight_bytes: int = 1024 * MIB
    max_connection_age_s: float = 0.0
    shared_memory: tuple[str, ...] = ()
    cuda_shared_memory: bool = False
    device_memory_bytes: int | None = None
    front_ends: int = 0

    def __post_init__(self) -> None:
        for port in ("grpc_port", "http_port"):
            if not 0 <= (getattr(self, port) or 0) <= 65535:
                raise InvalidConfig(f"{port}: wanted 0 to 65535, got {getattr(self, port)}")
        if self.device_memory_bytes is not None and self.device_memory_bytes < 1:
            raise InvalidConfig(f"device_memory_bytes: wanted at least 1, got {self.device_memory_bytes}")
        if not 0 <= self.max_connection_age_s < float("inf"):
            raise InvalidConfig(f"max_connection_age_s: wanted 0 or more, got {self.max_connection_age_s}")
        for key in self.shared_memory:
            if not re.fullmatch(r"/?([^/*]+\*?|\*)", key):
                raise InvalidConfig(f"shared_memory: wanted names, or how they begin and a star, got {key[:64]!a}")
        if not 0 <= self.front_ends <= MAX_FRONT_ENDS:
            raise InvalidConfig(f"front_ends: wanted 0 to {MAX_FRONT_ENDS}, got {self.front_ends}")
        if self.front_ends and self.shares_memory:
            raise InvalidConfig("front_ends: shared memory would be registered with one of them alone; wanted 0 beside it")
        for knob in ("timeout_s", "drain_s", "max_message_bytes", "max_inflight_bytes"):
            if not 0 < getattr(self, knob) < float("inf"):
                raise InvalidConfig(f"{knob}: wanted more than 0, got {getattr(self, knob)}")

    @property
    def shares_memory(self) -> bool:
        """Whether clients may leave tensors in memory that they share with the server."""
        return bool(self.shared_memory) or self.cuda_shared_memory

    @property
    def bracketed_host(self) -> str:
        """The host as it stands in an address: an IPv6 one in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def address(self) -> str:
        """What gRPC listens on."""
        return f"{self.bracketed_host}:{self.grpc_port}"
