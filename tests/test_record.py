"""conversion.json and proof.npz of strangers: one line of refusal each, and nothing is allocated or read."""

from __future__ import annotations

import io
import json
import logging
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from conftest import CPU
from tensign.cli import app
from tensign.errors import ParityFailed, UnsupportedModel
from tensign.proof import report
from tensign.proof.answers import read_answers, write_answers
from tensign.proof.record import ANSWERS_FILE, RECORD_FILE, TOLERANCES, Record, allowed
from tensign.proof.verdict import remarks, verdict
from tensign.proof.verification import verify
from test_proof import written

FP32 = ("proofs", "fp32")
PARITY = (*FP32, "parity")
OUTPUT = "output-0.npy"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("record") / "made")


@pytest.fixture
def made(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def changed(made: Path, keys: tuple[str, ...], value: Any) -> Path:
    """The record with one value exchanged, or taken out where it is Ellipsis."""
    document = json.loads((made / RECORD_FILE).read_text())
    inner = document
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    if value is ...:
        del inner[keys[-1]]
    (made / RECORD_FILE).write_text(json.dumps(document))
    return made


def line(error: pytest.ExceptionInfo[Any]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("keys", "value", "told"),
    [
        (("crops",), 3e7, "crops: wanted a whole number from 0 to 100000, got 30000000.0"),
        (("crops",), 30_000_000, "crops: wanted a whole number from 0 to 100000, got 30000000"),
        (("crops",), "x", 'crops: wanted a whole number from 0 to 100000, got "x"'),
        (("crops",), True, "crops: wanted a whole number"),
        (("crops",), 10**300, "crops: wanted a whole number from 0 to 100000, got a larger number"),
        (("crops",), ..., "is broken: wanted version, source"),
        (("more",), 1, "is broken: wanted version, source"),
        (("version",), "2", "of a version that this tensign does not read"),
        (("source",), [], "source: wanted a map, in which versions are a map, got a list of 0"),
        (("source", "versions"), 5, "source: wanted a map, in which versions are a map"),
        (("source", "deep"), [[[[1]]]], "source.deep[0][0]: wanted text, a number, or lists"),
        (("against",), "\x1b[2J", "against: wanted a line"),
        (("against",), None, "against: wanted a line of at most 4096 printable letters, got null"),
        (("unchecked",), [5], "unchecked[0]: wanted a line of at most 4096 printable letters, got 5"),
        (("unchecked",), "text", "unchecked: wanted a list"),
        (("files",), ["model.onnx"], "files: wanted a map, got a list of 1"),
        (("files",), {"/etc/passwd": ""}, 'files: wanted the name of a file in the same directory, got "/etc/passwd"'),
        (("files",), {"../original/model.onnx": ""}, "files: wanted the name of a file"),
        (("files",), {"..": ""}, "files: wanted the name of a file"),
        (("files", "model.onnx"), 5, "files.model.onnx: wanted a line"),
        (("proofs", "fp32", "held"), None, "proofs.fp32.held: wanted a map, got null"),
        (("proofs",), {}, "proofs: wanted fp32"),
        (("proofs", "fp4"), {}, "proofs: wanted fp32, and perhaps others of fp32, fp16, int8"),
        (FP32, None, "proofs.fp32: wanted a map, got null"),
        ((*FP32, "file"), "/etc/passwd", "proofs.fp32.file: wanted the name of a file in the same directory"),
        ((*FP32, "file"), "../x", "proofs.fp32.file: wanted the name of a file in the same directory"),
        ((*FP32, "bytes"), -1, "proofs.fp32.bytes: wanted a whole number"),
        ((*FP32, "speed"), "fast", 'proofs.fp32.speed: wanted a finite number from 0 on, got "fast"'),
        ((*FP32, "differences"), [], "proofs.fp32.differences: wanted a list of 30 to 30, got a list of 0"),
        ((*FP32, "differences"), ["x"] * 30, "proofs.fp32.differences[0]: wanted a finite number"),
        ((*FP32, "worst"), [[]], "proofs.fp32.worst[0]: wanted a line"),
        ((*FP32, "worst"), ["a"] * 9, "proofs.fp32.worst: wanted a list of 0 to 8"),
        ((*FP32, "tolerance"), [1, 1], "proofs.fp32.tolerance: wanted a map"),
        ((*FP32, "tolerance", "difference"), ..., "proofs.fp32.tolerance: wanted difference, relative, agreement, got"),
        ((*FP32, "tolerance", "relative"), float("nan"), "tolerance.relative: wanted a finite number from 0 on, got NaN"),
        ((*PARITY, "max_difference"), "x", 'parity.max_difference: wanted a finite number from 0 on, got "x"'),
        ((*PARITY, "spread"), float("inf"), "parity.spread: wanted a finite number from 0 on, got Infinity"),
        ((*PARITY, "mean_difference"), 10**400, "parity.mean_difference: wanted a finite number"),
        ((*PARITY, "top1_agreement"), 1.5, "parity.top1_agreement: wanted a number from 0 to 1, got 1.5"),
        ((*PARITY, "batches"), [], "parity.batches: wanted a list of 1 to 64, got a list of 0"),
        ((*PARITY, "batches"), [0], "parity.batches[0]: wanted a whole number from 1 to 4096, got 0"),
        ((*PARITY, "rows"), "<script>alert(1)</script>", "parity.rows: wanted a whole number from 1 to 1048576"),
        ((*PARITY, "inputs"), "half \ud800", "parity.inputs: wanted a line"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_its_key(made: Path, keys: tuple[str, ...], value: Any, told: str) -> None:
    with pytest.raises(UnsupportedModel, match=re.escape(told)) as error:
        verify(changed(made, keys, value), CPU)
    assert len(line(error)) < 500 and RECORD_FILE in line(error)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[" * 100_000, "nested too deep"),
        (b'{"version": 2, "version": 2}', "version"),
        (b'{"version": ' + b"9" * 5000 + b"}", "more digits"),
        (b"\xff", "not UTF-8"),
        (b" " * ((1 << 26) + 1), "wanted at most 67108864 bytes"),
    ],
    ids=["deep", "twice", "digits", "no text", "long"],
)
def test_a_record_that_is_no_json_is_refused(made: Path, content: bytes, told: str) -> None:
    (made / RECORD_FILE).write_bytes(content)
    with pytest.raises(UnsupportedModel, match=told) as error:
        verify(made, CPU)
    assert "is broken" in line(error)


def npz(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    made = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w", compression) as archive:
        warnings.simplefilter("ignore")  # of a name given twice
        for name, content in members:
            archive.writestr(name, content)
    return made.getvalue()


def lying() -> bytes:
    """Of a member that its directory calls larger than the file."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(OUTPUT, npy(np.zeros((30, 3))))
        archive.filelist[0].file_size = archive.filelist[0].compress_size = 1 << 40
    return made.getvalue()


def npy(array: Any) -> bytes:
    made = io.BytesIO()
    np.save(made, array)
    return made.getvalue()


def header(text: str) -> bytes:
    told = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(told).to_bytes(2, "little") + told


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 275), }"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not a zip"),
        (b"PK\3\4" + b"junk" * 100, "not a zip"),
        (lying(), "said to hold 1099511627776 bytes"),
        (npz(), "wanted 1 to 1000 outputs"),
        (npz((OUTPUT, header(HUGE))), "takes other than the 0 bytes"),
        (npz((OUTPUT, header("[" * 5000))), "wanted an array"),
        (npz((OUTPUT, header("__import__('os').abort()"))), "wanted an array"),
        (npz((OUTPUT, npy(np.zeros(30)))), "wanted an array of numbers or text"),
        (npz((OUTPUT, npy(np.zeros(())))), "wanted an array of numbers or text"),
        (npz((OUTPUT, npy(np.zeros((30, 0))))), "wanted an array of numbers or text"),
        (npz((OUTPUT, npy(np.zeros((30, 3), [("a", "f4")])))), "wanted an array of numbers or text"),
        (npz((OUTPUT, npy(np.zeros((30, 3), object)))), "wanted an array of numbers or text"),
        (npz((OUTPUT, npy(np.zeros((30, 3), "M8[s]")))), "wanted an array of numbers or text"),
        (npz((OUTPUT, npy(np.full((1, 1), 0x110000, np.uint32)).replace(b"<u4", b"<U1"))), "letters that there are not"),
        (npz((OUTPUT, npy(np.full((30, 3), -1e301)))), "numbers beyond 1e\\+300"),
        (npz((OUTPUT, b"")), "wanted an array of numbers or text"),
        (npz((OUTPUT, bytes(1 << 20)), compression=zipfile.ZIP_DEFLATED), "stored, not deflated"),
        (npz((OUTPUT, npy(np.zeros((1, 1)))), (OUTPUT, npy(np.zeros((1, 1))))), "each once"),
        (npz(("output-0", npy(np.zeros((1, 1))))), "wanted an .npy"),
    ],
)
def test_answers_of_another_kind_are_refused_before_they_are_made(made: Path, content: bytes, told: str) -> None:
    (made / ANSWERS_FILE).write_bytes(content)
    with pytest.raises(UnsupportedModel, match=told) as error:
        verify(made, CPU)
    assert f"{ANSWERS_FILE}: is broken: " in line(error)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8", "u1", "?", "U3"])
def test_answers_are_read_as_they_were_written(tmp_path: Path, dtype: str) -> None:
    arrays = {name: np.ones((1, 2), dtype) for name in ("file", "allow_pickle", "a.npy")}
    arrays |= {"a/b": np.arange(12).reshape(3, 4).astype(dtype), "turned": np.asfortranarray(np.eye(3).astype(dtype))}
    write_answers(tmp_path / ANSWERS_FILE, arrays)
    first = (tmp_path / ANSWERS_FILE).read_bytes()
    read = read_answers(tmp_path / ANSWERS_FILE)
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array, strict=True)
    write_answers(tmp_path / ANSWERS_FILE, arrays)
    assert (tmp_path / ANSWERS_FILE).read_bytes() == first


def test_answers_with_a_changed_byte_are_read_or_refused(made: Path) -> None:
    file, random = made / ANSWERS_FILE, np.random.default_rng(5)
    content = file.read_bytes()
    for at in [*range(160), *random.integers(len(content), size=200), *range(len(content) - 120, len(content))]:
        file.write_bytes(content[:at] + bytes([content[at] ^ 1 << int(random.integers(8))]) + content[at + 1 :])
        try:
            read_answers(file)
        except UnsupportedModel as error:
            assert str(error).isprintable()


@pytest.mark.parametrize("answers", [np.zeros((30, 1), np.float32), np.full((30, 3), "no"), np.full((30, 3), np.inf)])
def test_answers_that_are_not_the_models_fail_in_words(made: Path, answers: Any) -> None:
    np.savez(made / ANSWERS_FILE, **{"output-0": answers})
    with pytest.raises(ParityFailed, match=r"the original answered|does not predict as its original did"):
        verify(made, CPU)


def test_a_tolerance_may_be_stricter_than_the_codes_and_never_looser(made: Path) -> None:
    verify(changed(made, (*FP32, "tolerance", "difference"), 1e-5), CPU)
    for key, wanted in (("difference", "at most 0.0001"), ("relative", "at most 0.0001")):
        before = json.loads((made / RECORD_FILE).read_text())["proofs"]["fp32"]["tolerance"][key]
        with pytest.raises(UnsupportedModel, match=rf"proofs\.fp32\.tolerance\.{key}: wanted {wanted}, got 1e\+99") as error:
            verify(changed(made, (*FP32, "tolerance", key), 1e99), CPU)
        changed(made, (*FP32, "tolerance", key), before)
        line(error)


def test_a_tolerance_of_another_precision_counts_by_the_models_task(made: Path) -> None:
    document = json.loads((made / RECORD_FILE).read_text())
    proof = {**document["proofs"]["fp32"], "tolerance": {"difference": 1.0, "relative": 1.0, "agreement": 0.97}}
    with pytest.raises(UnsupportedModel, match=r"proofs\.int8\.tolerance\.difference: wanted at most 0\.1, got 1"):
        verify(changed(made, ("proofs", "int8"), proof), CPU)  # a regression
    assert allowed("int8", "classification").agreement == 0.97 and allowed("int8", "") == TOLERANCES["int8"][""]


@pytest.mark.parametrize("files", [{}, {"requirements.txt": ...}])
def test_the_record_has_to_name_the_model(made: Path, files: dict[str, Any]) -> None:
    from tensign.proof.record import digest

    known = {name: digest(made / name) for name in files}
    with pytest.raises(UnsupportedModel, match=r"conversion\.json: files: wanted model\.onnx and what was proved, got"):
        verify(changed(made, ("files",), known), CPU)


def relabelled(text: str) -> str:
    return text.replace("    task: regression\n", "    labels: others.json\n    task: regression\n")


def resized(text: str) -> str:
    return text.replace("    preprocess:\n", "    preprocess:\n      extra: 1\n")


def undecided(text: str) -> str:
    return text.replace("    activation: none\n", "    activation: none\n    threshold: 0.9\n")


@pytest.mark.parametrize("change", [relabelled, undecided, resized])
def test_what_the_mlmodel_declares_is_part_of_what_was_proved(made: Path, change: Callable[[str], str]) -> None:
    (made / "others.json").write_text("[]")
    text = (made / "MLmodel").read_text()
    (made / "MLmodel").write_text(change(text))
    assert change(text) != text
    with pytest.raises(ParityFailed, match=r"not what was proved: what the MLmodel declares changed since"):
        verify(made, CPU)


def test_what_mlflow_adds_to_an_mlmodel_changes_no_proof(made: Path) -> None:
    with (made / "MLmodel").open("a") as file:
        file.write("run_id: 0123\nmodel_id: m-1\n")
    assert verify(made, CPU).parity.rows == 30


def test_a_page_escapes_and_refuses_what_is_not_of_the_rows(made: Path) -> None:
    changed(made, ("against",), "<script>alert(1)</script>")
    changed(made, ("source", "<b>key"), "<i>value")
    assert not re.search("<script|<b>key|<i>", report.page(made, Record.read(made)[0]))
    changed(made, (*FP32, "tolerance", "difference"), 0)
    report.page(made, Record.read(made)[0])
    changed(made, (*FP32, "worst"), ["noise 99"])
    with pytest.raises(UnsupportedModel, match=r"differences and worst: not of the 30 rows that are tried"):
        report.page(made, Record.read(made)[0])


def test_a_page_answers_its_question(made: Path) -> None:
    record = Record.read(made)[0]
    shown = report.page(made, record)
    assert re.search(
        r"<b>The same: greatest difference \S+ of the row&#x27;s largest value, 0.0001 allowed, on 30 rows</b>", shown
    )
    for told in ("<th>signature</th>", r"\(0.0001 allowed\)", r"fp32 \([0-9.]+ kB", "how far answers to different rows"):
        assert re.search(told, shown), told
    proof = record.proofs["fp32"]
    own = replace(proof.parity, inputs="2 pictures held back from calibration and 98 pieces of them", top1_agreement=0.98)
    slow, fast = (replace(proof, speed=speed, held=own) for speed in (1.04, 1.06))
    assert "best class equal on 98 % of 30 rows" in verdict(slow, "softmax", "classification")
    noted = list(remarks("int8", slow, "3 pictures and 97 pieces of them"))
    assert noted == ["of 5 pictures, too few to tell much", "no faster than fp32 here"]
    assert not list(remarks("int8", fast, "18 pictures and 82 pieces of them"))
    assert verdict(replace(proof, tolerance=replace(proof.tolerance, relative=-1)), "none", "").startswith("Not the same: ")


def test_a_page_is_drawn_without_a_word(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level("INFO")
    log = logging.getLogger("matplotlib.font_manager")
    with report._without_font_news():
        log.info("generated new fontManager")
        log.info("something else")
    log.info("generated new fontManager")
    assert caplog.messages == ["something else", "generated new fontManager"]
    palette = PIL.Image.new("P", (3, 3))
    palette.save(tmp_path / "clear.png", transparency=b"\x00\x80")
    assert report._thumbnail(tmp_path / "clear.png").startswith("<img")  # warnings are errors


def test_the_command_shows_markup_as_it_stands(made: Path) -> None:
    changed(made, ("against",), "[/nothing] [red]x[/red]")
    done = CliRunner().invoke(app, ["verify", str(made), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "held against: [/nothing] [red]x[/red]" in done.output
