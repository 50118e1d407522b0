"""The network within a graph, apart from the preprocessing before it and the activation after it, and back."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tensign.errors import UnsupportedModel
from tensign.proof.parity import LOGITS, NETWORK_INPUT

_ACTIVATIONS = ("Softmax", "LogSoftmax", "Sigmoid")  # where they come last they stay floats
_FLOATS: dict[int, Any] = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


@dataclass(frozen=True, slots=True)
class Parts:
    """whole: with its constants folded; before, network: models of their own, whose inputs and outputs are tensors of the
    whole; what stands after the network is the rest."""

    whole: ModelProto
    before: ModelProto
    network: ModelProto


def parts(model: ModelProto) -> Parts:
    """A copy of the model, taken apart at NETWORK_INPUT and LOGITS; where it has no such tensors the network begins with the
    graph, or ends with it or before its last activation. Raises UnsupportedModel for what has no variants."""
    whole = onnx.shape_inference.infer_shapes(_folded(model))
    graph = whole.graph
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        raise UnsupportedModel("a graph with branches or loops has no variants; its fp32 is all there is")
    known = {value.name for value in (*graph.value_info, *graph.output)}
    scored = {node.output[0]: node.input[0] for node in graph.node if node.op_type in _ACTIVATIONS}
    ends = [LOGITS] if LOGITS in known else [scored.get(value.name, value.name) for value in graph.output]
    before = _above(graph, [NETWORK_INPUT] if NETWORK_INPUT in known else [])
    within = _above(graph, ends) - before
    _part_constants(graph, within)
    network = _cut(whole, within)
    needed = {value.name for value in network.graph.input}
    return Parts(whole, _cut(whole, _above(graph, needed), needed), network)


def joined(whole: ModelProto, network: ModelProto) -> ModelProto:
    """The whole with another network in the place of its own, which has the same inputs and outputs."""
    made = ModelProto()
    made.CopyFrom(whole)
    graph, own = made.graph, {value.name for value in network.graph.output}
    given = {value.name for value in network.graph.input}
    within = _above(graph, own, given)
    kept = [node for number, node in enumerate(graph.node) if number not in within]
    inner = {name for node in network.graph.node for name in node.output} - own
    replaced = {name for number in within for name in graph.node[number].output} - own
    nodes = _sorted(graph, [*kept, *network.graph.node])
    constants = [tensor for tensor in graph.initializer if any(tensor.name in node.input for node in kept)]
    named = replaced | inner | {tensor.name for tensor in network.graph.initializer}
    values = [value for value in graph.value_info if value.name not in named]
    values += [value for value in network.graph.value_info if value.name in inner]
    _refill(graph.node, nodes)
    _refill(graph.initializer, [*constants, *network.graph.initializer])
    _refill(graph.value_info, values)
    for imported in network.opset_import:
        if imported.domain not in {each.domain for each in made.opset_import}:
            made.opset_import.append(imported)
    return made


def after(network: ModelProto, front: Collection[str]) -> ModelProto:
    """A network but for its first nodes, those of these names; what they give it are its inputs."""
    made = ModelProto()
    made.CopyFrom(network)
    within = {number for number, node in enumerate(made.graph.node) if node.name not in front}
    _part_constants(made.graph, within)
    return _cut(made, within)


def _refill(field: Any, content: Iterable[Any]) -> None:
    """Gives a repeated field other content, which may stand in it already."""
    copies = [copy.deepcopy(each) for each in content]
    del field[:]
    field.extend(copies)


def _folded(model: ModelProto) -> ModelProto:
    """Constants as initializers, and those behind a Cast to float32, which some exporters store as half precision; every node
    with a name of its own, by which it can be left out."""
    made = ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            array = numpy_helper.to_array(attributes["value"].t)
        elif node.op_type == "Cast" and node.input[0] in constants and attributes["to"].i in _FLOATS:
            array = numpy_helper.to_array(constants[node.input[0]]).astype(_FLOATS[attributes["to"].i])
        else:
            kept.append(node)
            continue
        constants[node.output[0]] = numpy_helper.from_array(array, node.output[0])
    named: set[str] = set()
    for number, node in enumerate(kept):
        if not node.name or node.name in named:
            node.name = f"{node.name}#{number}"
        named.add(node.name)
    used = {name for node in kept for name in node.input} | {value.name for value in graph.output}
    left = [tensor for name, tensor in constants.items() if name in used]
    tensors = [numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name) for tensor in left]
    _refill(graph.node, kept)
    _refill(graph.initializer, tensors)
    return made


def _above(graph: GraphProto, names: Iterable[str], until: Iterable[str] = ()) -> set[int]:
    """Numbers of the nodes that lead to these tensors."""
    made_by = {name: number for number, node in enumerate(graph.node) for name in node.output}
    found: set[int] = set()
    stack, stop = list(names), set(until)
    while stack:
        name = stack.pop()
        number = made_by.get(name)
        if name not in stop and number is not None and number not in found:
            found.add(number)
            stack += graph.node[number].input
    return found


def _part_constants(graph: GraphProto, within: set[int]) -> None:
    """Constants that the network shares with nodes around it get a copy of its own."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    around = {name for number, node in enumerate(graph.node) if number not in within for name in node.input}
    for number in sorted(within):
        node = graph.node[number]
        for at, name in enumerate(node.input):
            if name in constants and name in around:
                node.input[at] = own = f"{name}.network"
                if own not in constants:
                    constants[own] = numpy_helper.from_array(numpy_helper.to_array(constants[name]), own)
                    graph.initializer.append(constants[own])


def _cut(whole: ModelProto, numbers: set[int], outputs: Iterable[str] = ()) -> ModelProto:
    """A model of some nodes; outputs: what it gives, else what the rest of the graph takes of it."""
    graph = whole.graph
    nodes = [graph.node[number] for number in sorted(numbers)]
    rest = [node for number, node in enumerate(graph.node) if number not in numbers]
    constants = {tensor.name: tensor for tensor in graph.initializer}
    made = [name for node in nodes for name in node.output]
    taken = [name for node in nodes for name in node.input if name]
    wanted = {value.name for value in graph.output} | {name for node in rest for name in node.input}
    given = dict.fromkeys(name for name in taken if name not in constants and name not in set(made))
    gives = sorted(outputs) if outputs else [name for name in made if name in wanted]
    typed = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
    if missing := [name for name in (*given, *gives) if name not in typed]:
        raise UnsupportedModel(f"nobody can tell the type of {missing[0][:60]}, so the graph has no variants")
    given |= {name: None for name in gives if name not in set(made)}
    inner = [typed[name] for name in made if name in typed and name not in gives]
    cut = helper.make_graph(
        nodes,
        "part",
        [typed[name] for name in given],
        [typed[name] for name in gives],
        [tensor for name, tensor in constants.items() if name in set(taken)],
        value_info=inner,
    )
    return helper.make_model(cut, opset_imports=whole.opset_import, ir_version=whole.ir_version)


def _sorted(graph: GraphProto, nodes: list[NodeProto]) -> list[NodeProto]:
    """In an order in which each comes after what it takes."""
    makers: Mapping[str, int] = {name: number for number, node in enumerate(nodes) for name in node.output}
    done: set[int] = set()
    ordered: list[NodeProto] = []
    for first in range(len(nodes)):
        stack = [first]
        while stack:
            number = stack[-1]
            missing = [makers[name] for name in nodes[number].input if name in makers and makers[name] not in done]
            if number in done or not missing:
                stack.pop()
                if number not in done:
                    done.add(number)
                    ordered.append(nodes[number])
            else:
                stack += missing
    return ordered
