"""A network for a fixed number of rows -> the same for any number, where its graph allows that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from tensign.errors import UnsupportedModel
from tensign_converters.onnxfiles.file import graphs
from tensign_converters.onnxfiles.original import open_session, run

ROWS = "rows"
_ALIKE = 1e-2  # of the largest value; rows that get into each other differ by more


def free_rows(graph: GraphProto) -> None:
    """Names the first axis of the input and of every output ROWS, and lets Reshape nodes on the way follow it.

    Whether the graph then gives each row what it gave it before has to be tried.
    """
    first = graph.input[0].type.tensor_type.shape.dim[0]
    if first.dim_value > 0:
        _let_reshapes_follow(graph, first.dim_value)
    for value in (graph.input[0], *graph.output):
        shape = value.type.tensor_type.shape
        if shape.dim:
            shape.dim[0].dim_param = ROWS
    for each in graphs(graph):
        del each.value_info[:]  # of inner tensors, for the old number


def follow_rows(
    model: ModelProto, inputs: Mapping[str, npt.NDArray[Any]], expected: Mapping[str, npt.NDArray[Any]], called: str
) -> None:
    """Raises UnsupportedModel where a row at a time, or all together, do not give about what is expected of each row."""
    session = open_session(model.SerializeToString(deterministic=True))
    names = [value.name for value in model.graph.output]
    for rows in (1, len(next(iter(inputs.values())))):
        said = f"{called}: it cannot be made to take {rows} rows at a time; export it with a dynamic batch axis"
        said = f"{called}: folded, it is not the network that it was" if rows == 1 else said
        try:
            answers = run(session, {name: array[:rows] for name, array in inputs.items()}, names)
        except UnsupportedModel as error:
            raise UnsupportedModel(f"{said}: {error}") from None
        for name, answer in zip(names, answers, strict=True):
            wanted = expected[name][:rows]
            if answer.shape != wanted.shape:
                raise UnsupportedModel(f'{said}: output "{name}": wanted {list(wanted.shape)}, got {list(answer.shape)}')
            if answer.dtype.kind == "f" and not _alike(answer, wanted):
                raise UnsupportedModel(f'{said}: output "{name}": a row differs from what the file gives for it alone')


def _alike(answer: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> bool:
    scale = float(np.abs(wanted).max(initial=0))
    return bool((np.abs(answer - wanted) <= _ALIKE * scale).all())  # NaN is not alike


def _let_reshapes_follow(graph: GraphProto, rows: int) -> None:
    """A target of constants such as [1,512] or [1,-1] becomes [-1,512] or [0,-1]: as many rows as come."""
    shapes = [tensor for tensor in graph.initializer if tensor.data_type == TensorProto.INT64]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in shapes}
    taken = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
    reached = {graph.input[0].name}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        if not reached.intersection(node.input):
            continue
        reached.update(node.output)
        target = constants.get(node.input[1]) if node.op_type == "Reshape" and node.input[0] in reached else None
        freed = None if target is None else _freed(node, target.reshape(-1).tolist(), rows)
        if freed is not None:
            name = f"{node.input[1]}_{ROWS}"
            while name in taken:
                name += "_"
            taken.add(name)
            graph.initializer.append(numpy_helper.from_array(np.array(freed, np.int64), name))
            node.input[1] = name


def _freed(node: NodeProto, target: list[int], rows: int) -> list[int] | None:
    literal = any(attribute.name == "allowzero" and attribute.i for attribute in node.attribute)
    if not target or (target[0] == 0 and not literal):
        return None
    if -1 not in target:
        return [-1, *target[1:]]
    return [0, *target[1:]] if target[0] == rows and not literal else None
