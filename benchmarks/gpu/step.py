"""One step of the campaign: cells, measured one after another, in a process of its own that ends when its time is over."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Document = dict[str, Any]
Cell = tuple[str, Callable[[], Any]]  # what it is called, and what measures it: something for JSON, or Absent

_GRACE_S = 5.0  # beyond its budget, for a cell that was begun in time
_RUNNING = "was running when the step's time was over"
OVER = "the step's time was over"


class Absent(Exception):
    """What a cell needs is not here: its text says what, and how to get it."""


@dataclass(frozen=True, slots=True)
class Task:
    """device: "cpu" or "cuda:N"; until: when its time is over, on time.monotonic(); models: the folder that the step
    `networks` fills."""

    device: str
    until: float
    models: Path

    @property
    def left_s(self) -> float:
        return self.until - time.monotonic()

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def index(self) -> int:
        """Of the GPU."""
        return int(self.device.partition(":")[2] or 0)


def fill(cells: Iterable[Cell], until: float, keep: Callable[[Document], None]) -> Document:
    """Measures them in turn, none begun after `until`: {name: figures, {"skipped": why} or {"failed": why}}.

    until: on time.monotonic(). keep is given what there is before and after each, the one that runs as failed: of a process
    that is killed it stays so.
    """
    found: Document = {}
    for name, measure in cells:
        if time.monotonic() > until:
            found[name] = {"skipped": OVER}
            keep(found)
            continue
        found[name] = {"failed": _RUNNING}
        keep(found)
        try:
            found[name] = measure()
        except Absent as reason:
            found[name] = {"skipped": str(reason)}
        except Exception as error:  # one figure less is no reason to lose the others
            found[name] = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        keep(found)
    return found


def outcome(command: list[str], file: Path, seconds: float) -> Document:
    """Runs a command that leaves its cells in `file`: {"seconds", "budget_s", "ended", "cells"}; ended: "" where it did so by
    itself. Whatever it left running in its session is ended with it."""
    file.unlink(missing_ok=True)
    began = time.monotonic()
    process = subprocess.Popen(command, start_new_session=True)
    try:
        status = process.wait(seconds + _GRACE_S)
        ended = "" if status == 0 else f"ended with status {status}"
    except subprocess.TimeoutExpired:
        ended = f"was ended after its {seconds:.0f} s"
    finally:
        _end(process.pid)
        process.wait()
    cells = json.loads(file.read_text()) if file.exists() else {}
    return {"seconds": round(time.monotonic() - began, 1), "budget_s": round(seconds, 1), "ended": ended, "cells": cells}


def _end(session: int) -> None:
    """Kills until none lives, not even one that was being started; a process that the driver holds is left to it."""
    until = time.monotonic() + _GRACE_S
    while (living := list(_members(session))) and time.monotonic() < until:
        for pid in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _members(session: int) -> Iterator[int]:
    """The living processes of a session."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, of = entry.read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                yield int(entry.parent.name)


def writer(file: Path) -> Callable[[Document], None]:
    """Keeps what there is in a file, whole at every moment."""

    def keep(found: Document) -> None:
        part = file.with_suffix(".part")
        part.write_text(json.dumps(found))
        part.replace(file)

    return keep
