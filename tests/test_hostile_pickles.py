"""The hostile files, all of them: none runs anything, none crashes or exhausts the reader, each is refused with its reason or
read with the hostile part inert."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hostile_pickles
from conftest import CPU
from hostile_files import read_all
from hostile_pickles import (
    Hostile,
    call,
    dict_of,
    learner,
    linear,
    made,
    mlmodel,
    module,
    named,
    number,
    parameter,
    pipeline,
    storage,
    tensor,
    text,
    tuple_of,
    zipped,
)
from tensign.conversion import convert
from tensign.errors import UnsupportedModel, UntrustedModel
from tensign.model import Model

FILES = hostile_pickles.files()
MEMORY = 3 << 30  # bytes of private data that reading may take, torch included
SECONDS = 20  # of a core, for one file

READER = """
import json, resource, sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[2]),) * 2)
import torch
from tensign.errors import TensignError
from tensign_converters.learners.exported import read_export
from tensign_converters.learners.heads import head
from tensign_converters.learners.transforms import preprocessing
for file in sorted(Path(sys.argv[1]).iterdir()):
    start = time.process_time()
    try:
        recording = read_export(file, {})
        preprocessing(recording.types[0], recording.item_transforms, recording.batch_transforms, (8, 8))
        head(recording, tuple(recording.network(torch.zeros(1, 2)).shape))
        said = ["read", ""]
    except TensignError as error:
        said = ["refused", str(error)]
    except BaseException as error:
        said = ["crashed", f"{type(error).__name__}: {error}"]
    print(json.dumps([file.name, *said, time.process_time() - start]), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """By the name of the file: read, refused or crashed; the text; seconds. All are read by one process."""
    folder, canary = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("canary") / "ran"
    return read_all(FILES, READER, MEMORY, folder, canary)


@pytest.mark.parametrize("hostile", FILES, ids=[each.name for each in FILES])
def test_a_hostile_file_is_refused_with_the_reason_or_read_without_its_code(
    hostile: Hostile, outcomes: dict[str, list[Any]]
) -> None:
    outcome, said, seconds = outcomes[hostile.name]
    assert outcome == ("refused" if hostile.says else "read"), said
    assert hostile.says in said
    assert len(said.encode()) <= 1000 and hostile_pickles.TOUCH not in said
    assert seconds <= SECONDS


def test_there_are_enough() -> None:
    assert len(FILES) >= 60


CONTROLS = ("os.system", "builtins.exec", "a getattr chain", "functools.partial", "pickle.loads in pickle", "INST")


@pytest.mark.parametrize("name", CONTROLS)
def test_the_standard_unpickler_runs_them(name: str, tmp_path: Path) -> None:
    """Else the table would show nothing."""
    content = next(each.content for each in FILES if each.name == f"call: {name}")
    (tmp_path / "file").write_bytes(content)
    program = "import sys, zipfile, pickle; pickle.loads(zipfile.ZipFile(sys.argv[1]).read('model/data.pkl'))"
    variables = {**os.environ, "TENSIGN_CANARY": str(tmp_path / "ran")}
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "file")], env=variables, capture_output=True)
    assert (tmp_path / "ran").exists()


def test_a_conversion_from_end_to_end_runs_nothing_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A good network with every hostile thing around it that data may carry: converted, and nothing ran."""
    monkeypatch.setenv("PYTHONTENSIGN_CANARY", str(tmp_path / "ran"))  # the confined process keeps what begins with PYTHON
    run = call(named("builtins", "exec"), text(hostile_pickles.TOUCH.replace("TENSIGN", "PYTHONTENSIGN")))
    hook = call(named("collections", "OrderedDict"), hostile_pickles.list_of(hostile_pickles.tuple_of(text("1"), run)))
    weight = tensor(tuple_of(number(2), number(3)), tuple_of(number(3), number(1)), of=storage(count=6))
    parameters = dict_of({"weight": parameter(weight), "bias": b"N"})
    parts = {
        "0": module("torch.nn.modules.pooling", "AdaptiveAvgPool2d", output_size=number(1)),
        "1": module("torch.nn.modules.flatten", "Flatten"),
        "2": linear(_parameters=parameters, _state_dict_hooks=hook, extra=run, __call__=named("os", "system"), __class__=run),
    }
    network = module("torch.nn.modules.container", "Sequential", _modules=dict_of(parts))
    resize = {"size": tuple_of(number(8), number(8)), "method": text("squish"), "pad_mode": text("zeros"), "mode": number(2)}
    item = pipeline(made("fastai.vision.augment", "Resize", dict_of({**resize, "before_call": run})))
    body = learner(network, item=item, extra=run) + dict_of({"__setstate__": run, "__reduce__": run}) + b"b"
    beside = ("torch.py", hostile_pickles.TOUCH.encode())
    weights = np.array([[1, 0, 0], [0, 1, -1]], np.float32)
    source = mlmodel(tmp_path / "source", zipped(body, beside, storages=(weights.tobytes(),)))
    convert(source, tmp_path / "out", trust=False)
    answer = Model.load(tmp_path / "out", CPU)
    pixels = np.full((1, 8, 8, 3), (255, 0, 51), np.uint8)
    expected = np.exp(logits := weights @ [1, 0, 0.2]) / np.exp(logits).sum()
    np.testing.assert_allclose(answer.infer({"input-0": pixels})["output-0"][0], expected, atol=1e-6)
    answer.close()
    assert not (tmp_path / "ran").exists()


def test_what_needs_trust_is_named_with_its_place_and_the_way_out(tmp_path: Path) -> None:
    network = module("torch.nn.modules.container", "Sequential", _modules=dict_of({"1": module("mymodels", "Head")}))
    source = mlmodel(tmp_path / "source", zipped(learner(network)))
    with pytest.raises(
        UntrustedModel, match=r'"1" is of class mymodels\.Head, which is not one that is rebuilt.*--trust loads it'
    ):
        convert(source, tmp_path / "out", trust=False)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


ESCAPES = """
import os, socket, subprocess
def held(act):
    try:
        act()
    except OSError as error:
        return type(error).__name__
    return "GRANTED"
