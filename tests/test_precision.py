"""Precisions beside fp32: half and 8-bit variants are written, proved, refused, served and verified by name."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import PIL.Image
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from conftest import CPU, tensor, write_mlmodel
from onnx_networks import small
from precision_network import BOTH, DECLARED, SIZE, answer, feeds, folder_of, network, noise, per_pixel
from tensign.cli import app
from tensign.conversion import convert
from tensign.demo import MODEL
from tensign.errors import InvalidConfig, ParityFailed, UnsupportedModel
from tensign.proof.parity import LOGITS, NETWORK_INPUT
from tensign.proof.record import Record, digest
from tensign.proof.samples import photographs
from tensign.proof.verification import verify
from tensign_converters.live import module_subject
from tensign_converters.package import write_model
from tensign_converters.precision import calibration
from tensign_converters.precision.asked import check_variants
from tensign_converters.precision.halves import halve
from tensign_converters.precision.part import joined, parts
from tensign_converters.precision.quantized import quantize
from tensign_converters.prove import tolerance
from tensign_converters.subject import Head, Subject
from tensign_converters.workshop import workshop


@pytest.fixture(scope="module")
def subject() -> Subject:
    return module_subject(network(), DECLARED, None)


@pytest.fixture(scope="module")
def graph(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network in single precision."""
    file = tmp_path_factory.mktemp("graph") / "model.onnx"
    subject.write(file)
    return file


def test_a_graph_taken_apart_and_joined_again_says_the_same(graph: Path) -> None:
    split = parts(onnx.load(graph))
    assert [value.name for value in split.network.graph.output] == [LOGITS]
    assert NETWORK_INPUT in [value.name for value in split.network.graph.input]
    assert "Softmax" not in {node.op_type for node in split.network.graph.node}
    again = joined(split.whole, split.network)
    onnx.checker.check_model(again, full_check=True)
    assert np.array_equal(answer(again.SerializeToString(), noise()), answer(graph, noise()))


def test_a_constant_that_preprocessing_and_network_share_stays_whole_for_the_former(tmp_path: Path) -> None:
    third = numpy_helper.from_array(np.array(1 / 3, np.float32), "third")
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "third"], [NETWORK_INPUT], name="before"),
        helper.make_node("Mul", [NETWORK_INPUT, "third"], ["y"], name="within"),
    ]
    given = helper.make_tensor_value_info("image", TensorProto.UINT8, ["rows", 2])
    gives = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 2])
    made = helper.make_graph(nodes, "shared", [given], [gives], [third])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    halve(model, tmp_path / "half.onnx", [{"image": np.array([[0, 255]], np.uint8)}])
    kinds = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "half.onnx").graph.initializer}
    assert kinds == {"third": TensorProto.FLOAT, "third.network": TensorProto.FLOAT16}


def test_half_precision_is_of_the_network_alone(graph: Path, tmp_path: Path) -> None:
    halve(onnx.load(graph), tmp_path / "half.onnx", feeds(noise()))
    made = onnx.load(tmp_path / "half.onnx").graph
    weights = {tensor.name: tensor.data_type for tensor in made.initializer if tensor.name.startswith("network.")}
    assert set(weights.values()) == {TensorProto.FLOAT16}
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*made.value_info, *made.input, *made.output)}
    assert kinds[NETWORK_INPUT] == kinds[LOGITS] == kinds["output"] == TensorProto.FLOAT
    apart = np.abs(answer(tmp_path / "half.onnx", noise()) - answer(graph, noise())).max()
    assert 0 < apart < 5e-3


def test_weights_that_are_stored_in_half_precision_are_read_as_what_is_computed() -> None:
    network = parts(onnx.load(MODEL / "model.onnx")).network.graph
    assert {tensor.data_type for tensor in network.initializer} <= {TensorProto.FLOAT, TensorProto.INT64}
    assert "Cast" not in {node.op_type for node in network.node}


def test_what_has_no_variants_says_so(tmp_path: Path) -> None:
    made = tmp_path / "made.onnx"
    with pytest.raises(UnsupportedModel, match="variant fp16: the network has no weights in single precision"):
        halve(small(dtype=np.float16, opset=20), made, [])
    with pytest.raises(
        UnsupportedModel, match="variant int8: wanted a network in single precision, got one that computes in half"
    ):
        quantize(small(dtype=np.float16, opset=20), made, [])
    quantize(small(rows="rows", opset=20), made, [{"x": np.ones((1, 3, 32, 40), np.float32)}])
    with pytest.raises(UnsupportedModel, match="variant int8: the network is quantized already"):
        quantize(onnx.load(made), made, [])
    branch = helper.make_graph([], "branch", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])])
    looping = small()
    looping.graph.node.append(helper.make_node("If", ["flag"], ["z"], then_branch=branch, else_branch=branch))
    with pytest.raises(UnsupportedModel, match="branches or loops"):
        halve(looping, made, [])


