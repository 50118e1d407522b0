"""Model = manifest + signature + preprocessing + batcher + engine: load, infer, close."""

from __future__ import annotations

import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tensign.batcher import Batcher
from tensign.buckets import Buckets, measure, powers_of_two
from tensign.ceiling import Ceiling
from tensign.config import ModelConfig
from tensign.engines import Engine
from tensign.engines.onnx import OnnxEngine
from tensign.errors import DeadlineExceeded, ModelNotReady, QueueFull, TensignError, UnsupportedModel
from tensign.metrics import Statistics
from tensign.plan import ModelPlan
from tensign.request import Outputs, Part, Request
from tensign.signature import Arrays, Signature, TensorSpec
from tensign.slots import Slots
from tensign.specs import tensor_specs

T = TypeVar("T")

_ANY_LENGTH = 224  # warm-up needs some length for an axis that may have any


class Model:
    """A loaded, warmed model; safe to call from any number of threads."""

    def __init__(self, plan: ModelPlan, engine: Engine, *, name: str, version: str, config: ModelConfig) -> None:
        """Loads and warms the engine. Raises UnsupportedModel, ProviderUnavailable, EngineError."""
        self.plan = plan
        self.digest = plan.manifest.digest
        self.name, self.version, self.config = name, version, config
        self.statistics = Statistics()
        self._engine = engine
        engine.load()
        self._inputs = _bind("input", self._network_inputs(), engine.inputs)  # signature's name -> what the network gets
        self._outputs = _bind("output", tensor_specs(plan.signature.outputs), engine.outputs)
        self.buckets = self._warm_up()
        self._batcher = Batcher(self._run, self.buckets, max_queue_rows=config.max_queue_rows, statistics=self.statistics)
        self._decoded = Ceiling(config.max_decoded_bytes)
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="tensign-preprocess")

    @classmethod
    def load(cls, path: Path | str, config: ModelConfig | None = None, *, name: str = "", version: str = "1") -> Model:
        """Opens an MLmodel directory; ready to infer when it returns."""
        config = config or ModelConfig()
        plan = ModelPlan.of(path)
        engine = OnnxEngine(plan.file, config.device)
        return cls(plan, engine, name=name or plan.manifest.name, version=version, config=config)

    @property
    def device(self) -> str:
        """Where it really runs: "cpu" or "cuda:N"."""
        return self._engine.device

    @property
    def signature(self) -> Signature:
        """The tensors it takes and gives, as the MLmodel declares them."""
        return self.plan.signature

    @property
    def largest_batch(self) -> int:
        """Rows that run at once, and that the queue can hold."""
        return min(self.buckets.largest, self.config.max_queue_rows)

    def infer(self, inputs: npt.NDArray[Any] | Arrays, *, timeout_s: float | None = None) -> Outputs:
        """{input: [n,...]} -> {output: [n,...]}, for any n, waiting for room and for the answer.

        Raises what `submit` raises but QueueFull and TooLarge, what its future raises, and DeadlineExceeded.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        arrays = self.enforced(inputs)
        rows, step = _rows(arrays), self.config.max_queue_rows
        pieces: list[Future[Outputs]] = []
        try:
            for at in range(0, rows, step):
                pieces.append(self._patiently(arrays, slice(at, at + step), deadline))
            answers = [self._awaited(piece, deadline) for piece in pieces]
        finally:
            for piece in pieces:
                piece.cancel()  # when one failed; it does nothing to what is answered
        if len(answers) == 1:
            return answers[0]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}

    def submit(self, inputs: npt.NDArray[Any] | Arrays, *, deadline: float | None = None) -> Future[Outputs]:
        """Starts an inference; the future gives {output: [n,...]}, or raises InvalidInput, EngineError and the like.

        inputs: arrays by the signature, or an object array [n] of encoded images in place of the image tensor.
        deadline: on time.monotonic(), in seconds. Raises SignatureMismatch, QueueFull, TooLarge, ModelNotReady or
        DeadlineExceeded at once. Callbacks of the future must not wait for anything.
        """
        arrays = self.enforced(inputs)
        request = self._batcher.reserve(_rows(arrays), deadline)
        try:
            if self._needs_pixels(arrays):
                self._pool.submit(self._preprocess, request, arrays)
            else:
                self._enqueue(request, arrays)
        except RuntimeError as error:  # the pool was shut down meanwhile, or the system has no thread left
            self._batcher.settle(request, ModelNotReady(f"cannot take the request up: {error}"))
        return request.future

    def room(self, rows: int) -> Future[None]:
        """What to wait for after QueueFull, before submitting `rows` rows again."""
        return self._batcher.room(rows)

    def close(self, timeout_s: float = 30.0) -> None:
        """Finishes what was submitted, then gives threads and memory back."""
        self._batcher.close(timeout_s)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._engine.close()

    def enforced(self, inputs: npt.NDArray[Any] | Arrays) -> Outputs:
        """{input: [n,...]} as the signature wants it, encoded images among them. Raises SignatureMismatch."""
        return self.signature.enforce_inputs(inputs, encoded=(self.plan.image,) if self.plan.image else ())

    def _patiently(self, arrays: Arrays, rows: slice, deadline: float | None) -> Future[Outputs]:
        piece = {name: array[rows] for name, array in arrays.items()}
        while True:
            try:
                return self.submit(piece, deadline=deadline)
            except QueueFull:
                self._awaited(self.room(_rows(piece)), deadline)

    def _awaited(self, future: Future[T], deadline: float | None) -> T:
        try:
            return future.result(None if deadline is None else max(deadline - time.monotonic(), 0))
        except TimeoutError:
            future.cancel()
            raise DeadlineExceeded("no answer within the timeout") from None

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
            pixels = self._pixels(arrays)
            left_s = None if request.deadline is None else max(request.deadline - time.monotonic(), 0)
            self._decoded.hold(sum(array.nbytes for array in pixels.values()), request.future, left_s)
            self._enqueue(request, {**arrays, **pixels})
        except Exception as error:
            self._batcher.settle(request, error)
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

    def _network_inputs(self) -> tuple[TensorSpec, ...]:
        """The signature's inputs as they are once pictures are preprocessed."""
        preprocess = self.plan.preprocess
        if preprocess is None:
            return tensor_specs(self.signature.inputs)
        return tuple(
            replace(spec, shape=(spec.shape[0], *preprocess.size(*spec.shape[1:3]), *spec.shape[3:]))
            if spec.name == self.plan.image
            else spec
            for spec in tensor_specs(self.signature.inputs)
        )

    def _warm_up(self) -> Buckets:
        """Times every bucket on the way that requests take: gathered by the batcher, run, checked against the signature."""
        fixed = next(iter(self._inputs.values())).shape[0]
        candidates = powers_of_two(self.config.max_batch_size) if fixed == -1 else (fixed,)
        row = Request.of({spec.name: _made_up_row(spec) for spec in self._inputs.values()})
        slots = Slots()

        def gathered(rows: int) -> Outputs:
            return slots.gather([Part(row, 0, 1)] * rows, rows)

        try:
            return measure(lambda rows: self._engine.warmup(gathered(rows)), lambda rows: self._run(gathered(rows)), candidates)
        except TensignError:
            raise
        except Exception as error:  # whatever the engine's library raises
            made_up = ", ".join(f'"{spec.name}" {spec}' for spec in self._inputs.values())
            reason = " ".join(str(error).split())[:300]
            raise UnsupportedModel(f"the network fails on made-up rows of {made_up}: {reason}") from error


