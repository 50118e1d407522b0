"""Proofs: what is tried, how far answers lie apart, what is kept, and that `tensign verify` sees what changed since."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from conftest import CPU, save_mean_model, tensor, write_mlmodel
from tensign.cli import app
from tensign.errors import InvalidConfig, ModelNotFound, ParityFailed, UnsupportedModel
from tensign.mlmodel import read_mlmodel
from tensign.preprocess import PreprocessSpec, Resize
from tensign.proof.parity import FULL_PRECISION, Answers, Differences
from tensign.proof.record import ANSWERS_FILE, RECORD_FILE, Record, thinned
from tensign.proof.samples import samples
from tensign.proof.verification import verify
from tensign.signature import Signature

PICTURES = Signature.parse({"inputs": [tensor("uint8", [-1, 4, 5, 3])], "outputs": [tensor("float32", [-1, 3])]})


def signed(*inputs: dict[str, Any]) -> Signature:
    return Signature.parse({"inputs": list(inputs), "outputs": [tensor("float32", [-1, 3])]})


def test_the_same_signature_is_tried_with_the_same_rows() -> None:
    first, second = (samples(PICTURES, PreprocessSpec((Resize(4, 5),)), crops=20) for _ in range(2))
    assert first.told == "8 photographs as files, 8 photographs as arrays, 20 crops, 2 rows of noise"
    assert len(first) == len(second) == 38
    for row in range(len(first)):
        (one,), (other,) = first[row].values(), second[row].values()
        assert (one == other) if isinstance(one, Path) else np.array_equal(one, other)
    assert len({first.name(row) for row in range(len(first))}) == len(first)


@pytest.mark.parametrize(
    ("shape", "dtype", "of_one_row"),
    [
        ([-1, 40, 48, 3], "uint8", (40, 48, 3)),
        ([-1, 40, 48], "uint8", (40, 48)),
        ([-1, 3, 40, 48], "float32", (3, 40, 48)),
        ([-1, 1, 40, 48], "float64", (1, 40, 48)),
        ([-1, 40, 48, 1], "float32", (40, 48, 1)),
        ([-1, 7], "float32", (7,)),
    ],
)
def test_rows_have_the_signatures_shape_and_type(shape: list[int], dtype: str, of_one_row: tuple[int, ...]) -> None:
    rows = [sample["input-0"] for sample in samples(signed(tensor(dtype, shape)), crops=6)]
    assert {row.shape for row in rows} == {of_one_row}
    assert {str(row.dtype) for row in rows} == {dtype}
    assert len({row.tobytes() for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("shape", "dtype", "of_one_row"),
    [
        ([-1, -1, -1, 3], "uint8", {(224, 224, 3), (160, 256, 3)}),
        ([-1, 5, -1], "float32", {(5, 16), (5, 32)}),
        ([-1, -1], "int64", {(16,), (32,)}),
    ],
)
def test_open_axes_are_tried_in_two_lengths_that_share_no_chunk(shape: list[int], dtype: str, of_one_row: Any) -> None:
    rows = samples(signed(tensor(dtype, shape)), crops=8)
    assert {sample["input-0"].shape for sample in rows} == of_one_row
    chunks = list(rows.chunks((2, 4)))
    assert all(max(len(chunk) for chunk in chunks if chunk[0]["input-0"].shape == each) > 1 for each in of_one_row)
    assert sum(map(len, chunks)) == len(rows)
    assert all(len({sample["input-0"].shape for sample in chunk}) == 1 for chunk in chunks)


def test_the_saved_example_comes_first_and_several_inputs_are_all_there() -> None:
    signature = signed(tensor("float32", [-1, 3], "a"), tensor("float32", [-1, 2], "b"))
    rows = samples(signature, None, {"a": np.ones((2, 3), np.float32), "b": np.zeros((2, 2), np.float32)}, crops=4)
    assert rows.told == "2 rows of the saved input example, 4 rows of noise"
    assert rows[0]["a"].tolist() == [1, 1, 1] and {*rows[5]} == {"a", "b"}


def differ(original: Any, converted: Any, task: str = "classification", threshold: float | None = None) -> Any:
    differences = Differences(task, threshold)
    differences.add(Answers({"y": np.asarray(converted)}), Answers({"y": np.asarray(original)}))
    return differences.parity("rows", (1,))


def test_one_row_is_told_as_one() -> None:
    signature = Signature.parse({"inputs": [tensor("float32", [-1, 2])], "outputs": [tensor("float32", [-1, 2])]})
    assert samples(signature, example={"input-0": np.zeros((1, 2), np.float32)}, crops=1).told == (
        "1 row of the saved input example, 1 row of noise"
    )


def test_differences_and_agreement_are_of_the_rows() -> None:
    parity = differ([[0.0, 1.0], [1.0, 0.0]], [[0.0, 1.0], [0.25, 0.5]])
    assert (parity.max_difference, parity.mean_difference, parity.top1_agreement) == (0.75, 0.3125, 0.5)
    assert parity.spread == 1.0
    assert differ([[0.2, 0.6]], [[0.45, 0.6]], "multilabel", 0.4).top1_agreement == 0.0
    assert differ([[0.2, 0.6]], [[0.35, 0.7]], "multilabel", 0.4).top1_agreement == 1.0
    assert differ([[1.0]], [[3.0]], "regression").top1_agreement is None
    labels = differ([3, 4], [3, 5], "")
    assert (labels.top1_agreement, labels.equal_values) == (None, 0.5)
    assert not FULL_PRECISION.holds(labels, "none") and FULL_PRECISION.holds(differ(["a", "b"], ["a", "b"]), "none")


def test_a_number_that_is_none_is_within_no_tolerance() -> None:
    assert not FULL_PRECISION.holds(differ([[0.0, 1.0]], [[np.nan, 1.0]]), "softmax")
    assert FULL_PRECISION.holds(differ([[0.0, 1.0]], [[0.0, 1.0]]), "softmax")


def test_saturated_probabilities_do_not_hide_logits_that_differ() -> None:
    differences = Differences("classification")
    same = np.array([[0.0, 1.0]], np.float32)
    sides = ({"y": same}, np.array([[-40.0, 40.0]])), ({"y": same}, np.array([[-30.0, 30.0]]))
    differences.add(*(Answers(outputs, logits) for outputs, logits in sides))
    parity = differences.parity("rows", (1,))
    assert parity.max_difference == 0 and parity.relative_difference == pytest.approx(1 / 3)
    assert not FULL_PRECISION.holds(parity, "softmax")


def test_every_output_is_judged_by_its_own_size() -> None:
    differences = Differences("")
    outputs = {"a": np.ones((2, 3)), "b": np.full((2, 2), 1e-5)}
    differences.add(Answers({**outputs, "b": np.zeros((2, 2))}), Answers(outputs))
    assert differences.parity("rows", (1,)).relative_difference == pytest.approx(1.0)


@pytest.mark.parametrize("converted", [np.zeros((2, 1)), np.zeros((2, 3), np.int64), np.zeros((2, 3), str), np.zeros((1, 3))])
def test_answers_of_another_shape_or_kind_are_none(converted: Any) -> None:
    with pytest.raises(ParityFailed, match=r'"y": the original gives float64 \[2,3\]|"y": the original gives float64 \[2, 3\]'):
        differ(np.zeros((2, 3)), converted)


def test_where_nothing_is_tried_nothing_is_written(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tensign_converters.package import write_model
    from tensign_converters.subject import Head, Subject

    signature = Signature.parse({"inputs": [tensor("float32", [-1, 3])], "outputs": [tensor("float32", [-1, 3])]})
    subject = Subject(signature, lambda _: None, means, None, Head(), {}, "NumPy")
    with pytest.raises(InvalidConfig, match="--crops 0: the model takes no pictures and was saved with no input example"):
        write_model(subject, tmp_path, origin={}, crops=0)


def test_rows_that_change_one_another_are_refused(tmp_path: Path) -> None:
    """Its rows would depend on strangers' in a shared batch."""
    from onnx import TensorProto, helper, save

    pytest.importorskip("torch")
    from tensign_converters.prove import prove
    from tensign_converters.subject import Head, Subject

    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 3]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "centred", ends[:1], ends[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "model.onnx")

    def answers(chunk: Any) -> Answers:
        x = np.stack([sample["x"] for sample in chunk])
        return Answers({"y": x - x.mean(0)})

    signature = Signature.parse({"inputs": [tensor("float32", [-1, 3], "x")], "outputs": [tensor("float32", [-1, 3], "y")]})
    subject = Subject(signature, lambda _: None, answers, None, Head(), {}, "NumPy")
    with pytest.raises(ParityFailed, match="depends on the rows beside it"):
        prove(subject, tmp_path / "model.onnx", samples(signature, crops=8))


