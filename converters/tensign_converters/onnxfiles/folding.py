"""An existing ONNX file and a Declaration -> one graph from uint8 pixels to the declared activation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.helper import make_node

from tensign.config import MAX_PIXELS
from tensign.errors import UnsupportedModel
from tensign.preprocess import PreprocessSpec
from tensign.proof.parity import LOGITS, NETWORK_INPUT, Answers
from tensign.proof.samples import Sample
from tensign.signature import Signature
from tensign_converters.declared.declaration import Declaration, size_hint
from tensign_converters.declared.scores import check_logits
from tensign_converters.graph import INPUT, save
from tensign_converters.onnxfiles.file import graphs, lifted, opset, read_onnx
from tensign_converters.onnxfiles.original import PREFIX, kept, original_answers, output_names
from tensign_converters.onnxfiles.rows import ROWS, follow_rows, free_rows
from tensign_converters.onnxfiles.tidy import tidy
from tensign_converters.subject import Head, Subject

_DTYPES: dict[int, str] = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.UINT8: "uint8"}
_UNKNOWN_SIZE = 224  # pixels a side on which a network for any size is tried


def fold(file: Path, declaration: Declaration) -> ModelProto:
    """uint8 [rows,H,W,3], or [rows,H,W] -> the file's own outputs, a declared activation on top; all called as in the file.

    NETWORK_INPUT and, below an activation, LOGITS are inner tensors of it. The same file gives the same bytes. Raises
    UnsupportedModel where the network takes something else than what is declared, or cannot take several rows, InvalidConfig
    where it ends in the activation that is declared.
    """
    model = lifted(read_onnx(file))
    names = output_names([value.name for value in model.graph.output], declaration)
    inner = {name: LOGITS for name in names} if declaration.activation != "none" else names
    dtype, shape = _network_input(model.graph, declaration, file.name)
    free_rows(model.graph)
    _state(model.graph.input[0], shape)
    model = tidy(model)
    graph = model.graph
    size = (shape[2], shape[3]) if declaration.layout == "NCHW" else (shape[1], shape[2])
    samples = _samples(declaration, size)
    expected = original_answers(file, declaration)(samples)
    image = kept(graph.input[0].name)
    _rename(graph, {graph.input[0].name: NETWORK_INPUT, **inner})
    for value in graph.output:
        came = expected[value.name].shape
        _state(value, came if -1 not in shape[1:] else [-1] * len(came))
    head = declaration.head((-1, *next(iter(expected.values())).shape[1:]))
    if head.activation != "none":
        check_logits(head.activation, expected[LOGITS])
        _append(model, head, *names.values())
    _prepend(graph, image, declaration, dtype, size)
    _check(model, file.name)
    pixels = np.concatenate([declaration.spec().arrays(sample[INPUT][None]) for sample in samples])
    follow_rows(model, {image: pixels}, expected, file.name)
    return model


def folded(file: Path, declaration: Declaration) -> Subject:
    """An ONNX file with declared pictures. Raises UnsupportedModel as `fold` does."""
    model = fold(file, declaration)
    contract = Signature.parse({part: json.loads(specs) for part, specs in signature(model, declaration).items()})
    shape = (-1, *contract.outputs[0].shape[1:])
    return Subject(
        contract,
        partial(save, model),
        partial(_answers, original_answers(file, declaration)),
        preprocess(model, declaration),
        declaration.head(shape),
        {"onnx": onnx.__version__},
        "the ONNX file as it came, on ONNX Runtime's CPU, with the float steps in NumPy",
    )


def _answers(answered: Callable[[Sequence[Sample]], dict[str, npt.NDArray[Any]]], samples: Sequence[Sample]) -> Answers:
    outputs = answered(samples)
    logits = outputs.pop(LOGITS, None) if len(outputs) > 1 else None  # alone it is what the file calls so
    return Answers(outputs, logits)


def signature(model: ModelProto, declaration: Declaration) -> dict[str, str]:
    """Inputs and outputs of a folded model as JSON text, as they stand in an MLmodel file."""
    image, *outputs = (_spec(value) for value in (*model.graph.input, *model.graph.output))
    if declaration.steps:  # which make the graph's size of the picture's
        image["tensor-spec"]["shape"][1:3] = declaration.input
    return {"inputs": json.dumps([image]), "outputs": json.dumps(outputs)}


def preprocess(model: ModelProto, declaration: Declaration) -> PreprocessSpec:
    """What the host does before a folded model, and in words what its nodes do."""
    (kind,) = {value.type.tensor_type.elem_type for value in model.graph.value_info if value.name == NETWORK_INPUT}
    return declaration.spec(_DTYPES[kind])


def _network_input(graph: GraphProto, declaration: Declaration, called: str) -> tuple[str, list[int]]:
    """dtype and shape of what the network takes, with the declared size where the file leaves it open; -1 is any."""
    if len(graph.input) != 1:
        named = ", ".join(value.name for value in graph.input)[:200]
        raise UnsupportedModel(f"{called}: a declared preprocessing feeds one input, and there are {len(graph.input)}: {named}")
    (value,) = graph.input
    tensor = value.type.tensor_type
    kind, came = _DTYPES.get(tensor.elem_type), [dim.dim_value or -1 for dim in tensor.shape.dim]
    size, channels = declaration.network_size, declaration.channels
    wanted = [-1, channels, *size] if declaration.layout == "NCHW" else [-1, *size, channels]
    said = f'{called}: input "{value.name}"'
    if kind is None or len(came) != 4 or not all(-1 in both or len({*both}) == 1 for both in _pairs(came, wanted)[1:]):
        own = came[2:4] if declaration.layout == "NCHW" else came[1:3]
        hint = size_hint(*own) if len(came) == 4 and -1 not in (*own, *size) and [*size] != own else ""
        raise UnsupportedModel(
            f"{said}: wanted float32, float16 or uint8 {wanted} by the declared layout {declaration.layout}, mode"
            f" {declaration.mode} and size, got {TensorProto.DataType.Name(tensor.elem_type).lower()} {came}{hint}"
        )
    if kind == "uint8" and declaration.graph_steps():
        raise UnsupportedModel(f"{said}: wanted float32 or float16, since divide, mean or std is declared, got uint8 {came}")
    shape = [-1, *(max(both) for both in _pairs(came, wanted)[1:])]
    if abs(math.prod(shape)) > MAX_PIXELS * channels:
        raise UnsupportedModel(f"{said}: {came} is more than the limit of {MAX_PIXELS} pixels")
    return kind, shape


def _state(value: ValueInfoProto, shape: Sequence[int]) -> None:
    """Writes into the shape the lengths that are known, and that there is any number of rows."""
    dims = value.type.tensor_type.shape.dim
    if len(dims) != len(shape):  # the file said nothing, or something else
        del dims[:]
        dims.extend(onnx.TensorShapeProto.Dimension() for _ in shape)
    for dim, length in zip(dims, shape, strict=True):
        if length != -1:
            dim.dim_value = length
        elif dim.dim_param == ROWS:
            dim.ClearField("dim_param")
    dims[0].dim_param = ROWS


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Gives these names, and every other of the file's a PREFIX: none is one of ours then."""

    def named(name: str) -> str:
        return names.get(name, PREFIX + name) if name else ""

    for each in graphs(graph):
        del each.value_info[:]
        for node in each.node:
            node.name = PREFIX + node.name
            node.input[:], node.output[:] = map(named, node.input), map(named, node.output)
        sparse = [tensor for both in each.sparse_initializer for tensor in (both.values, both.indices)]
        for value in (*each.input, *each.output):
            value.name = named(value.name)
        for tensor in (*each.initializer, *sparse):
            tensor.name = named(tensor.name)


