"""torch on CUDA, without a GPU: a stand-in gives the four answers of a GPU. It proves order and faults, not CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch")

import torch

from tensign.engines import faults, torchdevice, ways
from tensign.engines import torch as engine_module
from tensign.engines.fastai import FastaiEngine
from tensign.engines.torch import TorchEngine
from tensign.errors import DeviceLost, OutOfMemory, ParityFailed, ProviderUnavailable, UnsupportedModel

OUTPUTS = [{"name": "y", "named": True, "dtype": "<f4", "column": False}]
OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1 GiB is free."
)
LOST = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported"


class StandIn(torchdevice.Cuda):
    """Runs on the CPU; a captured run is run again, into the answer that stays."""

    def __init__(self, device: str) -> None:
        super().__init__("cpu")
        self.done: list[str] = []
        self.kind = "cpu"

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Any:
        self.done.append("pin")
        return torch.empty(shape, dtype=dtype)

    def copy(self, target: Any, source: Any) -> None:
        self.done.append("copy")
        target.copy_(source)

    def synchronize(self) -> None:
        self.done.append("synchronize")

    def captured(self, run: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        self.done.append("capture")
        answer = run().clone()

        def replay() -> None:
            self.done.append("replay")
            answer.copy_(run())

        return replay, answer

    def use_tf32(self, wanted: bool) -> None:
        self.done.append(f"tf32 {wanted}")
        super().use_tf32(wanted)


@pytest.fixture(autouse=True)
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two GPUs of the Hopper kind, as far as anybody asks; torch's own switches are put back."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torchdevice, "Cuda", StandIn)
    cudnn.benchmark = True  # as fastai leaves it
    yield
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


class Counted(torch.nn.Module):
    """A convolution that remembers of how many rows, and in which layout, its Python code ran, and fails as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.last = torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, 4)

    def forward(self, x: Any, scale: float = 1.0) -> Any:
        last = self.convolution.weight.is_contiguous(memory_format=torch.channels_last)
        RAN.append((len(x), last))
        if fault := FAULTS.get((len(x), last)):
            raise RuntimeError(fault)
        return self.last(self.convolution(x).mean((2, 3))) * (scale + WRONG.get(last, 0))


RAN: list[tuple[int, bool]] = []
FAULTS: dict[tuple[int, bool], str] = {}
WRONG: dict[bool, float] = {}  # by layout


