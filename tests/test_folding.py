"""Existing ONNX files with their preprocessing folded in, against the untouched file and against torchvision."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import PIL.Image
import pytest
from onnx import ModelProto, TensorProto, helper

from onnx_networks import CLASSES, saved, small
from tensign.errors import InvalidConfig, UnsupportedModel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")

    from tensign.proof.parity import LOGITS, NETWORK_INPUT
    from tensign_converters.declared.declaration import Declaration
    from tensign_converters.graph import INPUT, IR_VERSION, OPSET, OUTPUT
    from tensign_converters.onnxfiles.file import opset
    from tensign_converters.onnxfiles.folding import fold, preprocess, signature
    from tensign_converters.onnxfiles.original import open_session, original_answers
    from tensign_converters.prove import with_inner_outputs

IMAGENET: dict[str, Any] = {"divide": 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
CROPPED: dict[str, Any] = {
    **IMAGENET,
    "steps": [{"op": "resize_shorter", "size": 48}, {"op": "centre_crop", "height": 32, "width": 40}],
}
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def declare(**document: Any) -> Declaration:
    return Declaration.parse({"mode": "RGB", **document}, Path())


def answered(model: ModelProto, declaration: Declaration, samples: list[Any], rows: int) -> dict[str, npt.NDArray[Any]]:
    """What the folded model says, some rows at a time, of the same samples as the original; inner outputs besides."""
    file = io.BytesIO()
    onnx.save(model, file)
    session, spec = open_session(file.getvalue()), declaration.spec()
    pixels = [
        spec.encoded([sample.read_bytes()], height=-1, width=-1) if isinstance(sample, Path) else spec.arrays(sample[None])
        for sample in samples
    ]
    names = [value.name for value in session.get_outputs()]
    image = session.get_inputs()[0].name
    parts = [session.run(None, {image: np.concatenate(pixels[first : first + rows])}) for first in range(0, len(pixels), rows)]
    return {name: np.concatenate(side) for name, side in zip(names, zip(*parts, strict=True), strict=True)}


def check(file: Path, declaration: Declaration, samples: list[Any], *, tolerance: float = 2e-6) -> ModelProto:
    """Folds and holds it against the untouched file, which must tell the samples from each other."""
    model = fold(file, declaration)
    wanted = original_answers(file, declaration)([{INPUT: sample} for sample in samples])
    assert {value.name for value in model.graph.output} | {LOGITS} >= set(wanted)
    for rows in (1, 3, len(samples)):
        got = answered(model, declaration, samples, rows)
        for name, answer in got.items():
            assert answer.dtype == wanted[name].dtype and answer.shape == wanted[name].shape
            scale = np.abs(wanted[name]).max()
            assert np.ptp(wanted[name].astype(np.float64), axis=0).max() > 1e-3 * scale > 0, "it says the same of all pictures"
            assert np.abs(answer - wanted[name]).max() <= tolerance * scale
    return model


@pytest.fixture
def arrays() -> list[npt.NDArray[np.uint8]]:
    random = np.random.default_rng(1)
    return [random.integers(0, 256, (32, 40, 3), np.uint8) // darker for darker in (1, 2, 5, 3)]


KINDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"opset": 11}, {}),
    ({"opset": 13, "rows": "N"}, {}),
    ({"opset": 17, "rows": "N", "size": ("H", "W")}, {}),
    ({"opset": 20}, {"activation": "softmax"}),
    ({"opset": 21}, {"activation": "sigmoid", "threshold": 0.5}),
    ({"layout": "NHWC"}, {"layout": "NHWC", "activation": "softmax", "labels": list("abcde")}),
    ({"layout": "NHWC", "rows": None, "size": (None, None)}, {"layout": "NHWC", "mean": 0.4, "std": 0.2}),
    ({"rows": 4}, {}),
    ({"flatten": (1, 8)}, {}),
    ({"flatten": (1, -1)}, {}),
    ({"flatten": (4, 8), "rows": 4}, {}),
    ({"flatten": (0, 8)}, {}),
    ({"per_pixel": True}, {"activation": "softmax"}),
    ({"per_pixel": True, "rows": "N", "size": ("H", "W")}, {"labels": list("abcde")}),
    ({"rows": "rows", "size": ("width", "rows")}, {"divide": 127.5}),
]


@pytest.mark.parametrize(("network", "said"), KINDS, ids=str)
def test_it_says_what_the_file_says(
    tmp_path: Path, arrays: list[Any], pictures: list[Path], network: dict[str, Any], said: dict[str, Any]
) -> None:
    declaration = declare(**{**CROPPED, **said})
    file = saved(small(**network), tmp_path / "network.onnx")
    model = check(file, declaration, [*arrays, *pictures])
    assert opset(model) == max(network.get("opset", 17), OPSET) and model.ir_version == IR_VERSION
    image, output = (json.loads(side)[0] for side in signature(model, declaration).values())
    assert image == {"name": "x", "type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, 32, 40, 3]}}
    assert output["name"] == "y"
    assert output["tensor-spec"]["shape"] == ([-1, CLASSES, 15, 19] if network.get("per_pixel") else [-1, CLASSES])


def test_float16_networks_are_fed_halves_and_answer_in_theirs(tmp_path: Path, arrays: list[Any]) -> None:
    file = saved(small(dtype=np.float16, rows="N"), tmp_path / "network.onnx")
    model = check(file, declare(**CROPPED), arrays, tolerance=5e-3)
    assert preprocess(model, declare(**CROPPED)) == declare(**CROPPED).spec("float16")
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    model = check(file, declare(**CROPPED, activation="softmax"), arrays, tolerance=5e-3)
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT  # a probability is no half


@pytest.mark.parametrize(
    ("names", "activation", "called"),
    [
        (("pixel_values", "logits"), "none", ("pixel_values", "logits")),
        (("pixel_values", "logits"), "softmax", ("pixel_values", OUTPUT)),
        (("logits", "network_input"), "none", ("network.logits", "network.network_input")),
        ((OUTPUT, INPUT), "softmax", (OUTPUT, INPUT)),
    ],
)
def test_names_stay_where_they_are_not_ours(
    tmp_path: Path, arrays: list[Any], names: tuple[str, str], activation: str, called: tuple[str, str]
) -> None:
    file = saved(small(names=names), tmp_path / "network.onnx")
    model = check(file, declare(**CROPPED, activation=activation), arrays)
    assert (model.graph.input[0].name, model.graph.output[0].name) == called


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_networks_that_take_bytes_get_them(tmp_path: Path, arrays: list[Any], layout: str) -> None:
    file = saved(small(dtype=np.uint8, layout=layout), tmp_path / "network.onnx")
    model = check(file, declare(layout=layout, activation="softmax"), arrays)
    steps = [node.op_type for node in model.graph.node if node.name.startswith("steps.")]
    assert steps == ["Transpose" if layout == "NCHW" else "Identity"]
    with pytest.raises(UnsupportedModel, match="wanted float32 or float16, since divide, mean or std is declared, got uint8"):
        fold(file, declare(layout=layout, divide=255))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_grey_pictures(tmp_path: Path, arrays: list[Any], layout: str) -> None:
    file = saved(small(channels=1, layout=layout, rows="N", size=("H", "W")), tmp_path / "network.onnx")
    declaration = declare(mode="L", layout=layout, divide=255, mean=0.5, std=0.25)
    model = check(file, declaration, [array[..., 0] for array in arrays])
    (image,) = json.loads(signature(model, declaration)["inputs"])
    assert image["tensor-spec"] == {"dtype": "uint8", "shape": [-1, -1, -1]}
    other = [np.ascontiguousarray(array[:20, :30, 0]) for array in arrays]
    wanted = original_answers(file, declaration)([{INPUT: array} for array in other])
    np.testing.assert_allclose(answered(model, declaration, other, 3)["y"], wanted["y"], rtol=1e-5)


def test_the_size_is_that_of_the_file_the_steps_or_any(tmp_path: Path) -> None:
    def image(declaration: Declaration, **network: Any) -> list[int]:
        model = fold(saved(small(**network), tmp_path / "network.onnx"), declaration)
        (given,) = json.loads(signature(model, declaration)["inputs"])
        return list(given["tensor-spec"]["shape"])

    anything: dict[str, Any] = {"rows": "N", "size": ("H", "W")}
    assert image(declare()) == [-1, 32, 40, 3]
    assert image(declare(), **anything) == [-1, -1, -1, 3]
    assert image(declare(input="uint8[-1,-1,64,3]"), **anything) == [-1, -1, 64, 3]
    assert image(declare(**CROPPED), **anything) == [-1, 32, 40, 3]
    assert image(declare(**CROPPED, input="uint8[-1,-1,-1,3]")) == [-1, -1, -1, 3]
    assert image(declare(**CROPPED, input="uint8[-1,300,200,3]")) == [-1, 300, 200, 3]


@pytest.mark.parametrize("dynamo", [False, True])
def test_a_network_of_torch_with_torchvisions_own_preset(tmp_path: Path, pictures: list[Path], dynamo: bool) -> None:
    """Whole: a fixed batch, batch normalisation, a view; against torch on what torchvision makes of the pictures."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 7, 4),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.AvgPool2d(13),
        torch.nn.Unflatten(1, (2, 4)),
        torch.nn.Flatten(),
        torch.nn.Linear(128, 10),
    ).eval()
    network[1].running_mean.normal_(), network[1].running_var.uniform_(0.5, 2)
    file = tmp_path / "network.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = (torch.zeros(1, 3, 224, 224),)
        if dynamo:
            torch.onnx.export(network, example, file, dynamo=True, verbose=False)
        else:
            torch.onnx.export(network, example, file, opset_version=13, dynamo=False, do_constant_folding=False)
        preset = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    steps = [{"op": "resize_shorter", "size": 256}, {"op": "centre_crop", "height": 224, "width": 224}]
    declaration = declare(**IMAGENET, steps=steps, activation="softmax")
    model = check(file, declaration, pictures)
    assert not {node.op_type for node in model.graph.node} & {"BatchNormalization", "Identity"}
    graph, _ = with_inner_outputs(saved(model, tmp_path / "folded.onnx"))
    got = answered(onnx.load_from_string(graph), declaration, pictures, 8)
    opened = [PIL.Image.open(picture).convert("RGB") for picture in pictures]
    with torch.no_grad():
        tensors = torch.stack([preset(image) for image in opened])
        logits = network(tensors)
    np.testing.assert_allclose(got[NETWORK_INPUT], tensors.numpy(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(got[LOGITS], logits.numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(got[model.graph.output[0].name], logits.softmax(1).numpy(), rtol=0, atol=1e-6)


def test_digits(fixture_dir: Callable[[str], Path]) -> None:
    """A trained network with external data, and what the framework it came from says of its pictures."""
    folder = fixture_dir("digits-onnx")
    golden = np.load(folder / "golden.npz")
    images = [folder / "golden_images" / name for name in golden["images"]]
    declaration = declare(
        steps=[{"op": "resize", "height": 64, "width": 64, "method": "squish"}], labels=list("0123456789"), **IMAGENET
    )
    model = check(folder / "model.onnx", declaration, images)
    assert not [tensor for tensor in model.graph.initializer if tensor.external_data]
    got = answered(model, declaration, images, 3)["probabilities"]
    np.testing.assert_allclose(got, golden["outputs_images"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["inception_v1", "shufflenet", "squeezenet"])
def test_files_of_others(name: str) -> None:
    """Of opset 9, for one row, weights among the inputs. Their made-up weights say about the same of every picture."""
    file = LIGHT / f"light_{name}.onnx"
    if not file.is_file():
        pytest.skip("this onnx brings no light test models")
    steps = [{"op": "resize_shorter", "size": 256}, {"op": "centre_crop", "height": 224, "width": 224}]
    model = fold(file, declare(**IMAGENET, steps=steps))
    assert opset(model) == OPSET and len(model.graph.input) == 1
    assert json.loads(signature(model, declare())["outputs"])[0]["tensor-spec"]["shape"][:2] == [-1, 1000]


def test_names_never_clash(tmp_path: Path, arrays: list[Any]) -> None:
    """A network whose own tensors and nodes are called as ours are."""
    model = small(names=("image", "network.c"), flatten=(1, -1))
    graph = model.graph
    ours = {
        "conv.weight": "steps.0",
        "conv.bias": "steps.1.constant",
        "c": "c",
        "r": LOGITS,
        "mean": OUTPUT,
        "flat": NETWORK_INPUT,
    }
    for number, node in enumerate(graph.node):
        node.input[:], node.output[:] = ([ours.get(name, name) for name in side] for side in (node.input, node.output))
        node.name = "head.softmax" if node.name == "relu" else f"steps.{number}"
    for tensor in graph.initializer:
        tensor.name = ours.get(tensor.name, tensor.name)
    file = saved(model, tmp_path / "network.onnx")
    for said in ({}, {"activation": "softmax"}):
        folded = check(file, declare(**CROPPED, **said), arrays)
        written = [name for node in folded.graph.node for name in node.output] + [
            each.name for each in folded.graph.initializer
        ]
        assert len(written) == len(set(written))
        assert {each.name for each in folded.graph.value_info} >= {NETWORK_INPUT, *([LOGITS] if said else [])}


def branching() -> ModelProto:
    """An If whose branches use weights and tensors of the graph around them."""
    model = small(opset=13)
    graph = model.graph
    gives = helper.make_tensor_value_info("then", TensorProto.FLOAT, None)
    then = helper.make_graph([helper.make_node("Add", ["flat", "shift"], ["then"])], "then", [], [gives])
    gives = helper.make_tensor_value_info("otherwise", TensorProto.FLOAT, [1, 8])
    flat = onnx.numpy_helper.from_array(np.ones((1, 8), np.float32), "otherwise")
    otherwise = helper.make_graph([], "otherwise", [], [gives], [flat])
    graph.initializer.append(onnx.numpy_helper.from_array(np.full(8, 2, np.float32), "shift"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(4.8, np.float32), "limit"))
    last = graph.node.pop()
    last.input[0] = "chosen"
    graph.node.append(helper.make_node("ReduceMax", ["flat"], ["most"], keepdims=0))
    graph.node.append(helper.make_node("Greater", ["most", "limit"], ["bright"]))
    graph.node.append(helper.make_node("If", ["bright"], ["chosen"], then_branch=then, else_branch=otherwise))
    graph.node.append(last)
    return model


def test_graphs_within_nodes_keep_their_opset_and_find_what_is_renamed(tmp_path: Path, arrays: list[Any]) -> None:
    file = saved(branching(), tmp_path / "network.onnx")
    same = [arrays[0], arrays[0] // 2 + 1, arrays[0] // 3 + 1]
    with pytest.raises(UnsupportedModel, match="a row differs from what the file gives for it alone"):
        fold(file, declare(**IMAGENET))  # its branch goes by all rows together
    model = check(file, declare(divide=255, mean=0, std=0.01), same)
    assert opset(model) == 13


def test_several_outputs_keep_their_names(tmp_path: Path, arrays: list[Any]) -> None:
    model = small(names=("x", INPUT))
    model.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, [None, None]))
    model.graph.node.append(helper.make_node("ArgMax", [INPUT], ["best"], axis=1, keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("best", TensorProto.INT64, [1]))
    file = saved(model, tmp_path / "network.onnx")
    folded = fold(file, declare(**CROPPED))
    assert [value.name for value in folded.graph.output] == ["image", "flat", "best"]
    outputs = json.loads(signature(folded, declare())["outputs"])
    assert [each["tensor-spec"] for each in outputs[1:]] == [
        {"dtype": "float32", "shape": [-1, 8]},
        {"dtype": "int64", "shape": [-1]},
    ]
    for said in ({"activation": "softmax"}, {"labels": list("abcde")}, {"threshold": 0.5}):
        with pytest.raises(UnsupportedModel, match="are for one output, and there are 3: image, flat, best"):
            fold(file, declare(**CROPPED, **said))


def test_microsofts_operators_are_kept(tmp_path: Path, arrays: list[Any]) -> None:
    model = small()
    model.graph.node[1].CopyFrom(helper.make_node("Gelu", ["c"], ["r"], domain="com.microsoft"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    folded = check(saved(model, tmp_path / "network.onnx"), declare(**CROPPED), arrays)
    assert {each.domain for each in folded.opset_import} == {"", "com.microsoft"}


def test_the_same_file_gives_the_same_bytes_here_and_elsewhere(tmp_path: Path) -> None:
    file = saved(small(opset=11, flatten=(1, -1)), tmp_path / "network.onnx")
    program = (
        "import sys; from pathlib import Path; from tensign_converters.onnxfiles.folding import fold;"
        "from tensign_converters.declared.declaration import Declaration;"
        f"said = Declaration.parse({CROPPED!r}, Path()); Path(sys.argv[2]).write_bytes("
        "fold(Path(sys.argv[1]), said).SerializeToString(deterministic=True))"
    )
    made = {fold(file, declare(**CROPPED)).SerializeToString(deterministic=True) for _ in range(2)}
    command = [sys.executable, "-W", "ignore", "-c", program, str(file), str(tmp_path / "elsewhere")]
    subprocess.run(command, check=True, capture_output=True, timeout=120, env={**os.environ, "PYTHONHASHSEED": "1"})
    assert made == {(tmp_path / "elsewhere").read_bytes()}


def mixing() -> ModelProto:
    """Takes any number of rows, and subtracts their mean."""
    model = small(rows="N")
    last = model.graph.node.pop()
    last.input[0] = "centred"
    model.graph.node.append(helper.make_node("ReduceMean", ["flat"], ["middle"], axes=[0]))
    model.graph.node.append(helper.make_node("Sub", ["flat", "middle"], ["centred"]))
    model.graph.node.append(last)
    return model


def expanding() -> ModelProto:
    """A token for each row, of a number of rows that was written down."""
    model = small()
    last = model.graph.node.pop()
    last.input[0] = "both"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 4), np.float32), "token"))
    model.graph.node.append(helper.make_node("Concat", ["flat", "token"], ["longer"], axis=1))
    model.graph.node.append(helper.make_node("Slice", ["longer", "first", "end", "axis"], ["both"]))
    for name, value in (("first", 4), ("end", 12), ("axis", 1)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([value], np.int64), name))
    model.graph.node.append(last)
    return model


def two_inputs() -> ModelProto:
    model = small()
    model.graph.input.append(helper.make_tensor_value_info("temperature", TensorProto.FLOAT, [1]))
    return model


def doubled() -> ModelProto:
    model = small()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT))
    model.graph.node[1].input[0] = "floats"
    return model


