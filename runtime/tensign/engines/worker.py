"""An engine in a process of its own: a model's code runs there, and what it does to that process is not done to the server.

The process is spawned by the Python that the model wants (process.py), tensors go through shared memory (channel.py), nothing
that comes back is unpickled. It is started again when it dies, when a batch takes longer than anybody waits, and when it has
grown too large.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign import errors
from tensign.engines import Engine
from tensign.engines.environment import VISIBLE
from tensign.engines.process import NO_NUMPY, ONLY, TOO_OLD, Answer, Process, Refused
from tensign.errors import DeadlineExceeded, EngineError, ModelFailed, ModelNotReady, TensignError, UnsupportedModel, WorkerDied
from tensign.form import Form
from tensign.signature import Arrays, TensorSpec

log = logging.getLogger(__name__)

_LOAD_S = 600.0  # a model that has not loaded by then will not
_LONGEST_S = 600.0  # of a run that nobody set a deadline
_PATIENCE = 10  # a run may take so many times what it took at warm-up, whatever its requests' deadlines,
_AT_LEAST_S = 1.0  # and this long: somebody in a hurry must not have the worker killed for others
_UNKNOWN_S = 30.0  # or this long where no batch has ever succeeded
_ATTEMPTS = 5  # to load, one after another, before it gives up
_PAUSE_S = 0.1  # before the second attempt, twice as long before each further one
_GROWTH = 2 << 30  # bytes beyond twice what it had after warm-up, before it is started afresh
_TRACES = 100  # that are remembered, so that each is logged once
ENGINE_CLASSES = {
    "onnx": "tensign.engines.onnx:OnnxEngine",
    "torch": "tensign.engines.torch:TorchEngine",
    "fastai": "tensign.engines.fastai:FastaiEngine",
    "sklearn": "tensign.engines.sklearn:SklearnEngine",
    "pyfunc": "tensign.engines.pyfunc:PyfuncEngine",
}
_LACKS = "ModuleNotFoundError"
# Errors that a worker may name.
_OF_LOADING = {"UnsupportedModel", "ParityFailed", "UntrustedModel", "ProviderUnavailable", "OutOfMemory"}
_TOLD = _OF_LOADING | {"EngineError", "ModelFailed"}


class Worker(Engine):
    """One engine, in one process at a time.

    engine: "module:Class" of what runs there; settings: its arguments, as JSON has them; python: the interpreter, "" for this
    one; more: of its environment. Where that names the one GPU it sees, the process calls it cuda:0, and the rest of the world
    what settings["device"] says. Safe to call from one thread at a time; close() from any.
    """

    def __init__(
        self,
        engine: str,
        settings: Mapping[str, Any],
        *,
        name: str = "model",
        python: str = "",
        growth: int = _GROWTH,
        more: Mapping[str, str] | None = None,
    ) -> None:
        self.device = str(settings.get("device", "cpu"))
        self._more, self._alone = more, VISIBLE in (more or {})
        self.inputs: tuple[TensorSpec, ...] = ()
        self.outputs: tuple[TensorSpec, ...] = ()
        self.form: Form | None = None
        self.labels: tuple[str, ...] = ()
        self.threshold: float | None = None
        self.restarts = 0
        self._engine, self._settings, self._python, self._name = engine, dict(settings), python or sys.executable, name
        self._growth = growth
        self._limit: int | None = None  # of memory; set once a batch has succeeded
        self._again: dict[int, tuple[dict[str, Any], Arrays]] = {}  # rows to what a new process is warmed with: order, a row
        self._cold_s: float | None = None  # what the first batch that succeeded took
        self._warmed: dict[int, float] = {}  # rows to seconds
        self._traces: set[str] = set()
        self._changed = threading.Condition()
        self._process: Process | None = None  # None while there is none that has loaded
        self._loading: Process | None = None
        self._loaded = False  # once, at least
        self._failure: TensignError | None = None
        self._closing = False
        self._keeper = threading.Thread(target=self._keep, name=f"tensign-keeper-{name}", daemon=True)

    @property
    def ready(self) -> bool:
        """False while there is no process that has loaded."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Of the process that runs now, None while it is being started."""
        process = self._process
        return process.pid if process else None

    def load(self) -> None:
        """Starts the process and waits until it has loaded. Raises UnsupportedModel, UntrustedModel, ProviderUnavailable."""
        self._keeper.start()
        with self._changed:
            self._changed.wait_for(lambda: self._process or self._failure or self._closing)
            if self._failure is not None:
                raise self._failure

    def warmup(self, batch: Arrays, params: Mapping[str, Any] | None = None) -> None:
        """Runs a made-up batch, and learns how long one of so many rows takes and how much memory is normal.

        The first one, or where each is compiled, captured or planned for, every one, is run again in every further process,
        before anybody's request is: so many of its first row.
        """
        began = time.monotonic()
        process = self._awaited(began + _LONGEST_S)
        order = {"do": "warmup", "params": dict(params or {})}
        answer = self._asked(process, order, batch, began + _LONGEST_S)
        self._warmed[_rows(batch)] = time.monotonic() - began
        self._learn(process, answer, began)
        self._limit = 2 * answer.resident + self._growth
        apart = answer.said.get("apart")
        self.apart = apart if isinstance(apart, float) else None
        if not self._again or self.device != "cpu" or self._settings.get("accelerator"):
            self._again[_rows(batch)] = order, {name: array[:1].copy() for name, array in batch.items()}

    def run(
        self, batch: Arrays, params: Mapping[str, Any] | None = None, deadline: float | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """{input: [B,...]} -> {output: [B,...]}.

        Raises ModelNotReady while there is no process and none comes up, WorkerDied where it ended, DeadlineExceeded where it
        was ended because nobody waits any longer, EngineError where the model failed, TooLarge for what cannot reach it.
        """
        began = time.monotonic()
        until = min(began + _LONGEST_S if deadline is None else deadline, began + _LONGEST_S)
        process = self._awaited(until)
        began = time.monotonic()
        until = max(until, began + self._patience(process, _rows(batch)))
        try:
            answer = self._asked(process, {"do": "run", "params": dict(params or {})}, batch, until)
        except DeadlineExceeded:
            took = time.monotonic() - began
            self._replace(process, f"a batch of {_rows(batch)} rows ran for {took:.1f} s, longer than anybody waits")
            raise
        except WorkerDied:
            self._replace(process, "in the middle of a batch")
            raise
        self.form = answer.form
        self._learn(process, answer, began)
        if self._limit is not None and answer.resident > self._limit:
            self._replace(process, f"it has grown to {answer.resident >> 20} MiB, of {self._limit >> 20} allowed")
        return answer.arrays

    def close(self) -> None:
        """Ends the process."""
        with self._changed:
            self._closing = True
            for process in (self._process, self._loading):
                if process is not None:
                    process.kill()
            self._changed.notify_all()
        if self._keeper.ident is not None:
            self._keeper.join(10)

    def _awaited(self, until: float) -> Process:
        """The process, once there is one. Raises ModelNotReady, or DeadlineExceeded where that takes too long."""
        with self._changed:
            there = self._changed.wait_for(
                lambda: self._process or self._failure or self._closing, max(until - time.monotonic(), 0)
            )
            if self._closing:
                raise ModelNotReady("the model is being closed")
            if self._failure is not None:
                raise ModelNotReady(f"the model's process does not start any more: {self._failure}")
            if not there:
                raise DeadlineExceeded("the model's process was not ready in time")
            assert self._process is not None
            return self._process

    def _patience(self, process: Process, rows: int) -> float:
        """Seconds that a batch may take, whatever its requests' deadlines."""
        if self._cold_s is None:
            return _UNKNOWN_S
        usual = self._warmed.get(rows, max(self._warmed.values(), default=self._cold_s))
        return _PATIENCE * (usual if process.warm else max(usual, self._cold_s)) + _AT_LEAST_S

    def _learn(self, process: Process, answer: Answer, began: float) -> None:
        process.warm = True
        if self._cold_s is None:
            self._cold_s = time.monotonic() - began
        if self._limit is None:
            self._limit = 2 * answer.resident + self._growth

    def _asked(self, process: Process, header: Mapping[str, Any], batch: Arrays, until: float) -> Answer:
        """Raises what `Process.call` raises, what the worker refused as an error of ours."""
        try:
            return process.call(header, batch, until)
        except Refused as refused:
            if refused.kind == "DeviceLost":  # which a new process may find again
                raise WorkerDied(refused.text) from None
            raise self._told(refused) from None

    def _told(self, refused: Refused) -> TensignError:
        """What a client may know. A traceback of the model's own code is logged, each once: it may come with every request."""
        if refused.kind in _TOLD:
            error: TensignError = getattr(errors, refused.kind)(refused.text)
            return error
        trace = "".join(letter for letter in refused.trace if letter == "\n" or letter.isprintable()).rstrip()
        if trace not in self._traces and len(self._traces) < _TRACES:
            self._traces.add(trace)
            log.error("%s: the model raised %s\n%s", self._name, refused.kind, trace)
        else:
            log.error("%s: the model raised %s again", self._name, refused.kind)
        return ModelFailed(f"the model raised {refused.kind}; the server's log has the details")

    def _replace(self, process: Process, reason: str) -> None:
        with self._changed:
            if self._process is process:
                self._process = None
        process.reason = reason
        process.kill()

    def _keep(self) -> None:
        """The keeper's thread: starts the process, waits for its end, starts another. It lives as long as any of them: the
        kernel ends a process whose starting *thread* has ended, as it is asked to.
        """
        ended: float | None = None
        while (process := self._started()) is not None:
            if ended is not None:
                log.info("%s: the worker %d is ready again after %.1f s", self._name, process.pid, time.monotonic() - ended)
            status = process.wait()
            with self._changed:
                self._process = None
                self._changed.notify_all()
            if self._closing:
                return
            ended = time.monotonic()
            self.restarts += 1
            why = f": {process.reason}" if process.reason else ""
            log.warning("%s: the worker %d %s%s; starting another", self._name, process.pid, _manner(status), why)

    def _started(self) -> Process | None:
        """A process that has loaded, and been warmed as the first one was; None where that failed too often, or for a
        reason that will not pass.
        """
        pause = _PAUSE_S
        for attempt in range(_ATTEMPTS):
            if attempt:
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, pause)
                pause *= 2
            if self._closing:
                return None
            process = None
            try:
                with self._changed:
                    if self._closing:
                        return None
                    trust, called = bool(self._settings.get("trust")), self.device if self._alone else ONLY
                    process = self._loading = Process(self._python, trust=trust, more=self._more, called=called)
                until = time.monotonic() + _LOAD_S
                settings = {**self._settings, "device": ONLY} if self._alone else self._settings
                said = process.call({"do": "load", "engine": self._engine, "settings": settings}, {}, until).said
                device, inputs, outputs = (
                    self.device if self._alone else str(said["device"]),
                    _specs(said["inputs"]),
                    _specs(said["outputs"]),
                )
                labels = tuple(str(label).encode(errors="replace").decode() for label in said["labels"])
                threshold = None if said["threshold"] is None else float(said["threshold"])
                for rows, (order, row) in list(self._again.items()):  # which the caller may add to
                    process.call(order, {name: np.repeat(array, rows, axis=0) for name, array in row.items()}, until)
                    process.warm = True
            except Exception as error:
                status = None
                if process is not None:
                    process.kill()
                    status = process.wait()
                failure = _load_failure(error, self._python, status)
                if not self._loaded or attempt == _ATTEMPTS - 1:  # what has never loaded is told at once
                    with self._changed:
                        self._failure, self.lost = failure, self._loaded
                        self._changed.notify_all()
                    if self._loaded and not self._closing:
                        log.error(
                            "%s: the worker did not load %d times in a row; giving up: %s", self._name, _ATTEMPTS, failure
                        )
                    return None
                log.warning("%s: the worker did not load: %s", self._name, failure)
                continue
            with self._changed:
                if self._closing:
                    process.kill()
                self.device, self.inputs, self.outputs = device, inputs, outputs
                self.labels, self.threshold = labels, threshold
                self._process, self._loaded = process, True
                self._changed.notify_all()
            return process
        return None


