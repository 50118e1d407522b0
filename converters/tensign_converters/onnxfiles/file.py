"""An existing ONNX file, which anybody may have written -> a checked model with all its weights in it, at a stated opset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
import onnx.inliner
import onnx.shape_inference
import onnx.version_converter
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from tensign.errors import UnsupportedModel
from tensign_converters.graph import IR_VERSION, OPSET

OLDEST = 11  # what an operator means changed often before, and ONNX Runtime's own tests begin near there
_OURS = ("", "ai.onnx")
_DOMAINS = (*_OURS, "ai.onnx.ml", "com.microsoft")  # what a plain ONNX Runtime brings along
_MAX_NODES = 200_000  # with every function written out where it is called
_MAX_BYTES = onnx.checker.MAXIMUM_PROTOBUF


def read_onnx(file: Path) -> ModelProto:
    """The model as it stands, with external data read in and functions written out. No code of the file's can run.

    Raises UnsupportedModel for what is no ONNX, takes 2 GB or more, names data outside its directory, or needs operators
    that a plain ONNX Runtime has not.
    """
    try:
        if (size := file.stat().st_size) >= _MAX_BYTES:
            raise UnsupportedModel(f"{file.name}: {size} bytes; one file holds less than {_MAX_BYTES}")
        model = onnx.load(file, format="protobuf", load_external_data=False)
        if not model.graph.node:
            raise UnsupportedModel(f"{file.name} is no ONNX file: it has no graph")
        _check_functions(model, file.name)
        _embed(model, file)
        if not all(value.type.tensor_type.HasField("shape") for value in model.graph.output):
            model = onnx.shape_inference.infer_shapes(model)  # ONNX Runtime does without, the checker does not
        onnx.checker.check_model(model)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except UnsupportedModel:
        raise
    except Exception as error:  # of protobuf, of the checker, of the system
        raise UnsupportedModel(f"{file.name} is no ONNX file that can be read: {_line(error)}") from None
    del model.functions[:], model.training_info[:]
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in nodes(model.graph) if node.domain not in _DOMAINS})
    if foreign:
        named = ", ".join(foreign[:5])
        raise UnsupportedModel(f"{file.name}: operators that only a library of their own can run: {named[:300]}")
    _drop_what_says_nothing(model)
    return model


def lifted(model: ModelProto) -> ModelProto:
    """The model at OPSET and IR_VERSION where onnx can convert it, else as it came. Raises UnsupportedModel below OLDEST."""
    came = opset(model)
    model.ir_version = IR_VERSION if came <= OPSET else max(model.ir_version, IR_VERSION)
    if came < OPSET and len(graphs(model.graph)) == 1:  # onnx's converter leaves what is within other nodes as it was
        try:
            made = onnx.version_converter.convert_version(model, OPSET)
            onnx.checker.check_model(made, full_check=True)
            model = made
        except Exception as error:
            if came < OLDEST:
                raise UnsupportedModel(f"its opset {came} cannot be raised to {OPSET}: {_line(error)}") from None
    if opset(model) < OLDEST:
        raise UnsupportedModel(f"its opset is {came}; wanted {OLDEST} or later")
    return model


def opset(model: ModelProto) -> int:
    """The version of ONNX's own operators."""
    return max((each.version for each in model.opset_import if each.domain in _OURS), default=0)


def graphs(graph: GraphProto) -> list[GraphProto]:
    """The graph, and those within its nodes."""
    return [graph, *_within(graph.node)]


def nodes(graph: GraphProto | FunctionProto) -> list[NodeProto]:
    """All nodes, those of graphs within nodes besides."""
    return [*graph.node, *(node for each in _within(graph.node) for node in each.node)]


def _within(outer: Iterable[NodeProto]) -> list[GraphProto]:
    attributes = [attribute for node in outer for attribute in node.attribute]
    found = [attribute.g for attribute in attributes if attribute.HasField("g")]
    found += [graph for attribute in attributes for graph in attribute.graphs]
    return [*found, *(deeper for graph in found for deeper in _within(graph.node))]


def _check_functions(model: ModelProto, called: str) -> None:
    """Refuses what would grow beyond all bounds, before anything writes it out."""
    bodies = {(each.domain, each.name, each.overload): each for each in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}

    def size(body: GraphProto | FunctionProto) -> int:
        total = 0
        for node in nodes(body):
            call = node.domain, node.op_type, node.overload
            if call in bodies and call not in sizes:
                sizes[call] = _MAX_NODES  # of one that calls itself
                sizes[call] = size(bodies[call])
            total += sizes.get(call, 1)
        return total

    if (total := size(model.graph)) > _MAX_NODES:
        raise UnsupportedModel(f"{called}: its functions, written out, make {total} nodes; at most {_MAX_NODES} are read")


def _embed(model: ModelProto, file: Path) -> None:
    """Reads external data in, the sum of it known before anything is read."""
    outside = [tensor for tensor in _tensors(model) if uses_external_data(tensor)]
    total = file.stat().st_size + sum(_external_bytes(tensor, file) for tensor in outside)
    if total >= _MAX_BYTES:
        raise UnsupportedModel(f"{file.name}: {total} bytes with its external data; one file holds less than {_MAX_BYTES}")
    for tensor in outside:
        load_external_data_for_tensor(tensor, str(file.parent))
        tensor.data_location = TensorProto.DEFAULT


def _external_bytes(tensor: TensorProto, file: Path) -> int:
    said = {entry.key: entry.value for entry in tensor.external_data}
    place, folder = said.get("location", ""), file.parent.resolve()
    data = folder / place
    if len(said) < len(tensor.external_data):
        raise UnsupportedModel(f'{file.name}: "{tensor.name[:60]}" says twice where its external data is')
    if Path(place).is_absolute() or ".." in Path(place).parts or not data.resolve().is_relative_to(folder):
        raise UnsupportedModel(f'{file.name}: external data "{place[:100]}" leads out of the directory of the file')
    if not data.is_file():
        raise UnsupportedModel(f'{file.name}: external data "{place[:100]}" is no file beside it')
    length = int(said.get("length", 0)) or data.stat().st_size - int(said.get("offset", 0))
    if length < 0:
        raise UnsupportedModel(f'{file.name}: external data "{place[:100]}" is shorter than "{tensor.name[:60]}" says')
    return length


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    bodies: list[GraphProto | FunctionProto] = [model.graph, *model.functions]
    for graph in (model.graph, *(graph for body in bodies for graph in _within(body.node))):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for attribute in (attribute for body in bodies for node in nodes(body) for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors, attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
        for sparse in attribute.sparse_tensors:
            yield from (sparse.values, sparse.indices)


def _drop_what_says_nothing(model: ModelProto) -> None:
    """Notes of whoever made the file, shapes that will change, and defaults that look like inputs."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer} | {sparse.values.name for sparse in graph.sparse_initializer}
    for given in [value for value in graph.input if value.name in constants]:
        graph.input.remove(given)
    used = {node.domain for node in nodes(graph)} | set(_OURS)
    for unused in [each for each in model.opset_import if each.domain not in used]:
        model.opset_import.remove(unused)
    for each in graphs(graph):
        each.doc_string = ""
        del each.value_info[:], each.quantization_annotation[:], each.metadata_props[:]
        for node in each.node:
            node.doc_string = ""
            del node.metadata_props[:]


def _line(error: Exception) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:300]
