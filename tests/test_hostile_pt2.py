"""The hostile exported programs, all of them: none runs anything, none crashes or exhausts the reader, each is refused with
its reason or read with the hostile part inert."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hostile_pt2
from hostile_files import read_all
from hostile_pickles import TOUCH, Hostile

FILES = hostile_pt2.files()
MEMORY = 3 << 30  # bytes of private data that reading may take, torch included
SECONDS = 20  # of a core, for one file

READER = """
import json, resource, sys, time
from pathlib import Path
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[2]),) * 2)
import torch
from tensign.errors import TensignError
from tensign_converters.networks.network import read_network
for file in sorted(Path(sys.argv[1]).iterdir()):
    start = time.process_time()
    try:
        network = read_network(file, trust=False)
        assert network.module(torch.ones(3, 2)).tolist() == [[0.0, 2.5]] * 3
        said = ["read", ""]
    except TensignError as error:
        said = ["refused", str(error)]
    except BaseException as error:
        said = ["crashed", f"{type(error).__name__}: {error}"]
    print(json.dumps([file.name, *said, time.process_time() - start]), flush=True)
"""

LOADER = """
import contextlib, io, os, sys
from pathlib import Path
import torch
canary = Path(os.environ["TENSIGN_CANARY"])
for file in sys.argv[1:]:
    with contextlib.suppress(Exception):
        torch.export.load(io.BytesIO(Path(file).read_bytes()))
    print(canary.exists())
    canary.unlink(missing_ok=True)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """By the name of the file: read, refused or crashed; the text; seconds. All are read by one process."""
    folder, canary = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("canary") / "ran"
    return read_all(FILES, READER, MEMORY, folder, canary)


@pytest.mark.parametrize("hostile", FILES, ids=[each.name for each in FILES])
def test_a_hostile_program_is_refused_with_the_reason_or_read_without_its_code(
    hostile: Hostile, outcomes: dict[str, list[Any]]
) -> None:
    outcome, said, seconds = outcomes[hostile.name]
    assert outcome == ("refused" if hostile.says else "read"), said
    assert hostile.says in said
    assert len(said.encode()) <= 1000 and TOUCH not in said
    assert seconds <= SECONDS


def test_there_are_enough() -> None:
    assert len(FILES) >= 60


CONTROLS = ("expression: a call", "payload: sample inputs", "payload: an opaque object", "payload: 2.7: constants")


def test_torch_itself_runs_them(tmp_path: Path) -> None:
    """Else the table would show nothing."""
    contents = {each.name: each.content for each in FILES}
    for index, name in enumerate(CONTROLS):
        (tmp_path / f"{index}.pt2").write_bytes(contents[name])
    command = [sys.executable, "-W", "ignore", "-c", LOADER, *map(str, sorted(tmp_path.iterdir()))]
    variables = {**os.environ, "TENSIGN_CANARY": str(tmp_path / "ran")}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["True"] * len(CONTROLS)
