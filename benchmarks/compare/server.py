"""A rival as processes of its own: its environment, its start, its first right answer, what it uses, its end."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from compare.loads import Load
from compare.rival import HERE, INSIDE, Rival, Stage
from compare.wire import ask

_MAKING_S, _READY_S, _ANSWER_S, _ENDING_S, _QUIET_S = 1200, 120, 30, 15, 60


class Unavailable(Exception):
    """Why a rival takes no part, in one line."""


@dataclass(frozen=True, slots=True)
class Server:
    """One that answers rightly."""

    rival: Rival
    address: str
    ready_s: float  # from its start to its first right answer
    pid: int

    def cpu_s(self) -> float:
        """What all its processes have used."""
        ticks = sum(int(stat[11]) + int(stat[12]) for stat in _members(self.pid).values())
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self) -> int:
        """Proportional set size of all its processes."""
        found = 0
        for pid in _members(self.pid):
            with contextlib.suppress(OSError):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                found += 1024 * int(re.findall(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[0])
        return found

    def settle(self) -> None:
        """Waits until it has done what the load left behind. Raises Unavailable where that takes longer than a minute."""
        until = time.monotonic() + _QUIET_S
        before, now = -1.0, self.cpu_s()
        while now - before > 0.01:
            if time.monotonic() > until:
                raise Unavailable(f"was still busy {_QUIET_S} s after the load ended")
            time.sleep(0.2)
            before, now = now, self.cpu_s()


def environment(rival: Rival) -> Path:
    """Its Python, made at first. Raises Unavailable."""
    if not rival.environment:
        return Path(sys.executable)
    return made(rival.environment, rival.python) / "bin" / "python"


def made(name: str, python: str = "python3") -> Path:
    """The folder of the environment of requirements/NAME.txt. Raises Unavailable."""
    if shutil.which(python) is None:
        raise Unavailable(f"there is no {python}")
    try:
        command = [str(HERE / "environment"), name, python]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_MAKING_S)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"its environment was not made within {_MAKING_S} s") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        raise Unavailable(f"its environment cannot be made: {said[-1][:200] if said else done.returncode}")
    return Path(done.stdout.strip())


@contextlib.contextmanager
def running(rival: Rival, load: Load, folder: Path, cpus: Sequence[int]) -> Iterator[Server]:
    """Starts it on those CPUs with the model of a load, and ends it. Raises Unavailable, with the place of its log."""
    python = environment(rival)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stage = Stage(python, folder, load.path.resolve(), load.encoded, free_ports(4), len(cpus))
    try:
        command = ["taskset", "-c", ",".join(map(str, cpus)), *rival.command(stage)]
    except Exception as error:  # whatever is not where it was in the versions that are pinned
        raise Unavailable(f"cannot be laid out: {type(error).__name__}: {error}") from None
    started = time.monotonic()
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=_variables(stage), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        address = f"127.0.0.1:{stage.ports[0]}"
        _await_answer(rival, load, address, process, folder / "log")
        yield Server(rival, address, time.monotonic() - started, process.pid)
    finally:
        _end(process)


def _variables(stage: Stage) -> dict[str, str]:
    return {
        **os.environ,
        "MODEL_THREADS": str(stage.threads),
        "OMP_NUM_THREADS": str(stage.threads),
        "PYTHONPATH": str(INSIDE),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }


def _await_answer(rival: Rival, load: Load, address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    request, until, said = rival.request(load), time.monotonic() + _READY_S, ""
    while time.monotonic() < until:
        if process.poll() is not None:
            raise Unavailable(f"ended with {process.returncode} before it was ready: {log}")
        try:
            body = ask(address, request, _ANSWER_S)
            break
        except (OSError, http.client.HTTPException, grpc.RpcError) as error:
            said = error.details() if isinstance(error, grpc.Call) else str(error)
            time.sleep(0.1)
    else:
        raise Unavailable(f"did not answer within {_READY_S} s: {str(said)[:200]}: {log}")
    check(rival, load, body)


def check(rival: Rival, load: Load, body: bytes) -> None:
    """Raises Unavailable where an answer is not what ONNX Runtime gives in this process."""
    if not rival.computes:
        return
    expected = load.expected()
    try:
        answer = rival.answer(body)
    except Exception as error:  # of whatever parses what is no answer
        raise Unavailable(f"what it answers cannot be read: {type(error).__name__}: {str(error)[:200]}") from None
    if answer.size != expected.size or not np.allclose(answer.reshape(expected.shape), expected, rtol=1e-3, atol=1e-4):
        raise Unavailable(f"answers {answer.shape} {answer.ravel()[:3]}, expected {expected.shape} {expected.ravel()[:3]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """By its own way out; what is left of its session then, by force."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_ENDING_S)
    for pid in _members(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    while _members(process.pid):  # what was killed ends when it next runs
        time.sleep(0.01)


def _members(session: int) -> dict[int, list[str]]:
    """{pid: what /proc/PID/stat tells behind the program's name} of every living process of a session."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(stat[3]) == session and stat[0] != "Z":
                    found[int(entry.name)] = stat
    return found


def free_ports(count: int) -> tuple[int, ...]:
    """That many of loopback."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return tuple(each.getsockname()[1] for each in sockets)
