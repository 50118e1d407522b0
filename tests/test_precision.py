"""Precisions beside fp32: half and 8-bit variants are written, proved, refused, served and verified by name."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import PIL.Image
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_networks import small
from tensign.conversion import convert
from tensign.demo import MODEL
from tensign.errors import InvalidConfig, ParityFailed, UnsupportedModel
from tensign.preprocess import CropPad, PreprocessSpec, Resize
from tensign.proof.parity import LOGITS, NETWORK_INPUT
from tensign.proof.samples import photographs

pytest.importorskip("torch")

import torch
from torch import nn

from tensign_converters.live import module_subject
from tensign_converters.package import write_model
from tensign_converters.precision.asked import check_variants
from tensign_converters.precision.calibration import example_rows
from tensign_converters.precision.calibration import pictures as calibration_pictures
from tensign_converters.precision.halves import halve
from tensign_converters.precision.part import joined, parts
from tensign_converters.precision.quantized import quantize
from tensign_converters.precision.variants import tolerance
from tensign_converters.subject import Head, Subject
from tensign_converters.workshop import workshop

SIZE = 48
DECLARED: dict[str, Any] = {
    "steps": [{"op": "resize", "height": SIZE, "width": SIZE, "method": "squish"}],
    "divide": 255.0,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "activation": "softmax",
}
BOTH = ("fp16", "int8")


def network() -> nn.Module:
    """Random, its batch norms calibrated on photographs, so that answers differ from picture to picture."""
    torch.manual_seed(3)
    last = nn.Linear(16, 4)
    layers = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, groups=2), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(16), last),
    )
    pixels = np.stack([np.asarray(PIL.Image.open(file).convert("RGB").resize((SIZE, SIZE))) for file in photographs()])
    with torch.no_grad():
        for _ in range(60):
            layers((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25)
        last.weight *= 4
    return layers.eval()


@pytest.fixture(scope="module")
def subject() -> Subject:
    return module_subject(network(), DECLARED, None)


@pytest.fixture(scope="module")
def graph(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network in single precision."""
    file = tmp_path_factory.mktemp("graph") / "model.onnx"
    subject.write(file)
    return file


def folder_of(target: Path, images: Sequence[PIL.Image.Image]) -> Path:
    target.mkdir()
    for number, image in enumerate(images):
        image.save(target / f"{number:03}.png")
    return target


def answer(file: Path | bytes, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    import onnxruntime

    model = str(file) if isinstance(file, Path) else file
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    given: npt.NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: pixels})[0]
    return given


def noise(rows: int = 4) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (rows, SIZE, SIZE, 3), np.uint8)


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
    halve(model, tmp_path / "half.onnx")
    kinds = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "half.onnx").graph.initializer}
    assert kinds == {"third": TensorProto.FLOAT, "third.network": TensorProto.FLOAT16}


def test_half_precision_is_of_the_network_alone(graph: Path, tmp_path: Path) -> None:
    halve(onnx.load(graph), tmp_path / "half.onnx")
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
        halve(small(dtype=np.float16, opset=20), made)
    quantize(small(rows="rows", opset=20), made, [{"x": np.ones((1, 3, 32, 40), np.float32)}])
    with pytest.raises(UnsupportedModel, match="variant int8: the network is quantized already"):
        quantize(onnx.load(made), made, [])
    branch = helper.make_graph([], "branch", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])])
    looping = small()
    looping.graph.node.append(helper.make_node("If", ["flag"], ["z"], then_branch=branch, else_branch=branch))
    with pytest.raises(UnsupportedModel, match="branches or loops"):
        halve(looping, made)


def test_eight_bits_are_unsigned_for_activations_and_signed_by_channel_for_weights(graph: Path, tmp_path: Path) -> None:
    pixels = noise(24)
    quantize(onnx.load(graph), tmp_path / "int8.onnx", [{"image": row[None]} for row in pixels])
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
        quantize(onnx.load(graph), tmp_path / "int8.onnx", [{"image": row[None]} for row in pixels])
        moved.append(np.abs((answer(tmp_path / "int8.onnx", pixels) - answer(graph, pixels)).mean(axis=0)).max())
    assert moved[0] < 0.7 * moved[1]


