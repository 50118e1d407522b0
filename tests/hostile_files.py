"""Hostile files, read one after the other by one process: what became of each, and that none of them ran anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol


class Hostile(Protocol):
    """content: of a file; name: of what is hostile in it."""

    @property
    def name(self) -> str: ...
    @property
    def content(self) -> bytes: ...


def read_all(files: Sequence[Hostile], reader: str, memory: int, folder: Path, canary: Path) -> dict[str, list[Any]]:
    """By the name of the file: read, refused or crashed; the text; seconds.

    reader: a program that takes a folder and `memory` in bytes, and prints a JSON line for each file; canary: what a file that
    runs would touch.
    """
    for index, each in enumerate(files):
        (folder / f"{index:03d}").write_bytes(each.content)
    done = subprocess.run(
        [sys.executable, "-c", reader, str(folder), str(memory)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "TENSIGN_CANARY": str(canary)},
        stdin=subprocess.DEVNULL,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(files), f"ended at {files[len(lines)].name} with {done.returncode}: {done.stderr[-2000:]}"
    assert not canary.exists()
    return {files[int(name)].name: rest for name, *rest in lines}
