"""Model = manifest + signature + preprocessing + batcher + engine: load, infer, close."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tensign.batcher import Batcher
from tensign.binding import bound
from tensign.buckets import Buckets, measure, powers_of_two
from tensign.ceiling import Ceiling
from tensign.config import ModelConfig
from tensign.decode import Pictures, pictures
from tensign.devicememory import DeviceArray
from tensign.engines import Engine
from tensign.errors import (
    DeadlineExceeded,
    EngineError,
    InvalidInput,
    ModelNotReady,
    QueueFull,
    TensignError,
    UndecodableImage,
    UnsupportedModel,
    UntrustedModel,
)
from tensign.example import example_row, made_up_row
from tensign.form import Form
from tensign.gpudecoding import GpuDecoding, gpu_decoding
from tensign.lane import Place
from tensign.ledger import Ledger
from tensign.metrics import Statistics
from tensign.placement import engines_of
from tensign.plan import ModelPlan
from tensign.request import Enforced, Formed, Outputs, Part, Request, joined
from tensign.signature import Arrays, Mode, Signature, Spec, TensorSpec
from tensign.slots import Slots
from tensign.turns import Share

T = TypeVar("T")

log = logging.getLogger(__name__)

_THREADS = len(os.sched_getaffinity(0))  # that decode and resize
_ANY_CODE = "pyfunc"  # whose answer to a row may depend on the others: it gets the rows of one request, and no more
_CHOOSY = ("sklearn", "pyfunc")  # engines of models that may well refuse a made-up row


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
    ) -> None:
        """Loads and warms the engines, one a device. Raises UnsupportedModel, ProviderUnavailable, EngineError."""
        self.plan = plan
        self.digest = plan.manifest.digest
        self.name, self.version, self.config = name, version, config
        self.statistics = Statistics()
        self._engines = tuple(engines)
        self._ledger = ledger or Ledger()
        try:
            with self._ledger.loading(name, self._engines) as self._holding:
                buckets = self._load()
            self.gpu_decoding: GpuDecoding | None = None
            if config.gpu_decoding and self.plan.image:
                self.gpu_decoding = gpu_decoding(self.device, threads=_THREADS, max_pixels=config.max_pixels)
        except BaseException:
            for engine in self._engines:
                engine.close()
            raise
        self._places = [
            Place(
                partial(self._run, engine),
                engine.lanes,
                engine.empty,
                partial(_ready, engine),
                engine.local,
                Share(engine.lanes),
            )
            for engine in self._engines
        ]
        self._batcher = Batcher(
            self._places,
            buckets,
            max_queue_rows=config.max_queue_rows,
            statistics=self.statistics,
        )
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
        devices = [(engine.device, place.share) for engine, place in zip(self._engines, self._places, strict=True)]
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
        return self._batcher.working and any(map(_ready, self._engines))

    @property
    def lost(self) -> bool:
        """True where nothing in this process can run it any more: its GPU is lost, and a new process may find it again."""
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
            if self._needs_pixels(enforced):
                self._pool.submit(self._preprocess, request, enforced)
            else:
                self._enqueue(request, enforced, enforced.params)
        except RuntimeError as error:  # the pool was shut down meanwhile, or the system has no thread left
            self._batcher.settle(request, ModelNotReady(f"cannot take the request up: {error}"))
        return request.future

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
        on_device = _on_device(inputs, self.rows_on)
        encoded = (self.plan.image,) if self.plan.image else ()
        arrays = self.signature.enforce_inputs(inputs, None, mode, encoded)
        if self.plan.image in on_device and self._needs_pixels(arrays):
            raise InvalidInput(
                f'input "{self.plan.image}": pictures of this size are resized by the host, which reads nothing on a device;'
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

    def _needs_pixels(self, arrays: Arrays) -> bool:
        if self.plan.image is None:
            return False
        pixels, preprocess = arrays[self.plan.image], self.plan.preprocess
        return pixels.dtype == object or (preprocess is not None and not preprocess.keeps(*pixels.shape[1:3]))

    def _preprocess(self, request: Request, enforced: Enforced) -> None:
        """Decodes and resizes before the request can share a batch: a bad picture fails alone."""
        if self._batcher.dropped(request):
            return
        started = time.perf_counter_ns()
        try:
            pixels = self._pixels(enforced)
            left_s = None if request.deadline is None else max(request.deadline - time.monotonic(), 0)
            self._decoded.hold(sum(map(_size, pixels.values())), request.future, left_s)
            self._enqueue(request, {**enforced, **pixels}, enforced.params)
        except Exception as error:
            self._batcher.settle(request, error)
        self.statistics.preprocess(time.perf_counter_ns() - started)

    def _pixels(self, arrays: Arrays) -> Outputs:
        preprocess, image, limit = self.plan.preprocess, self.plan.image, self.config.max_pixels
        decoder = self.gpu_decoding.pictures if self.gpu_decoding else pictures
        assert image is not None
        if preprocess is None:
            return {image: _decoded(list(arrays[image]), limit, decoder)}
        height, width = self._inputs[image].shape[1:3]
        if arrays[image].dtype != object:
            return {image: preprocess.arrays(arrays[image], max_pixels=limit)}
        images = list(arrays[image])
        return {image: preprocess.encoded(images, height=height, width=width, max_pixels=limit, decoder=decoder)}

    def _enqueue(self, request: Request, arrays: Arrays, params: Mapping[str, Any]) -> None:
        self._batcher.enqueue(request, self._to_network(arrays), params)

    def _to_network(self, arrays: Arrays) -> Outputs:
        """By the network's names; a column as [n,1] where it wants that."""
        specs = {name: self._inputs[name] for name in arrays}
        columnar = self.signature.columnar
        return {
            spec.name: arrays[name][:, None] if columnar and len(spec.shape) == 2 else arrays[name]
            for name, spec in specs.items()
        }

    def _run(self, engine: Engine, batch: Arrays, params: Mapping[str, Any], deadline: float | None = None) -> Outputs:
        rows = len(next(iter(batch.values())))
        answers = engine.run(batch, params, deadline)
        if self._outputs and not engine.outputs:  # it answers by the signature's names, as far as it could
            return Formed(self.signature.enforce_outputs(answers, rows), engine.form)
        named = {name: answers[spec.name] for name, spec in self._outputs.items()} if self._outputs else answers
        columns = {spec.name for spec in self.signature.outputs if not isinstance(spec, TensorSpec)}
        named = {name: array[:, 0] if name in columns and array.shape[1:] == (1,) else array for name, array in named.items()}
        return Formed(self.signature.enforce_outputs(named, rows), engine.form)

    def _network_inputs(self) -> tuple[Spec, ...]:
        """The signature's inputs as they are once pictures are preprocessed."""
        preprocess = self.plan.preprocess
        if preprocess is None:
            return self.signature.inputs
        return tuple(
            replace(spec, shape=(spec.shape[0], *preprocess.size(*spec.shape[1:3]), *spec.shape[3:]))
            if isinstance(spec, TensorSpec) and spec.name == self.plan.image
            else spec
            for spec in self.signature.inputs
        )

    def _load(self) -> Buckets:
        for engine in self._engines:
            engine.load()
        first = self._engines[0]
        if first.labels and not self.plan.labels:
            self.plan = replace(self.plan, labels=first.labels, threshold=first.threshold)
        self._inputs = bound("input", self._network_inputs(), first.inputs)  # signature's name -> what the network gets
        self._outputs = bound("output", self.signature.outputs, first.outputs)
        return self._warm_up()

    def _warm_up(self) -> Buckets:
        """Times every bucket on the way that requests take: gathered by the batcher, run, checked against the signature."""
        fixed = next(iter(self._inputs.values())).shape[0]
        whole = self.plan.choice.engine == _ANY_CODE
        candidates = (1,) if whole else powers_of_two(self.config.max_batch_size) if fixed == -1 else (fixed,)
        params = self.signature.enforce_params(None)
        saved = example_row(self.plan.manifest, self.signature) if self.plan.preprocess is None else None
        made_up = {spec.name: made_up_row(spec, self._inputs[spec.name].shape) for spec in self.signature.inputs}
        row = Request.of(self._to_network(saved or made_up))
        first, *others = self._engines
        slots = Slots(first.empty)

        def gathered(rows: int) -> Outputs:
            return slots.gather([Part(row, 0, 1)] * rows, rows)

        try:
            measured = measure(
                lambda rows: first.warmup(gathered(rows), params),
                lambda rows: self._run(first, gathered(rows), params),
                candidates,
            )
            for engine in others:
                for rows in measured.rows:
                    engine.warmup(gathered(rows), params)
            return Buckets((self.config.max_queue_rows,), measured.seconds, whole) if whole else measured
        except EngineError as error:
            if saved is None and self.plan.choice.engine in _CHOOSY:
                log.warning(
                    "%s: fails on made-up rows, so its batches are not measured; log it with input_example= (%s)",
                    self.name,
                    error,
                )
                sizes = (self.config.max_queue_rows,) if whole else candidates
                return Buckets(sizes, tuple(map(float, candidates)), whole, measured=False)
            raise
        except TensignError:
            raise
        except Exception as error:  # whatever the engine's library raises
            made_up_of = ", ".join(f'"{spec.name}" {spec}' for spec in self._inputs.values())
            reason = " ".join(str(error).split())[:300]
            raise UnsupportedModel(f"the network fails on made-up rows of {made_up_of}: {reason}") from error


def _decoded(images: list[bytes], max_pixels: int, decoder: Pictures) -> npt.NDArray[Any]:
    """n encoded images -> object array [n] of uint8 [H,W,3], each of its own size. Raises UndecodableImage: names the row."""
    pixels = np.empty(len(images), object)
    decoded = decoder(images, max_pixels=max_pixels)
    for row in range(len(images)):
        try:
            pixels[row] = np.asarray(next(decoded))
        except UndecodableImage as error:
            raise UndecodableImage(f"row {row}: {error}") from None
    return pixels


def _on_device(inputs: Any, device: str) -> list[str]:
    """Names of the inputs that lie on a device. Raises InvalidInput where it is not that one, "" being none."""
    named = inputs.items() if isinstance(inputs, Mapping) else ()
    found = {str(name): array for name, array in named if isinstance(array, DeviceArray)}
    for name, array in found.items():
        if array.device != device:
            raise InvalidInput(
                f'input "{name[:64]}": lies on {array.device}; this model takes rows from {device or "the host"} alone'
            )
    return list(found)


def _size(array: npt.NDArray[Any]) -> int:
    return sum(item.nbytes for item in array) if array.dtype == object else array.nbytes


def _ready(engine: Engine) -> bool:
    return engine.ready