def test_eight_bits_are_unsigned_for_activations_and_signed_by_channel_for_weights(graph: Path, tmp_path: Path) -> None:
    pixels = noise(24)
    quantize(onnx.load(graph), tmp_path / "int8.onnx", feeds(pixels))
    made = onnx.load(tmp_path / "int8.onnx").graph
    constants = {tensor.name: tensor for tensor in made.initializer}
    points = {constants[node.input[2]].data_type for node in made.node if node.op_type == "QuantizeLinear"}
    assert points == {TensorProto.UINT8}
    kernels = [tensor for tensor in made.initializer if tensor.data_type == TensorProto.INT8 and len(tensor.dims) == 4]
    assert len(kernels) == 2
    scales = [constants[node.input[1]].dims for node in made.node if node.input[0] in {kernel.name for kernel in kernels}]
    assert sorted(map(list, scales)) == [[8], [16]]
    assert np.abs(answer(tmp_path / "int8.onnx", pixels) - answer(graph, pixels)).max() < 0.05


def test_a_bias_takes_back_what_rounded_weights_move(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensign_converters.precision import quantized

    pixels, moved = noise(24), []
    for correct in (quantized._corrected, lambda network, known, front: network):
        monkeypatch.setattr(quantized, "_corrected", correct)
        quantize(onnx.load(graph), tmp_path / "int8.onnx", feeds(pixels))
        moved.append(np.abs((answer(tmp_path / "int8.onnx", pixels) - answer(graph, pixels)).mean(axis=0)).max())
    assert moved[0] < 0.7 * moved[1]


@pytest.mark.parametrize(
    ("names", "folder", "told"),
    [
        (("int4",), None, "--variant int4: wanted fp16 or int8; fp32 is always written"),
        ((), ".", "--calibrate: only variants are calibrated and judged on pictures: --variant int8, or fp16"),
        (("int8",), "nowhere", "--calibrate nowhere: wanted a folder of pictures, and there is none"),
        (("int8",), __file__, "test_precision.py: wanted a folder of pictures, and it is a file"),
    ],
)
def test_what_nobody_could_do_is_refused_at_once(names: tuple[str, ...], folder: str | None, told: str) -> None:
    with pytest.raises(InvalidConfig, match=told):
        check_variants(names, Path(folder) if folder else None)


def test_eight_bits_want_pictures(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="--variant int8: is calibrated on pictures like those to come: --calibrate FOLDER"):
        write_model(subject, tmp_path, origin={}, crops=4, variants=["int8"])


def test_what_certainly_takes_pictures_is_refused_before_anything_is_loaded(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    signature = {"inputs": [tensor("uint8", [-1, 8, 8, 3])], "outputs": [tensor("float32", [-1, 2])]}
    source = write_mlmodel(tmp_path / "model", signature=signature, flavors={"fastai": {"data": "model.fastai"}})
    with pytest.raises(InvalidConfig, match="int8: is calibrated on pictures like those to come: --calibrate FOLDER"):
        convert(source, tmp_path / "made", trust=False, variants=["int8"])
    assert not capfd.readouterr().err


def test_tables_have_no_variants(fixture_dir: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="--variant fp16: a model of columns has none"):
        convert(fixture_dir("heart-sklearn-skops"), tmp_path / "made", trust=False, variants=["fp16"])
    assert list(tmp_path.iterdir()) == []


def test_a_variant_beyond_its_tolerance_is_refused_and_nothing_is_left(subject: Subject, tmp_path: Path) -> None:
    bright = calibration._third(30)  # which are held back
    rows = [row if number in bright else row // 64 for number, row in enumerate(noise(30))]
    dark = folder_of(tmp_path / "dark", [PIL.Image.fromarray(row) for row in rows])
    told = r"its int8 variant does not .*top-1 agreement [\d.]+%, on 10 pictures held back .*; beside them: .*from 97% on"
    with pytest.raises(ParityFailed, match=told), workshop(tmp_path / "made") as made:
        write_model(subject, made, origin={}, crops=24, variants=["int8"], calibrate=dark)
    assert [each.name for each in tmp_path.iterdir()] == ["dark"]


def test_variants_are_judged_on_what_was_held_back_and_told_of_photographs(subject: Subject, tmp_path: Path) -> None:
    dark = folder_of(tmp_path / "dark", [PIL.Image.fromarray(row // 64) for row in noise(30)])
    made = tmp_path / "made"
    made.mkdir()
    said = write_model(subject, made, origin={}, crops=24, variants=BOTH, calibrate=dark)
    assert "\nint8 on rows that it is not judged by: greatest difference" in said and "calibrated on: 20 pictures" in said
    proofs = Record.read(made)[0].proofs
    own = proofs["int8"].held
    assert proofs["fp32"].held is None and own and own.rows == 100
    assert own.inputs == "10 pictures held back from calibration and 90 pieces of them"
    assert (proofs["int8"].parity.top1_agreement or 0) < 0.97 <= (own.top1_agreement or 0)
    for variant in BOTH:
        found = verify(made, replace(CPU, variant=variant))
        assert found.parity.rows == proofs[variant].parity.rows == 42
    done = CliRunner().invoke(app, ["verify", str(made), "--device", "cpu", "--variant", "int8"])
    assert done.exit_code == 0 and "here the rows that are kept differ" in done.output, done.output
    document = json.loads((made / "conversion.json").read_text())
    better = json.loads(json.dumps(document))
    better["proofs"]["int8"]["parity"] |= {"top1_agreement": 1.0}
    (made / "conversion.json").write_text(json.dumps(better))
    with pytest.raises(ParityFailed, match="its int8 variant does not predict as its original did"):
        verify(made, replace(CPU, variant="int8"))
    as_allowed, none = "held: wanted what its tolerance allows", "held.top1_agreement: wanted a share, as of fp32, got none"
    forgeries = (("int8", 0.9, as_allowed), ("fp32", 1.0, as_allowed), ("int8", None, none))
    for precision, agreement, wanted in forgeries:
        forgery = json.loads(json.dumps(document))
        forgery["proofs"][precision]["held"] = {**document["proofs"]["int8"]["held"], "top1_agreement": agreement}
        (made / "conversion.json").write_text(json.dumps(forgery))
        with pytest.raises(UnsupportedModel, match=rf"proofs\.{precision}\.{wanted}"):
            verify(made, replace(CPU, variant="int8"))


def test_pictures_that_are_all_alike_are_told_to_judge_next_to_nothing(subject: Subject, tmp_path: Path) -> None:
    white = folder_of(tmp_path / "white", [PIL.Image.new("RGB", (SIZE, SIZE), (level,) * 3) for level in (255, 254, 253)])
    made = tmp_path / "made"
    made.mkdir()
    told = "much of int8: answers hardly differ from row to row of 1 picture held back from calibration and 99 pieces of it"
    assert told in write_model(subject, made, origin={}, crops=24, variants=["int8"], calibrate=white)
    assert told in Record.read(made)[0].unchecked


def test_where_nobody_can_count_labels_a_variant_is_verified_by_how_far_it_was_off(tmp_path: Path) -> None:
    """Of a segmentation the kept answers are thinned, and any probabilities are within the tolerance of eight bits."""
    made = tmp_path / "made"
    made.mkdir()
    pieces = folder_of(tmp_path / "pieces", [PIL.Image.open(file).convert("RGB") for file in photographs()[:3]])
    write_model(module_subject(per_pixel(), DECLARED, None), made, origin={}, crops=8, variants=["int8"], calibrate=pieces)
    assert verify(made, replace(CPU, variant="int8")).parity.top1_agreement is None
    file, document = made / "model.int8.onnx", json.loads((made / "conversion.json").read_text())
    broken = onnx.load(file)
    (weights,) = [tensor for tensor in broken.graph.initializer if list(tensor.dims) == [3, 8, 3, 3]]
    weights.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weights), weights.name))
    onnx.save(broken, file)
    document["files"][file.name] = digest(file)
    (made / "conversion.json").write_text(json.dumps(document))
    with pytest.raises(ParityFailed, match="its int8 variant does not predict as its original did"):
        verify(made, replace(CPU, variant="int8"))


def test_pictures_are_not_for_what_takes_tensors(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="--calibrate: the model takes tensors, which no folder of pictures becomes"):
        write_model(replace(subject, preprocess=None), tmp_path, origin={}, crops=4, variants=["fp16"], calibrate=tmp_path)


def test_where_nothing_is_decided_eight_bits_may_move_numbers_by_a_tenth(subject: Subject) -> None:
    tasks = ("classification", "multilabel", "segmentation", "regression", "")
    allowed = [tolerance(replace(subject, head=Head(task)), "int8") for task in tasks]
    assert [each.agreement for each in allowed] == [0.97, 0.95, 0.97, 0.0, 0.0]
    assert [each.relative for each in allowed] == [1.0, 1.0, 1.0, 0.1, 0.1]
    assert tolerance(subject, "fp16").relative == 1e-2 and tolerance(subject, "fp32") is subject.tolerance


_TWICE = """
import sys, onnx
from pathlib import Path
from tensign.preprocess import PreprocessSpec, Resize
from tensign_converters.precision import calibration, halves, quantized
graph, folder, target = onnx.load(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
found = calibration.pictures(folder, PreprocessSpec((Resize(48, 48),)), "image")
feeds = [{"image": row} for row in found.rows]
quantized.quantize(graph, target / "int8.onnx", feeds)
halves.halve(graph, target / "fp16.onnx", feeds)
"""


def test_variants_are_the_same_bytes_every_time(graph: Path, tmp_path: Path) -> None:
    """In processes that hash, and so order sets, differently."""
    made = []
    for seed in ("1", "2"):
        target = tmp_path / seed
        target.mkdir()
        command = [sys.executable, "-W", "ignore", "-c", _TWICE, str(graph), str(photographs()[0].parent), str(target)]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": seed})
        made.append([hashlib.sha256((target / f"{name}.onnx").read_bytes()).hexdigest() for name in BOTH])
    assert made[0] == made[1]