def scalar() -> ModelProto:
    model = small()
    model.graph.node.append(helper.make_node("ReduceMax", ["y"], ["most"], keepdims=0))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("most", TensorProto.FLOAT, []))
    return model


def sequence() -> ModelProto:
    model = small()
    model.graph.node.append(helper.make_node("SequenceConstruct", ["y"], ["list"]))
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, None))
    return model


def best() -> ModelProto:
    model = small()
    model.graph.node.append(helper.make_node("ArgMax", ["y"], ["best"], axis=1))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("best", TensorProto.INT64, [1, 1]))
    return model


def ending_in_softmax() -> ModelProto:
    model = small(rows="N")
    model.graph.node[-1].output[0] = "scores"
    model.graph.node.append(helper.make_node("Softmax", ["scores"], ["y"], axis=1))
    return model


def test_a_softmax_on_a_softmax_is_refused(tmp_path: Path) -> None:
    file = saved(ending_in_softmax(), tmp_path / "network.onnx")
    with pytest.raises(InvalidConfig, match="the network's rows sum to 1 already: declare activation: none"):
        fold(file, declare(**CROPPED, activation="softmax"))
    assert fold(file, declare(**CROPPED, activation="sigmoid"))


UNFIT: list[tuple[Callable[[], ModelProto], dict[str, Any], str]] = [
    (mixing, {}, 'a dynamic batch axis: output "y": a row differs from what the file gives for it alone'),
    (expanding, {}, "cannot be made to take 3 rows at a time; export it with a dynamic batch axis"),
    (two_inputs, {}, "a declared preprocessing feeds one input, and there are 2: x, temperature"),
    (doubled, {}, "wanted float32, float16 or uint8 [-1, 3, 32, 40] by the declared layout NCHW"),
    (scalar, {}, 'output "most": wanted one for each row, got [] of 1 row'),
    (sequence, {}, 'output "list": wanted a tensor, got seq(tensor(float))'),
    (best, {"activation": "softmax"}, "softmax: wanted a network that gives float32 or float16, it gives int64"),
    (small, {"layout": "NHWC"}, 'input "x": wanted float32, float16 or uint8 [-1, 32, 40, 3] by the declared layout NHWC'),
    (small, {"mode": "L", "mean": 0, "std": 1}, "by the declared layout NCHW, mode L and size, got float [1, 3, 32, 40]"),
    (small, {"steps": [{"op": "crop_pad", "height": 32, "width": 32}]}, "wanted float32, float16 or uint8 [-1, 3, 32, 32]"),
    (small, {"steps": [{"op": "resize_shorter", "size": 30}]}, "ONNX Runtime fails on float32 [1, 3, 30, 37]: "),
    (small, {"labels": ["a", "b"]}, "2 labels are declared, the network gives [-1, 5]"),
    (lambda: small(rows=10_000_000), {}, "takes 10000000 rows at a time, which is more than"),
    (lambda: small(size=(100_000, 100_000)), {"steps": []}, "[1, 3, 100000, 100000] is more than the limit of 64000000 pixels"),
]


@pytest.mark.parametrize(("network", "said", "wanted"), UNFIT, ids=[each[2][:40] for each in UNFIT])
def test_what_does_not_fit_is_refused(
    tmp_path: Path, network: Callable[[], ModelProto], said: dict[str, Any], wanted: str
) -> None:
    file = tmp_path / "network.onnx"
    onnx.save(network(), file)
    with pytest.raises(UnsupportedModel, match=re.escape(wanted)):
        fold(file, declare(**{**CROPPED, **said}))