def _rows(batch: Arrays) -> int:
    return len(next(iter(batch.values())))


def _specs(listed: Any) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(str(name), np.dtype(dtype), tuple(map(int, shape))) for name, dtype, shape in listed)


def _manner(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"ended by signal {-status} ({signal.Signals(-status).name})"
    except ValueError:  # one without a name
        return f"ended by signal {-status}"


def _load_failure(error: Exception, python: str, status: int | None) -> TensignError:
    """status: with which the process ended, None where there was none."""
    if status == NO_NUMPY:
        return UnsupportedModel(f"--python {python}: that Python has no numpy; install it there")
    if status == TOO_OLD:
        return UnsupportedModel(f"--python {python}: that Python is older than 3.8")
    if isinstance(error, WorkerDied):
        how = "" if status is None else f" ({_manner(status)})"
        return UnsupportedModel(f"the process that should load it ended{how}; {python} says why on stderr")
    if isinstance(error, DeadlineExceeded):
        return UnsupportedModel(f"it did not load within {_LOAD_S:.0f} s")
    if isinstance(error, Refused) and error.kind in _OF_LOADING:
        refused: TensignError = getattr(errors, error.kind)(error.text)
        return refused
    if isinstance(error, Refused | EngineError):
        advice = f"; install it, or give --python PATH of one that has it (this was {python})" if _LACKS in str(error) else ""
        return UnsupportedModel(f"it does not load: {error}{advice}")
    if isinstance(error, TensignError):
        return error
    return UnsupportedModel(f"its process failed: {type(error).__name__}: {error}")
