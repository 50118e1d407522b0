"""The command as a user types it: in a process of its own."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import tensor, write_mlmodel
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
    assert all(command in said for command in ("serve", "inspect", "predict", "convert", "sign", "demo", "bench"))


def test_inspect_as_json_tells_what_mlflow_wrote_and_what_we_derive() -> None:
    facts = json.loads(tensign("inspect", MODEL, "--json").stdout)
    assert facts["signature"] == "uint8 [-1,256,256,3] -> float32 [-1,1000]"
    assert facts["served"] == "as tensign, model.onnx, by engine onnx"
    assert facts["preprocess"]["steps"][0]["op"] == "resize"
    assert facts["parity"]["top1_agreement"] == 1.0


def test_inspect_for_people_names_the_signature() -> None:
    assert "uint8 [-1,256,256,3] -> float32 [-1,1000]" in tensign("inspect", MODEL).stdout


def test_sign_tells_what_it_wrote_and_bad_specs_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {sklearn: {}}\n")
    dry = tensign("sign", tmp_path, "--input", "age:long,note?:string", "--output", "double", "--dry-run")
    assert "signature:" in dry.stdout and read_mlmodel(tmp_path).signature is None
    done = tensign("sign", tmp_path / "MLmodel", "--input", "age:long", "--input", "note?:string", "--output", "double")
    assert done.stdout == "inputs: age: long, note: string, optional (given)\noutputs: double (given)\n"
    assert (tmp_path / "MLmodel").read_text() == dry.stdout
    for arguments, said in (
        (("--output", "long"), "has a signature: inputs age: long, note: string, optional, outputs double. With --force"),
        (("--input", "age:lng"), "'age:lng': type 'lng' is neither"),
    ):
        refused = tensign("sign", tmp_path, *arguments)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
        assert said in refused.stderr


def test_predict_prints_a_line_for_each_picture(pictures: list[Path]) -> None:
    done = tensign("predict", MODEL, *pictures, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"] for line in lines] == [str(picture) for picture in pictures]
    assert lines[3]["label"] == "espresso" and lines[3]["error"] is None
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
    assert "1 file skipped, no picture suffix" in done.stderr
    assert "bad.jpg: error: 10 bytes are no JPEG" in done.stderr
    assert done.stderr.endswith(f"{len(pictures)} predicted, 1 failed, in {out}\n")
    first = list(csv.DictReader(out.read_text().splitlines()))
    assert [Path(row["image"]).name for row in first] == sorted([*(picture.name for picture in pictures), "bad.jpg"])
    assert {row["model"] for row in first} == {f"efficientnet-lite0@{read_mlmodel(MODEL).digest[:12]}"}
    assert {row["label"] for row in first if "coffee" in row["image"]} == {"espresso"}
    (folder / "bad.jpg").write_bytes(pictures[3].read_bytes())
    again = tensign("predict", MODEL, f"{tmp_path}/**/*.[jpbw]*", "--out", out)
    assert (again.returncode, again.stderr) == (0, f"1 predicted, 0 failed, {len(pictures)} were there, in {out}\n")
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


def test_predict_prints_the_lines_that_it_would_write(pictures: list[Path], tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"k\xe4tzchen.jpg")
    odd.write_bytes(b"no picture")
    given = (pictures[3], odd, tmp_path / "missing.jpg")
    printed = tensign("predict", MODEL, *given, "--json", "--device", "cpu")
    tensign("predict", MODEL, *given, "--out", tmp_path / "out.jsonl", "--device", "cpu")
    assert printed.stdout == (tmp_path / "out.jsonl").read_text()
    good, bad, missing = map(json.loads, printed.stdout.splitlines())
    assert good["error"] is None and [bad["label"], bad["score"], missing["label"]] == [None] * 3
    assert bad["image"] == str(odd) and bad["error"].startswith("10 bytes are no JPEG")
    assert missing["error"] == "No such file or directory"
    command = [sys.executable, "-m", "tensign", "predict", str(MODEL), str(odd)]
    said = subprocess.run(command, capture_output=True, timeout=120)
    assert said.returncode == 1
    assert said.stdout.startswith(os.fsencode(odd) + b": error: 10 bytes are no JPEG"), said.stderr


def test_predict_says_that_a_model_takes_no_pictures_before_it_is_converted(tmp_path: Path, pictures: list[Path]) -> None:
    spec = {"inputs": [tensor("float32", [-1, 3, 8, 8])], "outputs": [tensor("float32", [-1, 2])]}
    path = write_mlmodel(tmp_path / "floats", signature=spec, flavors={"pytorch": {"model_data": "data"}})
    (path / "data").mkdir()
    (path / "data" / "model.pth").write_bytes(b"not read")
    done = tensign("predict", path, pictures[0], TENSIGN_CACHE_DIR=str(tmp_path / "cache"))
    said = "declares no preprocessing, so pictures cannot become its input float32 [-1,3,8,8] -> float32 [-1,2]"
    said += "; to declare it: tensign convert SRC DST --preprocess YAML"
    assert (done.returncode, done.stderr) == (2, f"error: {path}: {said}\n")
    assert not (tmp_path / "cache").exists()


def test_predict_of_a_table_counts_its_columns(tmp_path: Path, pictures: list[Path]) -> None:
    columns = [{"type": "long", "name": name, "required": True} for name in "abc"]
    path = write_mlmodel(tmp_path / "table", signature={"inputs": columns}, flavors={"pytorch": {"model_data": "data"}})
    (path / "data").mkdir()
    (path / "data" / "model.pth").write_bytes(b"not read")
    done = tensign("predict", path, pictures[0])
    assert (done.returncode, done.stderr) == (2, f"error: {path}: takes a table of 3 columns, and no pictures\n")


def test_a_wrong_declaration_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("divde: 255")
    (tmp_path / "net.pth").write_bytes(b"not read")
    command = [sys.executable, "-X", "importtime", "-m", "tensign_converters", "--preprocess", str(tmp_path / "p.yaml")]
    done = subprocess.run([*command, str(tmp_path / "net.pth"), str(tmp_path / "made")], capture_output=True, text=True)
    assert "InvalidConfig" in done.stdout and 'did you mean \\"divide\\"?' in done.stdout
    assert "tensign_converters.declared" in done.stderr
    assert not re.search(r"\| +(torch|onnx|onnxruntime|fastai|torchvision)$", done.stderr, re.MULTILINE)


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        (str(MODEL), ("--model", "x"), "--model: cannot apply to a local directory"),
        (str(MODEL), ("--tls",), "--tls: cannot apply to a local directory"),
        (str(MODEL), ("--ca", "x.pem"), "--ca: cannot apply to a local directory"),
        (str(MODEL), ("--token", "x"), "--token: cannot apply to a local directory"),
        ("127.0.0.1:1", ("--device", "cpu"), "--device: cannot apply to a server"),
        ("127.0.0.1:1", ("--trust",), "--trust: cannot apply to a server"),
        ("127.0.0.1:1", ("--cache-dir", "/tmp"), "--cache-dir: cannot apply to a server"),
        (str(MODEL), ("--json", "--out", "x.csv"), "--json prints and --out writes a file"),
        ("127.0.0.1:1", (), "error: 127.0.0.1:1: cannot connect: Connection refused"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_predict_refuses_what_could_not_apply(
    target: str, options: tuple[str, ...], said: str, tmp_path: Path, pictures: list[Path]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tensign", "predict", target, str(pictures[0]), *options],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, env={**os.environ, "TENSIGN_TOKEN": "x"},
    )  # fmt: skip
    assert done.returncode == 2 and said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_predict_that_is_interrupted_says_what_it_has_and_goes_on(pictures: list[Path], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "photo.jpg")  # it waits for a picture that never comes
    out = tmp_path / "out.csv"
    command = [sys.executable, "-m", "tensign", "predict", str(MODEL), str(pictures[3]), str(tmp_path / "photo.jpg")]
    with subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.PIPE, text=True) as running:
        with open(tmp_path / "photo.jpg", "wb"):  # returns once it is being read, all before it on its way
            running.send_signal(signal.SIGINT)
        assert running.stderr is not None  # the picture has ended too: a signal just before a read does not interrupt that
        said = running.stderr.read()
        assert running.wait(60) == 130
    assert re.fullmatch(rf"[01] predicted, in {re.escape(str(out))}; the same command goes on\n", said), said


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
        (
            ("serve", str(MODEL), "--device", "tpu"),
            'error: device: wanted "auto", "cpu", "cuda", "cuda:N" or "cuda:N,M"',
        ),
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
    try:
        ready = server.stdout.readline()
        found = re.fullmatch(
            r"tensign \S+ ready: grpc://(127\.0\.0\.1:\d+) serves lite0 uint8 \[.*\] -> .* on cpu; "
            r"over HTTP too: http://127\.0\.0\.1:\d+\n",
            ready,
        )
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
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def test_sigterm_while_loading_ends_it_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "MLmodel")
    server = subprocess.Popen([sys.executable, "-m", "tensign", "serve", str(tmp_path)], stderr=subprocess.DEVNULL)
    with (tmp_path / "MLmodel").open("w"):  # waits until it is opened for reading, and never writes
        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 143


@pytest.mark.parametrize("given", ["-1", "0", "1GiB"])
def test_a_budget_of_memory_is_a_number_of_mib(given: str) -> None:
    done = tensign("serve", str(MODEL), "--device-memory", given)
    assert done.returncode == 2 and "--device-memory" in done.stderr
    assert "--device-memory MIB" in " ".join(tensign("serve", "--help").stdout.split())


def test_an_accelerator_of_another_engine_is_refused_before_anything_is_converted(
    fixture_dir: Callable[[str], Path], tmp_path: Path
) -> None:
    command = ("serve", fixture_dir("digits-pytorch-mlflow2"), "--trust", "--accelerator", "compile", "--grpc-port", "0")
    done = tensign(*command, TENSIGN_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "--accelerator compile is of engine torch: add --engine torch (and --trust" in done.stderr
    assert not (tmp_path / "cache").exists()


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


@pytest.mark.parametrize(
    ("options", "http"), [((), True), (("--http-port", "0"), True), (("--no-http",), False)], ids=["default", "port", "none"]
)
def test_serve_answers_http_unless_told_not_to(options: tuple[str, ...], http: bool) -> None:
    command = [sys.executable, "-m", "tensign", "serve", str(MODEL), "--grpc-port", "0", "--device", "cpu", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            found = re.search(r"http://(\S+)", server.stdout.readline())
            assert bool(found) == http
            if found:
                with urllib.request.urlopen(f"http://{found[1]}/ping", timeout=30) as answer:
                    assert answer.status == 200
        finally:
            server.terminate()
    assert server.returncode == 0


def test_an_http_port_that_is_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = tensign("serve", MODEL, "--grpc-port", "0", "--http-port", port, "--device", "cpu")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == f"error: cannot listen on 127.0.0.1:{port} for HTTP: Address already in use"