def test_much_is_thinned_and_little_is_kept_whole() -> None:
    assert thinned(np.arange(12).reshape(2, 2, 3)).tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert thinned(np.arange(100).reshape(1, 100), 4).tolist() == [[0, 33, 66, 99]]


def means(chunk: Any) -> Answers:
    """What the mean model says, by NumPy."""
    spec = PreprocessSpec((Resize(4, 5),))
    rows = [
        spec.encoded([value.read_bytes()], height=4, width=5)[0] if isinstance(value, Path) else value
        for sample in chunk
        for value in sample.values()
    ]
    return Answers({"output-0": np.stack([row.mean((0, 1), dtype=np.float32) for row in rows])})


def written(target: Path, answers: Callable[[Any], Answers] = means, **more: Any) -> Path:
    """The mean model, packaged and proved against `answers`."""
    pytest.importorskip("torch")
    from tensign_converters.package import write_model
    from tensign_converters.subject import Head, Subject

    original = save_mean_model(target.with_name("original"))
    subject = Subject(
        PICTURES,
        partial(shutil.copyfile, original / "model.onnx"),
        answers,
        PreprocessSpec((Resize(4, 5),)),
        Head("regression"),
        {"numpy": np.__version__},
        "NumPy",
    )
    target.mkdir()
    write_model(subject, target, origin={"flavor": "test"}, crops=12, **more)
    return target