def _prepend(graph: GraphProto, image: str, declaration: Declaration, dtype: str, size: tuple[int, int]) -> None:
    """The input `image`, and the nodes from it to NETWORK_INPUT."""
    along = (1, -1, 1, 1) if declaration.layout == "NCHW" else (-1,)
    made: list[tuple[str, Any, dict[str, Any]]] = []
    if declaration.mode == "L":
        made.append(("Reshape", np.array([0, 0, 0, 1], np.int64), {}))  # [rows,h,w,1]
    if declaration.layout == "NCHW":
        made.append(("Transpose", None, {"perm": [0, 3, 1, 2]}))
    if dtype != "uint8":
        made.append(("Cast", None, {"to": TensorProto.FLOAT}))
    if declaration.divide is not None:
        made.append(("Div", np.float32(declaration.divide), {}))
    if declaration.mean is not None:
        made.append(("Sub", np.array(declaration.mean, np.float32).reshape(along), {}))
        made.append(("Div", np.array(declaration.std, np.float32).reshape(along), {}))
    if dtype == "float16":
        made.append(("Cast", None, {"to": TensorProto.FLOAT16}))
    came = image
    for number, (operator, constant, attributes) in enumerate(made or [("Identity", None, {})]):
        name = f"steps.{number}"
        gives = NETWORK_INPUT if number >= len(made) - 1 else name
        inputs = [came] if constant is None else [came, f"{name}.constant"]
        if constant is not None:
            graph.initializer.append(numpy_helper.from_array(np.asarray(constant), inputs[1]))
        graph.node.insert(number, make_node(operator, inputs, [gives], name=name, **attributes))
        came = gives
    graph.value_info.add().CopyFrom(graph.input[0])
    sides = [side if side != -1 else name for side, name in zip(size, ("height", "width"), strict=True)]
    channels = [3] if declaration.mode == "RGB" else []
    graph.input[0].CopyFrom(helper.make_tensor_value_info(image, TensorProto.UINT8, [ROWS, *sides, *channels]))


