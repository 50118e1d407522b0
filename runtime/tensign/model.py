"""Model = manifest + signature + preprocessing + batcher + engine: load, infer, close."""

from __future__ import annotations

import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy.typing as npt

from tensign.batcher import Batcher
from tensign.buckets import Buckets, measure, powers_of_two
from tensign.config import ModelConfig
from tensign.engines import Engine, made_up_rows
from tensign.engines.onnx import OnnxEngine
from tensign.errors import DeadlineExceeded, UnsupportedModel
from tensign.metrics import Statistics
from tensign.plan import ModelPlan
from tensign.request import Outputs, Part, Request
from tensign.signature import Arrays, Signature, TensorSpec
from tensign.slots import Slots


class Model:
    """A loaded, warmed model; safe to call from any number of threads."""

    def __init__(self, plan: ModelPlan, engine: Engine, *, name: str, version: str, config: ModelConfig) -> None:
        """Loads and warms the engine. Raises UnsupportedModel, ProviderUnavailable, EngineError."""
        started = time.perf_counter()
        self.plan = plan
        self.name, self.version, self.config = name, version, config
        self.statistics = Statistics()
        self._engine = engine
        engine.load()
        self._inputs = _bind("input", plan.signature.inputs, engine.inputs)  # signature's name -> engine's spec
        self._outputs = _bind("output", plan.signature.outputs, engine.outputs)
        self._check_engine()
        self.buckets = self._warm_up()
        self._batcher = Batcher(self._run, self.buckets, max_queue_rows=config.max_queue_rows, statistics=self.statistics)
        self._pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="tensign-preprocess")
        self.load_seconds = time.perf_counter() - started

    @classmethod
    def load(cls, path: Path | str, config: ModelConfig | None = None, *, name: str = "", version: str = "1") -> Model:
        """Opens an MLmodel directory; ready to infer when it returns."""
        config = config or ModelConfig()
        plan = ModelPlan.of(path)
        engine = OnnxEngine(plan.file, config.device)
        return cls(plan, engine, name=name or plan.manifest.name, version=version, config=config)

    @property
    def device(self) -> str:
        return self._engine.device

    @property
    def signature(self) -> Signature:
        return self.plan.signature

    def infer(self, inputs: npt.NDArray[Any] | Arrays, *, timeout_s: float | None = None) -> Outputs:
        """{input: [n,...]} -> {output: [n,...]}, waiting for it. Raises what `submit` and the engine raise."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        future = self.submit(inputs, deadline=deadline)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise DeadlineExceeded(f"no answer within {timeout_s} s") from None

    def submit(self, inputs: npt.NDArray[Any] | Arrays, *, deadline: float | None = None) -> Future[Outputs]:
        """Starts an inference; the future gives {output: [n,...]}, or raises InvalidInput, EngineError and the like.

        inputs: arrays by the signature, or an object array [n] of encoded images in place of the image tensor.
        deadline: on time.monotonic(), in seconds. Raises SignatureMismatch, QueueFull, ModelNotReady at once.
        """
        arrays = self.signature.enforce_inputs(inputs, (self.plan.image,) if self.plan.image else ())
        request = self._batcher.reserve(len(next(iter(arrays.values()))), deadline)
        if self._needs_pixels(arrays):
            self._pool.submit(self._preprocess, request, arrays)
        else:
            self._enqueue(request, arrays)
        return request.future

    def close(self, timeout_s: float = 30.0) -> None:
        """Finishes what was submitted, then gives threads and memory back."""
        self._batcher.close(timeout_s)
        self._pool.shutdown()
        self._engine.close()

    def _needs_pixels(self, arrays: Arrays) -> bool:
        if self.plan.preprocess is None or self.plan.image is None:
            return False
        pixels = arrays[self.plan.image]
        return pixels.dtype == object or not self.plan.preprocess.keeps(*pixels.shape[1:3])

    def _preprocess(self, request: Request, arrays: Arrays) -> None:
        """Decodes and resizes before the request can share a batch: a bad picture fails alone."""
        if self._batcher.dropped(request):
            return
        started = time.perf_counter_ns()
        try:
            self._enqueue(request, {**arrays, **self._pixels(arrays)})
        except Exception as error:
            self._batcher.fail(request, error)
        self.statistics.preprocess(time.perf_counter_ns() - started)

    def _pixels(self, arrays: Arrays) -> Outputs:
        preprocess, image = self.plan.preprocess, self.plan.image
        assert preprocess is not None and image is not None
        height, width = self._inputs[image].shape[1:3]
        if arrays[image].dtype != object:
            return {image: preprocess.arrays(arrays[image], max_pixels=self.config.max_pixels)}
        images = list(arrays[image])
        return {image: preprocess.encoded(images, height=height, width=width, max_pixels=self.config.max_pixels)}

    def _enqueue(self, request: Request, arrays: Arrays) -> None:
        self._batcher.enqueue(request, {self._inputs[name].name: array for name, array in arrays.items()})

    def _run(self, batch: Arrays) -> Outputs:
        rows = len(next(iter(batch.values())))
        answers = self._engine.run(batch)
        named = {name: answers[spec.name] for name, spec in self._outputs.items()}
        return self.signature.enforce_outputs(named, rows)

    def _warm_up(self) -> Buckets:
        """Times every bucket on the way that requests take: gathered by the batcher, run, checked against the signature."""
        fixed = next(iter(self._inputs.values())).shape[0]
        candidates = powers_of_two(self.config.max_batch_size) if fixed == -1 else (fixed,)
        row = Request.of({spec.name: made_up_rows(spec) for spec in self._inputs.values()})
        slots = Slots(candidates[-1])
        return measure(self._engine.warmup, lambda rows: self._run(slots.gather([Part(row, 0, 1)] * rows, rows)), candidates)

    def _check_engine(self) -> None:
        """What the signature promises must be what the network takes and gives, once the picture is preprocessed."""
        for name, network in self._inputs.items():
            spec = next(spec for spec in self.signature.inputs if spec.name == name)
            shape = spec.shape
            if self.plan.preprocess and name == self.plan.image:
                shape = (shape[0], *self.plan.preprocess.size(*shape[1:3]), shape[3])
            _check_alike("input", TensorSpec(name, spec.dtype, shape), network)
        for name, network in self._outputs.items():
            _check_alike("output", next(spec for spec in self.signature.outputs if spec.name == name), network)


def _bind(kind: str, declared: tuple[TensorSpec, ...], network: tuple[TensorSpec, ...]) -> dict[str, TensorSpec]:
    """Signature's names to the network's tensors: by name, or the only one to the only one."""
    if len(declared) == len(network) == 1:
        return {declared[0].name: network[0]}
    by_name = {spec.name: spec for spec in network}
    missing = [spec.name for spec in declared if spec.name not in by_name]
    if missing or (kind == "input" and len(declared) != len(network)):
        raise UnsupportedModel(
            f"the signature's {kind}s {[spec.name for spec in declared]} are not the network's {sorted(by_name)}"
        )
    return {spec.name: by_name[spec.name] for spec in declared}


def _check_alike(kind: str, declared: TensorSpec, network: TensorSpec) -> None:
    agree = len(declared.shape) == len(network.shape) and all(
        want == got or -1 in (want, got) for want, got in zip(declared.shape, network.shape, strict=True)
    )
    if declared.dtype != network.dtype or not agree:
        raise UnsupportedModel(
            f'{kind} "{declared.name}": the signature promises {declared}, the network in the file has {network}'
        )
