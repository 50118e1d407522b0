"""An engine in a process of its own: a model's code runs there, and what it does to that process is not done to the server.

The process is spawned by the Python that the model wants, tensors go through shared memory (frames.py), nothing that comes back
is unpickled. It is started again when it dies, when a batch takes longer than anybody waits, and when it has grown too large.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign import errors
from tensign.engines.frames import BrokenFrame, Channel
from tensign.errors import DeadlineExceeded, EngineError, ModelFailed, ModelNotReady, TensignError, UnsupportedModel, WorkerDied
from tensign.form import Form
from tensign.signature import Arrays, TensorSpec

log = logging.getLogger(__name__)

_LOAD_S = 600.0  # a model that has not loaded by then will not
_LONGEST_S = 600.0  # of a run that nobody set a deadline
_PATIENCE = 10  # a run may take so many times what it took at warm-up, whatever its requests' deadlines,
_AT_LEAST_S = 1.0  # and this long: somebody in a hurry must not have the worker killed for others
_ATTEMPTS = 5  # to load, one after another, before it gives up
_PAUSE_S = 0.1  # before the second attempt, twice as long before each further one
_GROWTH = 2 << 30  # bytes beyond twice what it had after warm-up, before it is started afresh
ENGINE_CLASSES = {
    "torch": "tensign.engines.torch:TorchEngine",
    "fastai": "tensign.engines.fastai:FastaiEngine",
    "sklearn": "tensign.engines.sklearn:SklearnEngine",
    "pyfunc": "tensign.engines.pyfunc:PyfuncEngine",
}
_LACKS = "ModuleNotFoundError"
# Errors that a worker may name.
_TOLD = {"UnsupportedModel", "UntrustedModel", "ProviderUnavailable", "EngineError", "ModelFailed"}

# The worker's Python need not have tensign: this one's package is found by its place, and nothing else that lies beside it. The
# current directory, which may be the model's own, is taken off the path.
_BOOT = """
import sys
sys.path[:] = [entry for entry in sys.path if entry]
import importlib.util
place = sys.argv[1]
spec = importlib.util.spec_from_file_location("tensign", place + "/__init__.py", submodule_search_locations=[place])
package = importlib.util.module_from_spec(spec)
sys.modules["tensign"] = package
spec.loader.exec_module(package)
from tensign.engines.process import main
main(*sys.argv[2:])
"""


class Worker:
    """One engine, in one process at a time.

    engine: "module:Class" of what runs there; settings: its arguments, as JSON has them; python: the interpreter, "" for this
    one. Safe to call from one thread at a time; close() from any.
    """

    def __init__(
        self, engine: str, settings: Mapping[str, Any], *, name: str = "model", python: str = "", growth: int = _GROWTH
    ) -> None:
        self.device = str(settings.get("device", "cpu"))
        self.inputs: tuple[TensorSpec, ...] = ()
        self.outputs: tuple[TensorSpec, ...] = ()
        self.form: Form | None = None
        self.labels: tuple[str, ...] = ()
        self.threshold: float | None = None
        self.restarts = 0
        self._engine, self._settings, self._python, self._name = engine, dict(settings), python or sys.executable, name
        self._growth = growth
        self._limit: int | None = None  # of memory; set once it is warmed
        self._warmed: dict[int, float] = {}  # rows to seconds
        self._changed = threading.Condition()
        self._process: _Process | None = None  # None while there is none that has loaded
        self._loading: _Process | None = None
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
        """Runs a made-up batch, and learns how long one of so many rows takes and how much memory is normal."""
        began = time.monotonic()
        process = self._awaited(began + _LONGEST_S)
        answer = process.call({"do": "warmup", "params": dict(params or {})}, batch, began + _LONGEST_S)
        self._warmed[_rows(batch)] = time.monotonic() - began
        self._limit = 2 * answer.resident + self._growth

    def run(
        self, batch: Arrays, params: Mapping[str, Any] | None = None, deadline: float | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """{input: [B,...]} -> {output: [B,...]}.

        Raises ModelNotReady while there is no process and none comes up, WorkerDied where it ended, DeadlineExceeded where it
        was ended because nobody waits any longer, EngineError where the model failed.
        """
        began = time.monotonic()
        until = min(began + _LONGEST_S if deadline is None else deadline, began + _LONGEST_S)
        process = self._awaited(until)
        usual = self._warmed.get(_rows(batch), max(self._warmed.values(), default=0.0))
        until = max(until, time.monotonic() + _PATIENCE * usual + _AT_LEAST_S)
        try:
            answer = process.call({"do": "run", "params": dict(params or {})}, batch, until)
        except DeadlineExceeded:
            took = time.monotonic() - began
            self._replace(process, f"a batch of {_rows(batch)} rows ran for {took:.1f} s, longer than anybody waits")
            raise
        except WorkerDied:
            self._replace(process, "it ended in the middle of a batch")
            raise
        self.form = answer.form
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

    def _awaited(self, until: float) -> _Process:
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

    def _replace(self, process: _Process, reason: str) -> None:
        with self._changed:
            if self._closing:
                return
            if self._process is process:
                self._process = None
        log.warning("%s: the worker %d is started again: %s", self._name, process.pid, reason)
        process.kill()

    def _keep(self) -> None:
        """The keeper's thread: starts the process, waits for its end, starts another. It lives as long as any of them: the
        kernel ends a process whose starting *thread* has ended, as it is asked to.
        """
        while (process := self._started()) is not None:
            status = process.wait()
            with self._changed:
                unasked = self._process is process
                self._process = None
            if self._closing:
                return
            self.restarts += 1
            if unasked:
                log.warning("%s: the worker %d ended with status %d", self._name, process.pid, status)

    def _started(self) -> _Process | None:
        """A process that has loaded; None where that failed too often, or for a reason that will not pass."""
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
                    process = self._loading = _Process(self._python)
                order = {"do": "load", "engine": self._engine, "settings": self._settings}
                said = process.call(order, {}, time.monotonic() + _LOAD_S).said
                device, inputs, outputs = str(said["device"]), _specs(said["inputs"]), _specs(said["outputs"])
                labels = tuple(str(label).encode(errors="replace").decode() for label in said["labels"])
                threshold = None if said["threshold"] is None else float(said["threshold"])
            except Exception as error:
                failure = _load_failure(error, self._python)
                if process is not None:
                    process.kill()
                    process.wait()
                first = not self._warmed  # what has never loaded is told at once
                if first or attempt == _ATTEMPTS - 1:
                    with self._changed:
                        self._failure = failure
                        self._changed.notify_all()
                    if not first:
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
                self._process = process
                self._changed.notify_all()
            return process
        return None


class _Process:
    """One incarnation, from spawn to its end."""

    def __init__(self, python: str) -> None:
        """Raises UnsupportedModel where that is no Python."""
        ours, its = socket.socketpair()
        there, back = _memory("tensign-to-worker"), _memory("tensign-from-worker")
        package = str(Path(errors.__file__).parent)
        try:
            self._popen = subprocess.Popen(
                [python, "-W", "ignore", "-c", _BOOT, package, str(its.fileno()), str(there), str(back)],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a model prints is for the log
                pass_fds=(its.fileno(), there, back),
                process_group=0,  # a Ctrl-C is for the server, which then ends this one
                env={**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true"},
            )
        except OSError as error:
            ours.close()
            os.close(there)
            os.close(back)
            raise UnsupportedModel(f"{python}: {error.strerror}") from None
        finally:
            its.close()
        self.pid = self._popen.pid
        self._socket, self._channel = ours, Channel(ours, there, back)
        self._calling, self._ending = threading.Lock(), threading.Lock()
        self._ended = False

    def call(self, header: Mapping[str, Any], arrays: Arrays, until: float) -> Answer:
        """One message and its answer, whose arrays are copies. Raises WorkerDied, DeadlineExceeded, what the worker says."""
        with self._calling:
            try:
                self._channel.send(header, arrays)
                said, outputs = self._channel.receive(until)
                if "error" not in said:
                    return Answer(
                        said, {name: np.array(array) for name, array in outputs.items()}, _form(said), int(said["resident"])
                    )
                kind, text = str(said["error"]), str(said.get("text"))
            except TimeoutError:
                raise DeadlineExceeded("the model did not answer in time") from None
            except (EOFError, OSError):
                raise WorkerDied("the model's process ended") from None
            except (BrokenFrame, ValueError, TypeError, KeyError, IndexError) as error:
                raise WorkerDied(f"the model's process sent what is no answer: {type(error).__name__}") from None
        if kind in _TOLD:
            raise getattr(errors, kind)(text)
        raise ModelFailed(f"the model raised {kind[:64]}; the server's log has the details") from RuntimeError(
            f"{kind}: {text}"
        )

    def wait(self) -> int:
        """Waits until it has ended, ends what it started, and gives its status back. For the keeper's thread."""
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with self._ending:
            self._kill()
            self._ended = True  # from here on the number may be another process's
            status = self._popen.wait()
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes whoever waits for an answer
        with self._calling:
            self._channel.close()
        return status

    def kill(self) -> None:
        """Ends it, and what it started."""
        with self._ending:
            if not self._ended:
                self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker said, its arrays, the form of the model's answer, and the bytes of memory it has."""

    said: Mapping[str, Any]
    arrays: dict[str, npt.NDArray[Any]]
    form: Form | None
    resident: int


def _form(said: Mapping[str, Any]) -> Form | None:
    form = said.get("form")
    return Form(str(form[0]), tuple(map(str, form[1]))) if form else None


def _memory(name: str) -> int:
    """A file in memory that can grow. The seal keeps a worker from making it smaller, which would kill whoever reads it."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return descriptor


def _rows(batch: Arrays) -> int:
    return len(next(iter(batch.values())))


def _specs(listed: Any) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(str(name), np.dtype(dtype), tuple(map(int, shape))) for name, dtype, shape in listed)


def _load_failure(error: Exception, python: str) -> TensignError:
    if isinstance(error, WorkerDied):
        return UnsupportedModel(f"the process that should load it ended; {python} says why on stderr")
    if isinstance(error, DeadlineExceeded):
        return UnsupportedModel(f"it did not load within {_LOAD_S:.0f} s")
    if isinstance(error, EngineError):
        advice = f"; install it, or give --python PATH of one that has it (this was {python})" if _LACKS in str(error) else ""
        return UnsupportedModel(f"it does not load: {error.__cause__ or error}{advice}")
    if isinstance(error, TensignError):
        return error
    return UnsupportedModel(f"its process failed: {type(error).__name__}: {error}")