def test_what_was_proved_is_verified_on_the_models_own_way(tmp_path: Path) -> None:
    path = written(tmp_path / "made")
    found = verify(path, CPU)
    assert (found.device, found.parity.rows) == ("cpu", 30)
    assert found.parity.max_difference < 1e-4
    assert found.record.against == "NumPy"
    assert found.record.proofs["fp32"].parity.rows == 30
    assert any("other execution providers" in each for each in found.record.unchecked)


def test_a_conversion_that_says_something_else_is_refused(tmp_path: Path) -> None:
    def others(chunk: Any) -> Answers:
        return Answers({"output-0": means(chunk).outputs["output-0"] + 1})

    with pytest.raises(ParityFailed, match="does not predict as the original: greatest difference"):
        written(tmp_path / "made", others)


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "made")
    with (path / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ParityFailed, match=r"model\.onnx changed since or missing"):
        verify(path, CPU)


def test_answers_that_are_no_longer_the_originals_fail(tmp_path: Path) -> None:
    path = written(tmp_path / "made")
    with np.load(path / ANSWERS_FILE) as kept:
        changed = {name: array.copy() for name, array in kept.items()}
    changed["output-0"][7] += 1
    np.savez(path / ANSWERS_FILE, **changed)
    with pytest.raises(ParityFailed, match="on this machine it does not predict as its original did: greatest"):
        verify(path, CPU)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (RECORD_FILE, None, r"no conversion\.json, so it was not converted by this tensign"),
        (ANSWERS_FILE, None, r"no proof\.npz beside conversion\.json: it was deleted, or not copied"),
        (RECORD_FILE, b"{", "is broken"),
        (RECORD_FILE, b"[]", "is broken"),
        (RECORD_FILE, b'{"version": 9}', "of a version that this tensign does not read"),
        (ANSWERS_FILE, b"PK", "is broken"),
    ],
)
def test_a_proof_that_cannot_be_read_says_so(tmp_path: Path, name: str, content: bytes | None, told: str) -> None:
    path = written(tmp_path / "made")
    (path / name).unlink() if content is None else (path / name).write_bytes(content)
    with pytest.raises(UnsupportedModel, match=told):
        verify(path, CPU)


def test_a_proof_of_nothing_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"nowhere: no such directory"):
        verify(tmp_path / "nowhere", CPU)


def test_the_record_is_the_same_every_time_and_names_no_place(tmp_path: Path) -> None:
    first, second = ((written(tmp_path / name) / RECORD_FILE).read_text() for name in ("one", "two"))
    assert first == second and str(tmp_path) not in first
    assert Record.read(tmp_path / "one")[0].files.keys() == {"model.onnx"}


def test_the_saved_example_is_tried_and_comes_along(tmp_path: Path) -> None:
    source = write_mlmodel(
        tmp_path / "source",
        signature={"inputs": [tensor("uint8", [-1, 4, 5, 3])], "outputs": [tensor("float32", [-1, 3])]},
        saved_input_example_info={"artifact_path": "input_example.json", "type": "ndarray"},
    )
    pixels = np.arange(120, dtype=np.uint8).reshape(2, 4, 5, 3)
    (source / "input_example.json").write_text(json.dumps({"inputs": pixels.tolist()}))
    path = written(tmp_path / "made", source=read_mlmodel(source))
    assert verify(path, CPU).parity.inputs.startswith("2 rows of the saved input example, ")
    assert (path / "input_example.json").is_file()


def test_the_command_says_what_it_found_and_writes_a_page(tmp_path: Path) -> None:
    path = written(tmp_path / "made")
    nowhere = CliRunner().invoke(app, ["verify", str(path), "--report", str(tmp_path / "none" / "page.html")])
    assert isinstance(nowhere.exception, InvalidConfig) and "page.html: No such file or directory" in str(nowhere.exception)
    page = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["verify", str(path), "--device", "cpu", "--report", str(page)])
    assert done.exit_code == 0, done.output
    assert "greatest difference" in done.output and "held against: NumPy" in done.output
    assert f"report: {page}" in done.output
    html = page.read_text()
    assert "verified just now" in html and "<svg" in html and html.count("<img") == 8
    assert str(tmp_path) not in html
