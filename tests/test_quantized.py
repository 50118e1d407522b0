"""Eight bits: what stays in single precision because it would be spoilt, and really does when ONNX Runtime loads the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_networks import small

pytest.importorskip("torch")

from tensign.engines.onnx import session_options
from tensign.errors import UnsupportedModel
from tensign_converters.precision.part import parts
from tensign_converters.precision.quantized import quantize
from tensign_converters.precision.seen import Feed, seen

SIDE, CLASSES = 24, 6


def network(blue: float = 1.0) -> ModelProto:
    """uint8 [rows,24,24,3] -> float32 [rows,6]: two branches of what the network is given, one depthwise further on.

    blue: by how much the first layer's weights for that colour are larger than those for the others.
    """
    random = np.random.default_rng(0)

    def weights(*shape: int) -> npt.NDArray[np.float32]:
        return np.asarray(random.normal(size=shape) / np.sqrt(np.prod(shape[1:])), np.float32)

    constants = {
        "mean": np.array([90, 80, 0], np.float32).reshape(1, 3, 1, 1),
        "std": np.array([50, 60, 255], np.float32).reshape(1, 3, 1, 1),
        "stem.weight": weights(8, 3, 3, 3) * np.array([1, 1, blue], np.float32).reshape(1, 3, 1, 1),
        "deep.weight": weights(8, 1, 3, 3),
        "side.weight": weights(8, 3, 1, 1),
        "linear.weight": weights(CLASSES, 8) * np.float32(20),
        **{f"{name}.bias": np.asarray(random.normal(size=8), np.float32) for name in ("stem", "deep", "side")},
        "linear.bias": np.asarray(random.normal(size=CLASSES), np.float32),
        "axes": np.array([2, 3], np.int64),
    }

    def node(operator: str, given: str, gives: str, **options: int | list[int]) -> NodeProto:
        return helper.make_node(operator, given.split(), [gives], gives, **options)  # type: ignore[arg-type]

    nodes = [
        node("Transpose", "image", "planes", perm=[0, 3, 1, 2]),
        node("Cast", "planes", "floats", to=TensorProto.FLOAT),
        node("Sub", "floats mean", "centred"),
        node("Div", "centred std", "network_input"),
        node("Conv", "network_input stem.weight stem.bias", "stem", pads=[1] * 4, strides=[2, 2]),
        node("Relu", "stem", "stem+"),
        node("Conv", "stem+ deep.weight deep.bias", "deep", pads=[1] * 4, group=8),
        node("Conv", "network_input side.weight side.bias", "side", strides=[2, 2]),
        node("Add", "deep side", "sum"),
        node("Relu", "sum", "sum+"),
        node("ReduceMean", "sum+ axes", "pool", keepdims=0),
        node("Gemm", "pool linear.weight linear.bias", "logits", transB=1),
        node("Softmax", "logits", "output"),
    ]
    graph = helper.make_graph(
        nodes,
        "two branches",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["rows", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["rows", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(made)


def pixels(count: int = 300, *, seed: int = 0) -> npt.NDArray[np.uint8]:
    """uint8 [count,24,24,3] of blocks of colour, none of them blue."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (count, 3, 3, 3)) * (1, 1, 0)
    return np.asarray(np.repeat(np.repeat(blocks, 8, 1), 8, 2), np.uint8)


def feeds() -> list[Feed]:
    return [{"image": row[None]} for row in pixels()]