def _rows(arrays: Arrays) -> int:
    return len(next(iter(arrays.values())))


def _made_up_row(spec: TensorSpec) -> npt.NDArray[Any]:
    """[1,...] of zeros; an axis of any length gets some."""
    return np.zeros((1, *(axis if axis != -1 else _ANY_LENGTH for axis in spec.shape[1:])), spec.dtype)


def _bind(kind: str, declared: tuple[TensorSpec, ...], network: tuple[TensorSpec, ...]) -> dict[str, TensorSpec]:
    """Signature's names to the network's tensors: by name, or the only one to the only one.

    Each has the network's name and, axis by axis, the more definite length of the two. Raises UnsupportedModel where
    signature and network contradict each other.
    """
    if len(declared) == len(network) == 1:
        return {declared[0].name: _merged(kind, declared[0], network[0])}
    by_name = {spec.name: spec for spec in network}
    missing = [spec.name for spec in declared if spec.name not in by_name]
    if missing or (kind == "input" and len(declared) != len(network)):
        raise UnsupportedModel(
            f"the signature's {kind}s {[spec.name for spec in declared]} are not the network's {sorted(by_name)}"
        )
    return {spec.name: _merged(kind, spec, by_name[spec.name]) for spec in declared}


def _merged(kind: str, declared: TensorSpec, network: TensorSpec) -> TensorSpec:
    agree = len(declared.shape) == len(network.shape) and all(
        want == got or -1 in (want, got) for want, got in zip(declared.shape, network.shape, strict=True)
    )
    if declared.dtype != network.dtype or not agree:
        raise UnsupportedModel(
            f'{kind} "{declared.name}": the signature promises {declared}, the network in the file has {network}'
        )
    return replace(network, shape=tuple(map(max, declared.shape, network.shape)))