acts = {
    "network": lambda: socket.create_connection(("127.0.0.1", %(port)d), 2),
    "write": lambda: open(%(file)r, "w"),
    "read": lambda: open(%(secret)r),
    "program": lambda: subprocess.run(["/bin/true"]),
    "kill": lambda: os.kill(%(process)d, 0),
}
raise RuntimeError(" ".join(f"{name}={held(act)}" for name, act in acts.items()))
"""


def test_a_trusted_file_runs_shut_in(tmp_path: Path) -> None:
    """What the original's code tries comes back as the text of its error."""
    import socket

    secret = tmp_path / "secret"
    secret.write_text("mine")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        places = {"port": listening.getsockname()[1], "file": str(tmp_path / "written"), "secret": str(secret)}
        program = ESCAPES % {**places, "process": os.getpid()}
        source = mlmodel(tmp_path / "source", zipped(call(named("builtins", "exec"), text(program), dict_of({}))))
        with pytest.raises(UnsupportedModel) as refused:
            convert(source, tmp_path / "out", trust=True)
    said = str(refused.value)
    assert "RuntimeError" in said and "GRANTED" not in said
    for name in ("network", "write", "read", "program", "kill"):
        assert f"{name}=" in said
    assert not (tmp_path / "written").exists()


def test_what_outlives_the_conversion_is_ended(tmp_path: Path) -> None:
    """A process that it leaves behind holds the pipe to which this test listens; it closes with the namespace."""
    program = "import os\nif os.fork() == 0:\n os.setsid()\n import time\n time.sleep(600)\nraise RuntimeError('left one')"
    source = mlmodel(tmp_path / "source", zipped(call(named("builtins", "exec"), text(program), dict_of({}))))
    with pytest.raises(UnsupportedModel, match="left one"):
        convert(source, tmp_path / "out", trust=True)


DRAWS = """
import os
from tensign.proof import record, report
write = record.Record.write
def linked(self, directory, answers):
    write(self, directory, answers)
    try:
        os.symlink(%(theirs)r, directory / "conversion.html")
    except OSError as error:
        os.environ["SAID"] = type(error).__name__
record.Record.write = linked
report.page = lambda *_, name, **__: f"{name}: drawn inside, link: {os.environ.get('SAID', 'GRANTED')}"
"""


def test_all_that_is_written_of_a_trusted_file_is_written_shut_in(tmp_path: Path) -> None:
    """The model's code laid a link where the page would be drawn, and holds whoever draws it."""
    pytest.importorskip("matplotlib")
    theirs = tmp_path / "theirs"
    theirs.write_text("theirs")
    run = call(named("builtins", "exec"), text(DRAWS % {"theirs": str(theirs)}), dict_of({}))
    weight = parameter(tensor(tuple_of(number(2), number(3)), tuple_of(number(3), number(1)), of=storage(count=6)))
    layers = {
        "0": module("torch.nn.modules.pooling", "AdaptiveAvgPool2d", output_size=number(1)),
        "1": module("torch.nn.modules.flatten", "Flatten"),
        "2": linear(_parameters=dict_of({"weight": weight, "bias": b"N"})),
    }
    network = module("torch.nn.modules.container", "Sequential", _modules=dict_of(layers))
    weights = np.array([[1, 0, 0], [0, 1, -1]], np.float32)
    source = mlmodel(tmp_path / "source", zipped(run + b"0" + learner(network), storages=(weights.tobytes(),)))
    convert(source, tmp_path / "out", trust=True, crops=2)
    assert (tmp_path / "out" / "conversion.html").read_text() == "out: drawn inside, link: PermissionError"
    assert theirs.read_text() == "theirs"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_conversion_that_is_ended_leaves_no_file_and_no_process(number: signal.Signals, tmp_path: Path) -> None:
    """The model's own code would run for ten minutes. The pipe of stderr closes once the last process is gone."""
    program = "import sys, time; print('running', file=sys.stderr, flush=True); time.sleep(600)"
    content = zipped(call(named("builtins", "exec"), text(program), dict_of({})))
    source = mlmodel(tmp_path / "source", content)
    command = [sys.executable, "-m", "tensign", "convert", str(source), str(tmp_path / "out"), "--trust"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert "running\n" in iter(running.stderr.readline, "")
        running.send_signal(number)
        running.stderr.read()
    assert running.returncode == (143 if number == signal.SIGTERM else -number)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
