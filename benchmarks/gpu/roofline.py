"""What a network computes and moves for an image, read off its graph; gpu/peaks.py holds it against the device.

Elements are those of a network whose every convolution is fused with what follows it, element by element: each convolution,
pooling and linear layer reads its inputs from the device's memory and writes its output there, a sum reads its second
operand. A cache can do better, and unfused layers do worse. Weights are read once for a batch.
"""

from __future__ import annotations

import math
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto


def read(file: Path) -> dict[str, float]:
    """{flop, elements} of one image, a multiplication with its addition being two, and {weights}; elements are moved."""
    return work(onnx.load(file))


def work(model: ModelProto) -> dict[str, float]:
    """The same of a graph whose first axis is that of the rows."""
    shapes = _shapes(model)
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    flop = elements = parameters = 0
    for node in model.graph.node:
        sizes = [math.prod(shapes[name]) for name in node.input[:2] if name in shapes]
        out = math.prod(shapes.get(node.output[0], [0]))
        if node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in weights:
            kernel = weights[node.input[1]]
            parameters += math.prod(kernel)
            if node.op_type == "Conv":
                flop += 2 * out * math.prod(kernel[1:])
                elements += sizes[0] + out
            else:
                inward = _inward(node, kernel)
                flop += 2 * math.prod(kernel)
                elements += inward + math.prod(kernel) // inward
        elif node.op_type in ("MaxPool", "AveragePool"):
            elements += sizes[0] + out
        elif node.op_type == "Add" and len(sizes) == 2 and len(shapes[node.output[0]]) == 4:
            elements += min(sizes)
    return {"flop": flop, "elements": elements, "weights": parameters}


def _inward(node: NodeProto, kernel: list[int]) -> int:
    """How many values a linear layer takes."""
    turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return kernel[-1] if turned else kernel[-2]


def _shapes(model: ModelProto) -> dict[str, list[int]]:
    """Of every tensor, for one row; 0 for an axis that nobody knows."""
    whole = ModelProto()
    whole.CopyFrom(model)
    names = {tensor.name for tensor in whole.graph.initializer}
    for value in whole.graph.input:
        if value.name not in names:
            value.type.tensor_type.shape.dim[0].dim_value = 1
    for value in whole.graph.output:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del whole.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(whole, data_prop=True).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return {value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values}
