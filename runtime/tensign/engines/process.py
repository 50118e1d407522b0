"""One incarnation of a worker, from spawn to its end: the server's side."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign import errors
from tensign.engines.arena import BrokenFrame
from tensign.engines.channel import Channel
from tensign.engines.environment import of_worker
from tensign.errors import DeadlineExceeded, EngineError, UnsupportedModel, WorkerDied
from tensign.form import Form
from tensign.signature import Arrays

ONLY = "cuda:0"  # as a process calls the only GPU it sees
TOO_OLD, NO_NUMPY = 113, 114  # statuses with which it ends before anything is loaded

# The worker's Python need not have tensign: this one's package is found by its place, and nothing else that lies beside it. The
# current directory, which may be the model's own, is taken off the path.
_BOOT = f"""
import sys
if sys.version_info < (3, 8):
    sys.exit({TOO_OLD})
sys.path[:] = [entry for entry in sys.path if entry]
import importlib.util
if importlib.util.find_spec("numpy") is None:
    sys.exit({NO_NUMPY})
place = sys.argv[1]
spec = importlib.util.spec_from_file_location("tensign", place + "/__init__.py", submodule_search_locations=[place])
package = importlib.util.module_from_spec(spec)
sys.modules["tensign"] = package
spec.loader.exec_module(package)
from tensign.engines.hosted import main
main(*sys.argv[2:])
"""


class Refused(Exception):
    """The worker lives, and says why it did not do what it was asked to: by the name of what was raised there, and its text."""

    def __init__(self, kind: str, text: str, trace: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind, self.text, self.trace = kind, text, trace


class Process:
    """warm: it has run a batch; reason: why it was ended, where it was."""

    def __init__(self, python: str, *, trust: bool, more: Mapping[str, str] | None = None, called: str = ONLY) -> None:
        """more: of its environment; called: what others call its cuda:0. Raises UnsupportedModel where that is no Python."""
        ours, its = socket.socketpair()
        there, back = memory("tensign-to-worker"), memory("tensign-from-worker")
        package = str(Path(errors.__file__).parent)
        try:
            self._popen = subprocess.Popen(
                [python, "-W", "ignore", "-c", _BOOT, package, str(its.fileno()), str(there), str(back)],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a model prints is for the log
                pass_fds=(its.fileno(), there, back),
                process_group=0,  # a Ctrl-C is for the server, which then ends this one
                env=of_worker(os.environ, trust=trust, more=more),
            )
        except OSError as error:
            ours.close()
            os.close(there)
            os.close(back)
            raise UnsupportedModel(f"{python}: {error.strerror}") from None
        finally:
            its.close()
        self.pid, self._called = self._popen.pid, called
        self.warm = False
        self.reason = ""
        self._socket, self._channel = ours, Channel(ours, there, back)
        self._calling, self._ending = threading.Lock(), threading.Lock()
        self._ended = False

    def call(self, header: Mapping[str, Any], arrays: Arrays, until: float) -> Answer:
        """One message and its answer, whose arrays are copies.

        Raises WorkerDied, DeadlineExceeded, Refused; TooLarge and EngineError for what cannot be sent.
        """
        with self._calling:
            if self._ended:  # its descriptors may be somebody else's by now
                raise WorkerDied("the model's process ended")
            try:
                packed = self._channel.pack(header, arrays)
            except (TypeError, ValueError, RecursionError, OSError) as error:
                raise EngineError(f"what the model should be given cannot cross to its process: {error}") from None
            try:
                self._channel.transmit(packed)
                said, outputs = self._channel.receive(until)
                if "error" not in said:
                    copies = {name: array if array.dtype == object else np.array(array) for name, array in outputs.items()}
                    return Answer(said, copies, _form(said), int(said["resident"]))
                text, trace = (str(said.get(part)).replace(ONLY, self._called) for part in ("text", "trace"))
                kind = str(said["error"])[:64]
            except TimeoutError:
                raise DeadlineExceeded("the model did not answer in time") from None
            except (EOFError, OSError):
                raise WorkerDied("the model's process ended") from None
            except (BrokenFrame, ValueError, TypeError, KeyError, IndexError) as error:
                raise WorkerDied(f"the model's process sent what is no answer: {type(error).__name__}") from None
        raise Refused(kind, text, trace)

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


def memory(name: str) -> int:
    """A file in memory that can grow. The seal keeps anybody from making it smaller, which would kill whoever reads it."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return descriptor