@pytest.fixture(autouse=True)
def well_behaved() -> None:
    for told in (RAN, FAULTS, WRONG):
        told.clear()


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Which of the two layouts is: 0 as loaded, 1 channels last."""

    def decide(number: int) -> None:
        took = iter([float(number), 1.0 - number] * 100)
        monkeypatch.setattr(ways, "_timed", lambda run, batch: next(took))

    return decide


def rows(count: int, seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    return {"x": np.random.default_rng(seed).random((count, 3, 8, 8), np.float32)}


def loaded(folder: Path, *, device: str = "cuda:1", network: Any = None, **options: Any) -> tuple[TorchEngine, StandIn]:
    torch.save(network or Counted(), folder / "model.pth")
    engine = TorchEngine(str(folder), str(folder / "model.pth"), device, {}, OUTPUTS, **options)
    engine.load()
    return engine, engine._place


def expected(batch: Mapping[str, Any], scale: float = 1.0) -> Any:
    with torch.no_grad():
        answers = Counted()(torch.from_numpy(batch["x"])).numpy() * scale
    RAN.clear()
    return answers


def close(answers: Mapping[str, Any], wanted: Any) -> None:
    np.testing.assert_allclose(answers["y"], wanted, rtol=1e-4, atol=1e-6)


def test_a_warmed_batch_goes_through_memory_that_stays(tmp_path: Path, faster: Callable[[int], None]) -> None:
    faster(0)
    engine, device = loaded(tmp_path)
    assert engine.device == "cuda:1"
    engine.warmup(rows(2))
    device.done.clear()
    for seed in range(3):
        close(engine.run(rows(2, seed)), expected(rows(2, seed)))
    assert device.done == ["copy", "synchronize"] * 3  # one wait each, for the answer
    device.done.clear()
    close(engine.run(rows(3)), expected(rows(3)))  # of a kind that nobody warmed
    assert device.done == ["synchronize"]


@pytest.mark.parametrize("number", [0, 1])
def test_the_faster_layout_runs_each_batch_size(tmp_path: Path, faster: Callable[[int], None], number: int) -> None:
    faster(number)
    engine, _ = loaded(tmp_path)
    engine.warmup(rows(2))
    RAN.clear()
    answers = engine.run(rows(2, 5))
    assert RAN == [(2, bool(number))]
    close(answers, expected(rows(2, 5)))


def test_only_weights_of_convolutions_are_there_twice() -> None:
    network = Counted()
    first, last = torchdevice.laid_out(network, StandIn("cuda:0"))
    assert first is network and last.last.weight is network.last.weight
    assert last.convolution.bias is network.convolution.bias and last.convolution.weight is not network.convolution.weight
    assert torchdevice.laid_out(network.last, StandIn("cuda:0")) == [network.last]
    assert torchdevice.laid_out(network, torchdevice.Host()) == [network]


@pytest.mark.parametrize(("fault", "wrong"), [("an exported view does not allow that", 0.0), (OUT_OF_MEMORY, 0.0), ("", 0.1)])
def test_a_layout_that_fails_or_answers_otherwise_is_not_taken(
    tmp_path: Path, faster: Callable[[int], None], fault: str, wrong: float
) -> None:
    faster(1)
    FAULTS[2, True], WRONG[True] = fault, wrong
    engine, _ = loaded(tmp_path)
    engine.warmup(rows(2))
    RAN.clear()
    engine.run(rows(2))
    assert RAN == [(2, False)]


class Random(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 4, 3)

    def forward(self, x: Any) -> Any:
        return torch.rand(len(x), 4)


def test_a_network_that_answers_otherwise_each_time_runs_as_it_is(tmp_path: Path) -> None:
    engine, _ = loaded(tmp_path, network=Random())
    engine.warmup(rows(2))
    assert engine.run(rows(2))["y"].shape == (2, 4)
    engine, _ = loaded(tmp_path, network=Random(), accelerator="cuda-graphs")
    with pytest.raises(ParityFailed, match="accelerator cuda-graphs: a batch of 2 rows differs from plain fp32 by"):
        engine.warmup(rows(2))


def test_a_captured_run_is_replayed_for_its_shapes_and_params_alone(tmp_path: Path, faster: Callable[[int], None]) -> None:
    faster(0)
    engine, device = loaded(tmp_path, accelerator="cuda-graphs")
    engine.warmup(rows(2), {"scale": 3.0})
    assert device.done.count("capture") == 2  # of each layout
    device.done.clear()
    for seed in range(2):
        close(engine.run(rows(2, seed), {"scale": 3.0}), expected(rows(2, seed), 3.0))
    assert device.done == ["copy", "replay", "synchronize"] * 2
    for batch, params in ((rows(3), {"scale": 3.0}), (rows(2), {"scale": 2.0})):
        device.done.clear()
        close(engine.run(batch, params), expected(batch, params["scale"]))
        assert device.done == ["synchronize"]


def test_what_is_compiled_lays_out_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def compiled(network: Any) -> Any:
        made.append(network)
        return network

    monkeypatch.setattr(engine_module, "compiled", compiled)
    engine, device = loaded(tmp_path, accelerator="compile")
    engine.warmup(rows(2))
    device.done.clear()
    close(engine.run(rows(2)), expected(rows(2)))
    assert made == [engine._network] and device.done == ["copy", "synchronize"]


def test_what_cannot_be_captured_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def captured(self: StandIn, run: Callable[[], Any]) -> Any:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    monkeypatch.setattr(StandIn, "captured", captured)
    engine, _ = loaded(tmp_path, accelerator="cuda-graphs")
    with pytest.raises(
        UnsupportedModel, match="accelerator cuda-graphs: this network does not run so: RuntimeError: CUDA error"
    ):
        engine.warmup(rows(2))


def test_tf32_is_off_unless_it_is_asked_for(tmp_path: Path) -> None:
    engine, device = loaded(tmp_path)
    engine.warmup(rows(2))
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.benchmark
    engine, device = loaded(tmp_path, variant="tf32")
    device.done.clear()
    engine.warmup(rows(2))
    assert [done for done in device.done if "tf32" in done] == ["tf32 False", "tf32 True"]  # it is held against fp32
    assert torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("accelerator", ["", "cuda-graphs"])
def test_fp16_is_held_against_fp32(tmp_path: Path, accelerator: str) -> None:
    engine, _ = loaded(tmp_path, variant="fp16", accelerator=accelerator)
    engine.warmup(rows(2))
    for count in (2, 3):
        answers, wanted = engine.run(rows(count))["y"], expected(rows(count))
        assert answers.dtype == np.float32 and 1e-7 < np.abs(answers - wanted).max() < 0.01 * np.abs(wanted).max()
    torch.manual_seed(0)
    huge = torch.nn.Conv2d(3, 4, 8)
    huge.weight.data *= 1e7  # beyond the largest number of fp16
    engine, _ = loaded(tmp_path, network=huge, variant="fp16", accelerator=accelerator)
    with pytest.raises(
        ParityFailed, match=r"variant fp16.*: a batch of 2 rows differs from plain fp32 by (inf|nan) of .* may by 0\.01"
    ):
        engine.warmup(rows(2))


@pytest.mark.parametrize("accelerator", ["", "cuda-graphs"])
def test_memory_that_runs_out_and_a_lost_device_are_told(tmp_path: Path, accelerator: str) -> None:
    engine, _ = loaded(tmp_path, accelerator=accelerator)
    engine.warmup(rows(2))
    for count, last in ((2, False), (2, True), (4, False), (4, True), (5, False)):
        FAULTS[count, last] = OUT_OF_MEMORY
    for wrong in (engine.run, engine.warmup):
        for count in (2, 4):
            with pytest.raises(OutOfMemory, match="cpu: its memory does not hold"):
                wrong(rows(count))
    FAULTS.clear()
    close(engine.run(rows(2)), expected(rows(2)))
    FAULTS.update({(2, False): LOST, (2, True): LOST, (4, True): LOST})
    for count, wrong in ((2, engine.run), (2, engine.warmup), (4, engine.warmup)):
        with pytest.raises(DeviceLost, match="CUDA error 700, after which only a new process"):
            wrong(rows(count))
    with pytest.raises(RuntimeError, match="the model's own"):
        FAULTS[3, False] = "the model's own"
        engine.run(rows(3))


class Numbered(RuntimeError):
    """As torch.AcceleratorError has it."""

    error_code = 719


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError(OUT_OF_MEMORY), OutOfMemory),
        (RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"), OutOfMemory),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), OutOfMemory),
        (RuntimeError(LOST), DeviceLost),
        (torch.AcceleratorError("CUDA error: device-side assert triggered\nSearch for `cudaErrorAssert'"), DeviceLost),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), DeviceLost),
        (RuntimeError("CUDA driver error: unspecified launch failure"), DeviceLost),
        (RuntimeError("Triton Error [CUDA]: misaligned address"), DeviceLost),
        (Numbered("said otherwise"), DeviceLost),
        (RuntimeError("CUDA error: invalid argument"), None),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x700 and 8x4)"), None),
        (RuntimeError("an unknown error of the model"), None),
    ],
)
def test_what_torch_says_of_the_device(error: Exception, kind: type[Exception] | None) -> None:
    found = faults.told(error, "cuda:1")
    assert type(found) is (kind or type(None))
    assert found is None or "cuda:1" in str(found)


def test_what_the_gpu_cannot_do_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProviderUnavailable, match="cuda:2: torch sees 2 GPU, the last of which is cuda:1"):
        loaded(tmp_path, device="cuda:2")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    for variant in ("bf16", "tf32"):
        with pytest.raises(ProviderUnavailable, match=r"compute capability 8\.0 or more, cuda:1 has 7\.5"):
            loaded(tmp_path, variant=variant)
    loaded(tmp_path, variant="fp16")


@pytest.mark.filterwarnings("ignore")  # of fastai on today's torch
@pytest.mark.parametrize("variant", ["fp32", "fp16"])
def test_a_learner_runs_in_the_faster_layout_and_in_half_precision(
    fixture_dir: Callable[[str], Path], faster: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    """What is done to pictures before its network stays exact: the network alone computes otherwise."""
    faster(1)
    path = fixture_dir("faces-fastai-2.8")
    with np.load(path / "golden.npz") as golden:
        pictures, wanted = golden["inputs"][:4], golden["outputs"][:4]
    engine = FastaiEngine(str(path), str(path / "model.fastai"), "cuda", {}, [{"name": "y"}], variant=variant)
    engine.load()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # which a Learner asks too
    first, last = engine._tried
    engine.warmup({"x": pictures})
    assert not torch.backends.cudnn.benchmark and not torch.backends.cudnn.allow_tf32
    answers = engine.run({"x": pictures})["y"]
    assert engine._learner.model is last
    assert answers.dtype == np.float32
    apart = np.abs(answers - wanted).max()
    assert apart < 1e-5 if variant == "fp32" else 1e-7 < apart < 5e-3
    engine.run({"x": pictures[:3]})
    assert engine._learner.model is first
    engine.close()