def test_few_pictures_are_cut_and_what_is_none_is_named(tmp_path: Path) -> None:
    spec = PreprocessSpec((Resize(40, 50),))
    folder = folder_of(tmp_path / "few", [PIL.Image.open(file).convert("RGB") for file in photographs()[:3]])
    (folder / "deep").mkdir()
    (folder / "deep" / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "notes.txt").write_text("no picture, and no picture's name")
    found = calibration_pictures(folder, spec)
    assert found.told == "3 pictures and 97 pieces of them; 1 could not be read: torn.jpg"
    assert {row.shape for row in found.rows} == {(1, 40, 50, 3)}
    assert len({row.tobytes() for row in found.rows}) == 100
    assert all(np.array_equal(*pair) for pair in zip(found.rows, calibration_pictures(folder, spec).rows, strict=True))


def test_enough_pictures_are_taken_whole_and_too_many_thinned(tmp_path: Path) -> None:
    images = [PIL.Image.fromarray(row) for row in noise(25)]
    assert calibration_pictures(folder_of(tmp_path / "enough", images), PreprocessSpec()).told == "25 pictures"
    folder = folder_of(tmp_path / "many", [image.resize((2, 2)) for image in images * 9])
    assert calibration_pictures(folder, PreprocessSpec((CropPad(4, 4),))).told == "200 pictures"


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"torn")
    with pytest.raises(InvalidConfig, match=r"found none that can be read; 1 could not be read: a\.png"):
        calibration_pictures(tmp_path, PreprocessSpec())


def test_tensors_are_calibrated_on_a_saved_example_of_enough_rows() -> None:
    rows, told = example_rows({"a": np.ones((25, 3)), "b": np.zeros((25, 2))})
    assert told == "25 rows of the saved input example" and len(rows) == 25
    assert {name: row.shape for name, row in rows[0].items()} == {"a": (1, 3), "b": (1, 2)}
    for example, count in (({"a": np.ones((19, 3))}, 19), (None, 0)):
        with pytest.raises(UnsupportedModel, match=f"its saved input example has {count} rows; wanted 20"):
            example_rows(example)


@pytest.mark.parametrize(
    ("names", "folder", "told"),
    [
        (("int4",), None, "--variant int4: wanted fp16 or int8; fp32 is always written"),
        (("fp16",), ".", "--calibrate: only --variant int8 is calibrated"),
        (("int8",), "nowhere", "--calibrate nowhere: wanted a folder of pictures, and there is none"),
    ],
)
def test_what_nobody_could_do_is_refused_at_once(names: tuple[str, ...], folder: str | None, told: str) -> None:
    with pytest.raises(InvalidConfig, match=told):
        check_variants(names, Path(folder) if folder else None)


def test_eight_bits_want_pictures(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="--variant int8: is calibrated on pictures like those to come: --calibrate FOLDER"):
        write_model(subject, tmp_path, origin={}, crops=4, variants=["int8"])


def test_tables_have_no_variants(fixture_dir: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="--variant fp16: a model of columns has none"):
        convert(fixture_dir("heart-sklearn-skops"), tmp_path / "made", trust=False, variants=["fp16"])
    assert list(tmp_path.iterdir()) == []


def test_a_variant_beyond_its_tolerance_is_refused_and_nothing_is_left(subject: Subject, tmp_path: Path) -> None:
    dark = folder_of(tmp_path / "dark", [PIL.Image.fromarray(row // 64) for row in noise(20)])
    with (
        pytest.raises(ParityFailed, match=r"its int8 variant does not .*top-1 agreement [\d.]+%.*agreement from 97% on"),
        workshop(tmp_path / "made") as made,
    ):
        write_model(subject, made, origin={}, crops=24, variants=["int8"], calibrate=dark)
    assert [each.name for each in tmp_path.iterdir()] == ["dark"]


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
rows = calibration.pictures(folder, PreprocessSpec((Resize(48, 48),))).rows
quantized.quantize(graph, target / "int8.onnx", [{"image": row} for row in rows])
halves.halve(graph, target / "fp16.onnx")
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
