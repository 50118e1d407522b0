"""Model = manifest + signature + preprocessing + batcher + engine: load, infer, close."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tensign.batcher import Batcher
from tensign.batching import Batching
from tensign.binding import Binding
from tensign.buckets import Buckets
from tensign.ceiling import Ceiling
from tensign.config import ModelConfig
from tensign.decode import pictures
from tensign.devicememory import on_device
from tensign.engines import Engine
from tensign.errors import DeadlineExceeded, InvalidInput, ModelNotReady, QueueFull, UntrustedModel
from tensign.form import Form
from tensign.gpudecoding import GpuDecoding, gpu_decoding
from tensign.images import Images, size_of
from tensign.lane import Place
from tensign.ledger import Holding, Ledger
from tensign.metrics import Statistics
from tensign.placement import engines_of
from tensign.plan import ModelPlan
from tensign.request import Enforced, Outputs, Request, joined
from tensign.signature import Arrays, Mode, Signature
from tensign.turns import Share
from tensign.warmup import warm_up

T = TypeVar("T")

_THREADS = len(os.sched_getaffinity(0))  # that decode and resize


class Model:
    """A loaded, warmed model; safe to call from any number of threads."""

    def __init__(
        self,
        plan: ModelPlan,
        engines: Sequence[Engine],
        *,
        name: str,
        version: str,
        config: ModelConfig,
        ledger: Ledger | None = None,
        batcher: Batching | None = None,
    ) -> None:
        """Loads and warms the engines, one a device. Raises UnsupportedModel, ProviderUnavailable, EngineError.

        batcher: of another process, which has done so; the engines then only tell what they are.
        """
        self.plan = plan
        self.digest = plan.manifest.digest
        self.name, self.version, self.config = name, version, config
        self.statistics = batcher.statistics if batcher else Statistics()
        self._engines = tuple(engines)
        self._images = Images.ready(plan.image, plan.preprocess, config.max_pixels) if plan.image else None
        self._ledger, self._holding = ledger or Ledger(), Holding(name)
        self._places: list[Place] = []
        self.gpu_decoding: GpuDecoding | None = None
        try:
            if batcher is None:
                batcher = self._loaded()
            else:
                self._bind()
        except BaseException:
            for engine in self._engines:
                engine.close()
            raise
        self._batcher = batcher
        self._decoded = Ceiling(config.max_decoded_bytes)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="tensign-preprocess")

    @classmethod
    def load(
        cls,
        path: Path | str,
        config: ModelConfig | None = None,
        *,
        name: str = "",
        version: str = "1",
        ledger: Ledger | None = None,
    ) -> Model:
        """Opens an MLmodel directory; ready to infer when it returns. ledger: that of the models it shares GPUs with."""
        config, ledger = config or ModelConfig(), ledger or Ledger()
        plan = ModelPlan.of(path, config.engine, config.variant)
        if plan.choice.runs and not config.trust:
            raise UntrustedModel(
                f"{path}: engine {plan.choice.engine} {plan.choice.runs}, with your rights, in a process of its own. If you"
                " trust where it comes from, say so: --trust"
            )
        name = name or plan.manifest.name
        engines = engines_of(plan, config, name, ledger.headroom)
        return cls(plan, engines, name=name, version=version, config=config, ledger=ledger)

    @property
    def engines(self) -> tuple[Engine, ...]:
        """What runs it, one a device."""
        return self._engines

    @property
    def batcher(self) -> Batching:
        """Where its rows wait."""
        return self._batcher

    @property
    def device(self) -> str:
        """Where it really runs: "cpu", "cuda:N" or "cuda:N,M"."""
        first, *others = dict.fromkeys(engine.device for engine in self._engines)
        return ",".join((first, *(other.partition(":")[2] for other in others)))

    @property
    def rows_on(self) -> str:
        """The device from whose memory a request's rows may be taken, "" for none."""
        if len(self._engines) > 1 or not self._engines[0].device_rows:
            return ""
        kind, _, index = self._engines[0].device.partition(":")
        return f"{kind}:{int(index or 0)}"

    @property
    def memory(self) -> Mapping[str, int]:
        """Bytes of each GPU that loading and warm-up took; {} where nothing tells."""
        return self._holding.sizes

    @property
    def shares(self) -> list[tuple[str, Share]]:
        """(device, its share) where batches should take turns with other models'.

        A CPU only where ONNX Runtime, in this process, takes all of its cores: the system shares it between processes, and a
        model's own code may wait there for anything.
        """
        onnx = self.plan.choice.engine == "onnx"
        devices = [(engine.device, place.share) for engine, place in zip(self._engines, self._places, strict=False)]
        return [(device, share) for device, share in devices if device != "cpu" or onnx]

    @property
    def buckets(self) -> Buckets:
        """The batch sizes that it runs, fewer than were warmed where a device's memory ran out since."""
        return self._batcher.buckets

    @property
    def signature(self) -> Signature:
        """The tensors it takes and gives, as the MLmodel declares them."""
        return self.plan.signature

    @property
    def form(self) -> Form | None:
        """What kind of thing the model itself returned last, None where it has returned nothing yet."""
        return next((engine.form for engine in self._engines if engine.form), None)

    @property
    def ready(self) -> bool:
        """False while the processes that run it are being started again, and for good where that failed too often."""
        return self._batcher.working and any(engine.ready for engine in self._engines)

    @property
    def lost(self) -> bool:
        """True where nothing can run it any more: GPUs are lost, or its processes do not start; a new server may find them."""
        return all(engine.lost for engine in self._engines)

    @property
    def largest_batch(self) -> int:
        """Rows that run at once, and that the queue can hold."""
        return min(self.buckets.largest, self.config.max_queue_rows)

    def infer(self, inputs: Any, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None) -> Outputs:
        """{input: [n,...]} -> {output: [n,...]}, for any n, waiting for room and for the answer.

        inputs: what `enforced` takes. Raises what `submit` raises but QueueFull and TooLarge, what its future raises, and
        DeadlineExceeded.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        enforced = self.enforced(inputs, params)
        rows, step = enforced.rows, self.config.max_queue_rows
        pieces: list[Future[Outputs]] = []
        try:
            for at in range(0, rows, step):
                pieces.append(self._patiently(enforced.part(at, at + step), deadline))
            answers = [self._awaited(piece, deadline) for piece in pieces]
        finally:
            for piece in pieces:
                piece.cancel()  # when one failed; it does nothing to what is answered
        return joined(answers)

    def submit(
        self,
        inputs: Any,
        *,
        params: Mapping[str, Any] | None = None,
        deadline: float | None = None,
        client: str = "",
    ) -> Future[Outputs]:
        """Starts an inference; the future gives {output: [n,...]}, or raises InvalidInput, EngineError and the like.

        inputs: what `enforced` gave, or what it takes, params included, to be enforced strictly now. deadline: on
        time.monotonic(), in seconds; client: one of those that the queue is fair to. Raises SignatureMismatch, QueueFull,
        TooLarge, ModelNotReady or DeadlineExceeded at once. Callbacks of the future must not wait for anything.
        """
        enforced = inputs if isinstance(inputs, Enforced) else self.enforced(inputs, params)
        request = self._batcher.reserve(enforced.rows, deadline, client)
        try:
            if self._images and self._images.need_work(enforced):
                self._batcher.announce(request)
                self._pool.submit(self._preprocess, request, enforced, self._images)
            else:
                self._enqueue(request, enforced, enforced.params)
        except RuntimeError as error:  # the pool was shut down meanwhile, or the system has no thread left
            self._batcher.settle(request, ModelNotReady(f"cannot take the request up: {error}"))
        return request.future

    def at_once(self, enforced: Enforced, deadline: float | None = None) -> Outputs | None:
        """{output: [n,...]}, computed on this thread where that is quicker than handing it over and nobody waits before it;
        else None, and nothing has happened.
        """
        if self._images and self._images.need_work(enforced):
            return None
        return self._batcher.at_once(self._binding.to_network(enforced), enforced.params, deadline)

    def room(self, rows: int, client: str = "") -> Future[None]:
        """What to wait for after QueueFull, before submitting `rows` rows again."""
        return self._batcher.room(rows, client)

    def close(self, timeout_s: float = 30.0) -> None:
        """Finishes what was submitted, then gives threads and memory back."""
        self._batcher.close(timeout_s)
        self._pool.shutdown(wait=False, cancel_futures=True)
        for place in self._places:
            place.share.end()
        for engine in self._engines:
            engine.close()
        self._ledger.give_back(self._holding)

    def enforced(self, inputs: Any, params: Mapping[str, Any] | None = None, mode: Mode = "strict") -> Enforced:
        """{input: [n,...]} as the signature wants it, encoded images [n] in place of the image tensor, and the params.

        inputs: what `Signature.enforce_inputs` takes, mode: how. Raises SignatureMismatch.
        """
        held = on_device(inputs, self.rows_on)
        encoded = (self.plan.image,) if self.plan.image else ()
        arrays = self.signature.enforce_inputs(inputs, None, mode, encoded)
        if self._images and self._images.name in held and self._images.need_work(arrays):
            raise InvalidInput(
                f'input "{self._images.name}": pictures of this size are resized by the host, which reads nothing on a device;'
                " send them raw or in system shared memory"
            )
        return Enforced(arrays, self.signature.enforce_params(params, mode))

    def _patiently(self, enforced: Enforced, deadline: float | None) -> Future[Outputs]:
        while True:
            try:
                return self.submit(enforced, deadline=deadline)
            except QueueFull:
                self._awaited(self.room(enforced.rows), deadline)

    def _awaited(self, future: Future[T], deadline: float | None) -> T:
        try:
            return future.result(None if deadline is None else max(deadline - time.monotonic(), 0))
        except TimeoutError:
            future.cancel()
            raise DeadlineExceeded("no answer within the timeout") from None

    def _preprocess(self, request: Request, enforced: Enforced, images: Images) -> None:
        """Decodes and resizes before the request can share a batch: a bad picture fails alone."""
        if self._batcher.dropped(request):
            return
        started = time.perf_counter_ns()
        try:
            decoder = self.gpu_decoding.pictures if self.gpu_decoding else pictures
            pixels = images.pixels(enforced, self._binding.inputs[images.name].shape[1:3], decoder)
            left_s = None if request.deadline is None else max(request.deadline - time.monotonic(), 0)
            self._decoded.hold(size_of(pixels), request.future, left_s)
            self._enqueue(request, {**enforced, images.name: pixels}, enforced.params)
        except Exception as error:
            self._batcher.settle(request, error)
        self.statistics.preprocess(time.perf_counter_ns() - started)

    def _enqueue(self, request: Request, arrays: Arrays, params: Mapping[str, Any]) -> None:
        self._batcher.enqueue(request, self._binding.to_network(arrays), params)

    def _loaded(self) -> Batcher:
        """The batcher of its engines, which it loads and warms."""
        with self._ledger.loading(self.name, self._engines) as self._holding:
            for engine in self._engines:
                engine.load()
            self._bind()
            buckets = warm_up(self.name, self.plan, self._engines, self._binding, self.config)
        if self.config.gpu_decoding and self.plan.image:
            self.gpu_decoding = gpu_decoding(self.device, threads=_THREADS, max_pixels=self.config.max_pixels)
        self._places = [Place.of(engine, partial(self._binding.run, engine), self._binding.even) for engine in self._engines]
        rows = self.config.max_queue_rows
        return Batcher(self._places, buckets, max_queue_rows=rows, statistics=self.statistics)

    def _bind(self) -> None:
        """Learns from an engine that is loaded what the network takes and gives."""
        first = self._engines[0]
        if first.labels and not self.plan.labels:
            self.plan = replace(self.plan, labels=first.labels, threshold=first.threshold)
        inputs = self._images.becoming(self.signature.inputs) if self._images else self.signature.inputs
        self._binding = Binding.of(self.signature, inputs, first)