def _append(model: ModelProto, head: Head, called: str) -> None:
    """The activation, computed in float32, on LOGITS, the network's output."""
    graph, output = model.graph, model.graph.output[0]
    kind, rank = output.type.tensor_type.elem_type, len(output.type.tensor_type.shape.dim)
    if kind not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        came = TensorProto.DataType.Name(kind).lower()
        raise UnsupportedModel(f"{head.activation}: wanted a network that gives float32 or float16, it gives {came}")
    if head.activation == "softmax" and opset(model) < 13 and rank != 2:  # older ones flatten what follows the axis
        raise UnsupportedModel(f"a softmax for each pixel: wanted a file of opset 13 or later, got {opset(model)}")
    graph.value_info.add().CopyFrom(output)
    came = output.name
    if kind == TensorProto.FLOAT16:
        graph.node.append(make_node("Cast", [came], ["head.cast"], name="head.cast", to=TensorProto.FLOAT))
        came = "head.cast"
    name = f"head.{head.activation}"
    softmax = head.activation == "softmax"
    attributes: dict[str, Any] = {"axis": head.axis} if softmax else {}
    graph.node.append(make_node("Softmax" if softmax else "Sigmoid", [came], [called], name=name, **attributes))
    output.name, output.type.tensor_type.elem_type = called, TensorProto.FLOAT


def _samples(declaration: Declaration, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Noise of several brightnesses, of a size that the declaration takes."""
    wanted = declaration.input if declaration.steps else size
    height, width = (next(side for side in (*both, _UNKNOWN_SIZE) if side != -1) for both in _pairs(wanted, size))
    channels = (3,) if declaration.mode == "RGB" else ()
    noise = np.random.default_rng(0).integers(0, 256, (3, height, width, *channels), np.uint8)
    return [{INPUT: picture // darker} for darker, picture in enumerate(noise, 1)]


def _pairs(some: Sequence[int], others: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(some, others, strict=True))


def _check(model: ModelProto, called: str) -> None:
    if (size := model.ByteSize()) >= onnx.checker.MAXIMUM_PROTOBUF:
        raise UnsupportedModel(
            f"{called}: {size} bytes with the steps; one file holds less than {onnx.checker.MAXIMUM_PROTOBUF}"
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise UnsupportedModel(f"{called}: no sound graph comes of it: {str(error).strip()[:300]}") from None


def _spec(value: ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    shape = [dim.dim_value or -1 for dim in tensor.shape.dim]
    return {"name": value.name, "type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}