def logits(model: ModelProto, *, optimized: bool = True) -> npt.NDArray[np.float32]:
    told, options = ModelProto(), session_options()
    told.CopyFrom(model)
    told.graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", CLASSES]))
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(told.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": pixels(100, seed=5)})[0], np.float32)


@pytest.fixture(scope="module", params=[1.0, 300.0], ids=["even", "spoilt"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelProto, ModelProto, bool]:
    """A network, the same in 8 bits, and whether its first layer has weights so unlike each other that 8 bits spoil it."""
    model, target = network(request.param), tmp_path_factory.mktemp("made") / "int8.onnx"
    quantize(model, target, feeds())
    return model, onnx.load(target), request.param > 1


def test_only_a_layer_that_would_be_spoilt_stays_as_it_is(pair: tuple[ModelProto, ModelProto, bool]) -> None:
    model, made, spoilt = pair
    weights = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    assert ("stem.weight" in weights) == spoilt
    assert not {"deep.weight", "side.weight", "linear.weight"} & set(weights)
    full = logits(model)
    assert np.sqrt(np.square(logits(made) - full).mean()) < 0.04 * full.std()


def test_onnx_runtime_computes_what_the_file_says(pair: tuple[ModelProto, ModelProto, bool]) -> None:
    """It would quantize weights by itself where a layer stands between DequantizeLinear and QuantizeLinear."""
    _, made, spoilt = pair
    (stem,) = [node for node in made.graph.node if node.name == "stem"]
    assert (stem.input[0] == "network_input") == spoilt  # whose pair is there for the other branch
    plain = logits(made, optimized=False)
    assert np.abs(logits(made) - plain).max() < 0.02 * plain.std()


def test_constants_of_the_preprocessing_are_as_wide_as_the_picture(pair: tuple[ModelProto, ModelProto, bool]) -> None:
    model, made, _ = pair
    for name in ("mean", "std"):
        before, after = (
            numpy_helper.to_array(next(tensor for tensor in each.graph.initializer if tensor.name == name))
            for each in (model, made)
        )
        assert after.shape == (1, 3, 1, SIDE) and (after == before).all()


def test_a_layer_that_stays_as_it_is_keeps_its_bias(tmp_path: Path) -> None:
    """What gives the answers is not rounded, so there is nothing to take back."""
    model, target = small(rows="rows", opset=20, per_pixel=True), tmp_path / "int8.onnx"
    quantize(model, target, [{"x": np.random.default_rng(0).uniform(1, 2, (1, 3, 32, 40)).astype(np.float32)}])
    before, after = ({tensor.name: tensor for tensor in each.graph.initializer} for each in (model, onnx.load(target)))
    for name in ("conv.weight", "conv.bias"):
        assert np.array_equal(numpy_helper.to_array(before[name]), numpy_helper.to_array(after[name]))


def test_nodes_without_names_or_all_of_one_are_told_apart(tmp_path: Path) -> None:
    """As in files that no exporter named, and onnxscript could not tidy."""
    files = []
    for name in (None, "", "node"):
        model = network(300.0)
        for node in model.graph.node:
            node.name = node.name if name is None else name
        quantize(model, tmp_path / "int8.onnx", feeds()[::10])
        files.append({tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "int8.onnx").graph.initializer})
    assert files[0] == files[1] == files[2] and "stem.weight" in files[0] and "deep.weight_quantized" in files[0]


def test_what_is_not_finite_and_what_has_no_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="variant int8: the network was calibrated on nothing"):
        quantize(network(), tmp_path / "int8.onnx", [])
    with pytest.raises(UnsupportedModel, match="gives values that are not finite"):
        quantize(network(float("inf")), tmp_path / "int8.onnx", feeds())
    assert list(tmp_path.iterdir()) == []


def test_what_is_seen_is_what_is_computed() -> None:
    given = np.random.default_rng(0).normal(size=(7, 3, SIDE, SIDE)).astype(np.float32)
    found = seen(parts(network()).network, [{"network_input": given[:3]}, {"network_input": given[3:]}])
    assert np.allclose(found.ranges["network_input"], (given.min(), given.max()))
    assert np.allclose(found.means["network_input"], given.mean((0, 2, 3)), atol=1e-6)
    assert found.ranges["stem+"][0] >= 0 and found.means["pool"].shape == (8,)


def test_processors_that_would_overflow_multiply_otherwise(pair: tuple[ModelProto, ModelProto, bool]) -> None:
    """x86 without VNNI, and what it does instead gives the same answers here."""
    options = session_options()
    if "vnni" in Path("/proc/cpuinfo").read_text():
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(pair[1].SerializeToString(), options, providers=["CPUExecutionProvider"])
    fast = onnxruntime.InferenceSession(pair[1].SerializeToString(), session_options(), providers=["CPUExecutionProvider"])
    rows = {"image": pixels(50, seed=5)}
    assert np.allclose(session.run(None, rows)[0], fast.run(None, rows)[0], atol=2e-3)


def test_a_tensor_of_no_known_type_is_named(tmp_path: Path) -> None:
    """As of operators of another domain, in files that say nothing about what these give."""
    model = network()
    (node,) = [node for node in model.graph.node if node.name == "stem+"]
    node.op_type, node.domain = "Gelu", "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    (value,) = [value for value in model.graph.value_info if value.name == "stem+"]
    model.graph.value_info.remove(value)
    with pytest.raises(UnsupportedModel, match=r"variant int8: nobody can tell that 'stem\+' is float32, which 'deep' takes"):
        quantize(model, tmp_path / "int8.onnx", feeds()[:2])


def test_a_constant_that_is_used_at_two_widths_stays_as_it_is(tmp_path: Path) -> None:
    model = network()
    at = next(number for number, node in enumerate(model.graph.node) if node.name == "centred")
    wide, narrow = SIDE, SIDE // 2
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(value), name) for name, value in (("none", [0]), ("half", [narrow]), ("columns", [3]))
    )
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 3, 1, wide), np.float32), "nothing"))
    halves = [
        helper.make_node("Slice", ["floats", "none", "half", "columns"], ["left"], "left"),
        helper.make_node("Sub", ["left", "mean"], ["left-"], "left-"),
        helper.make_node("Concat", ["left-", "left-"], ["both"], "both", axis=3),
        helper.make_node("Mul", ["both", "nothing"], ["zeros"], "zeros"),
        helper.make_node("Add", ["floats", "zeros"], ["same"], "same"),
    ]
    nodes = [*model.graph.node[:at], *halves, *model.graph.node[at:]]
    nodes[at + len(halves)].input[0] = "same"
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    quantize(onnx.shape_inference.infer_shapes(model), tmp_path / "int8.onnx", feeds()[:20])
    made = onnx.load(tmp_path / "int8.onnx")
    shapes = {tensor.name: list(tensor.dims) for tensor in made.graph.initializer}
    assert shapes["mean"] == [1, 3, 1, 1] and shapes["std"] == [1, 3, 1, wide]
    assert np.isfinite(logits(made)).all()
