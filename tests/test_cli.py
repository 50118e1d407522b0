"""The command as a user types it: in a process of its own."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import SHARED
from hostile_pickles import learner, module, zipped
from hostile_pickles import mlmodel as hostile_mlmodel
from tensign import conversion
from tensign.client import Client
from tensign.demo import MODEL
from tensign.errors import ModelNotReady
from tensign.mlmodel import read_mlmodel
from tensign.version import __version__


def tensign(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tensign", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "COLUMNS": "200", **environment}
    )


def test_version_and_help() -> None:
    assert tensign("--version").stdout.strip() == f"tensign {__version__}"
    said = tensign("--help").stdout
    assert all(command in said for command in ("serve", "inspect", "predict", "convert", "demo", "bench"))


def test_inspect_as_json_tells_what_mlflow_wrote_and_what_we_derive() -> None:
    facts = json.loads(tensign("inspect", MODEL, "--json").stdout)
    assert facts["signature"] == "uint8 [-1,256,256,3] -> float32 [-1,1000]"
    assert facts["served"] == "as tensign, model.onnx on ONNX Runtime"
    assert facts["preprocess"]["steps"][0]["op"] == "resize"
    assert facts["parity"]["top1_agreement"] == 1.0


def test_inspect_for_people_names_the_signature() -> None:
    assert "uint8 [-1,256,256,3] -> float32 [-1,1000]" in tensign("inspect", MODEL).stdout


def test_inspect_of_a_model_we_do_not_serve_says_why() -> None:
    path = SHARED / "seeds" / "mlmodels" / "heart"
    if not path.is_dir():
        pytest.skip("shared/seeds/mlmodels/heart is not beside this checkout")
    done = tensign("inspect", path, "--json")
    assert done.returncode == 0
    assert "column-based" in json.loads(done.stdout)["served"]


def test_predict_prints_a_line_for_each_picture(pictures: list[Path]) -> None:
    done = tensign("predict", MODEL, *pictures, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"] for line in lines] == [str(picture) for picture in pictures]
    assert lines[3]["predictions"][0]["label"] == "espresso"
    assert "espresso 0.9" in tensign("predict", MODEL, pictures[3]).stdout


def test_predict_of_a_folder_is_resumed_and_lists_what_failed(pictures: list[Path], tmp_path: Path) -> None:
    folder, out = tmp_path / "photos" / "deep", tmp_path / "results.csv"
    folder.mkdir(parents=True)
    for picture in pictures:
        (folder / picture.name).write_bytes(picture.read_bytes())
    (folder / "bad.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not asked for")
    done = tensign("predict", MODEL, folder.parent, "--out", out)
    assert done.returncode == 1
    assert "bad.jpg: error: 10 bytes are no JPEG" in done.stderr and "1 failed" in done.stderr
    first = list(csv.DictReader(out.read_text().splitlines()))
    assert [Path(row["image"]).name for row in first] == sorted([*(picture.name for picture in pictures), "bad.jpg"])
    assert {row["model"] for row in first} == {f"efficientnet-lite0@{read_mlmodel(MODEL).digest[:12]}"}
    assert {row["label"] for row in first if "coffee" in row["image"]} == {"espresso"}
    (folder / "bad.jpg").write_bytes(pictures[3].read_bytes())
    again = tensign("predict", MODEL, f"{tmp_path}/**/*.[jpbw]*", "--out", out)
    assert (again.returncode, again.stderr) == (0, "")
    second = list(csv.DictReader(out.read_text().splitlines()))
    assert [row for row in first if not row["error"]] == second[:-1]
    assert second[-1]["label"] == "espresso"


def test_predict_by_a_server_gives_what_predict_in_process_gives(
    demo_address: str, pictures: list[Path], tmp_path: Path
) -> None:
    for target, name in ((demo_address, "served"), (MODEL, "here")):
        tensign("predict", target, pictures[0].parent, "--out", tmp_path / f"{name}.jsonl")
    served, here = (
        [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()] for name in ("served", "here")
    )
    assert [(row["image"], row["labels"], row["model"]) for row in served] == [
        (row["image"], row["labels"], row["model"]) for row in here
    ]
    for one, other in zip(served, here, strict=True):
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)


@pytest.mark.parametrize("given", ["nowhere/*.jpg", "empty"])
def test_predict_of_nothing_is_an_error(given: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = tensign("predict", MODEL, tmp_path / given)
    assert done.returncode == 2 and done.stderr.startswith("error: ")


def test_predict_goes_on_after_a_bad_picture_and_its_exit_code_tells(pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    done = tensign("predict", MODEL, tmp_path / "bad.jpg", tmp_path / "missing.jpg", pictures[3])
    bad, missing, good = done.stdout.splitlines()
    assert "bad.jpg: error: 10 bytes are no JPEG" in bad
    assert missing.endswith("missing.jpg: error: No such file or directory")
    assert "espresso" in good
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("inspect", "/nowhere"), "error: /nowhere: no MLmodel file there; give the directory that MLflow wrote"),
        (("serve", "/nowhere"), "error: /nowhere: no MLmodel file there"),
        (("serve", str(MODEL), "--device", "tpu"), 'error: device: wanted "auto", "cpu", "cuda" or "cuda:N", got "tpu"'),
        (("serve", str(MODEL), "--grpc-port", "99999"), "error: grpc_port: wanted 0 to 65535"),
        (("serve", str(MODEL), str(MODEL), "--grpc-port", "0"), 'error: two models are called "efficientnet-lite0"'),
        (("bench", "127.0.0.1:1"), "error: 127.0.0.1:1:"),
        (("convert", str(MODEL), "/tmp/never"), "needs no conversion, it is served as it is"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(arguments: tuple[str, ...], said: str) -> None:
    done = tensign(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_serve_says_when_it_is_ready_drains_on_sigterm_and_exits_0(pictures: list[Path]) -> None:
    command = [sys.executable, "-m", "tensign", "serve", str(MODEL), "--name", "lite0", "--device", "cpu"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TENSIGN_GRPC_PORT": "0"})
    assert server.stdout is not None
    ready = server.stdout.readline()
    found = re.fullmatch(r"tensign \S+ ready: grpc://(127\.0\.0\.1:\d+) serves lite0 uint8 \[.*\] -> .* on cpu\n", ready)
    assert found is not None, ready
    answered = 0
    with Client(found[1], retries=0) as client:
        answers = client.stream(itertools.repeat(pictures[3]), window=8)  # would never end by itself
        with pytest.raises(ModelNotReady):  # "draining", unless gRPC wrote too late to hear it (grpc/grpc#36066)
            for answer in answers:
                assert answer.label == "espresso"
                answered += 1
                if answered == 5:
                    server.send_signal(signal.SIGTERM)
        assert answered > 5  # what was read is answered
    assert server.wait(10) == 0
    server.stdout.close()


def test_sigterm_while_loading_ends_it_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "MLmodel")
    server = subprocess.Popen([sys.executable, "-m", "tensign", "serve", str(tmp_path)], stderr=subprocess.DEVNULL)
    with (tmp_path / "MLmodel").open("w"):  # waits until it is opened for reading, and never writes
        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 143


def test_converting_to_weights_of_another_name_is_refused() -> None:
    done = tensign("convert", MODEL, "/tmp/never", "--weights", "int8")
    assert done.returncode == 2
    assert done.stderr.strip() == 'error: weights: wanted fp32 or fp16, got "int8"'


def test_a_module_in_the_current_directory_is_not_run(tmp_path: Path) -> None:
    """A downloaded model may bring a yaml.py; nobody said --trust."""
    shutil.copytree(MODEL, tmp_path / "model")
    (tmp_path / "model" / "yaml.py").write_text("import pathlib; pathlib.Path('ran').touch()")
    program = "from pathlib import Path; from tensign.conversion import convert; convert(Path('.'), Path('out'), trust=False)"
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, cwd=tmp_path / "model", capture_output=True, text=True)
    assert "needs no conversion" in done.stderr
    assert not (tmp_path / "model" / "ran").exists()


def test_serving_what_only_its_own_code_can_make_says_why_and_what_to_type(tmp_path: Path) -> None:
    path = hostile_mlmodel(tmp_path / "source", zipped(learner(module("mymodels", "Net"))))
    done = tensign("serve", path, TENSIGN_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 2
    assert "the network itself is of class mymodels.Net" in done.stderr and "--trust" in done.stderr


@pytest.mark.parametrize("said", ['{"error": "exec", "text": "import os; os._exit(9)"}', "[7]", "7", "[" * 100_000])
def test_what_a_converter_says_is_data(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have run a stranger's pickle, which printed the last line."""
    from tensign.errors import UnsupportedModel

    (tmp_path / "said").write_text(said)
    (tmp_path / "python").write_text(f"#!/bin/sh\ncat {tmp_path / 'said'}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises((UnsupportedModel, OSError)):
        conversion.convert(MODEL, tmp_path / "out", trust=True)


def test_a_converter_that_dies_without_a_word_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensign.errors import UnsupportedModel

    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UnsupportedModel, match="ended with status 1 and said nothing"):
        conversion.convert(MODEL, tmp_path / "out", trust=True)
