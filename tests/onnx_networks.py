"""Small ONNX networks with random weights, as somebody else's tools may have written them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

CLASSES = 5
DTYPES = {np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16, np.uint8: TensorProto.UINT8}


def small(
    *,
    opset: int = 17,
    layout: str = "NCHW",
    dtype: Any = np.float32,
    channels: int = 3,
    size: tuple[Any, Any] = (32, 40),
    rows: Any = 1,
    names: tuple[str, str] = ("x", "y"),
    flatten: tuple[int, ...] = (),
    per_pixel: bool = False,
) -> ModelProto:
    """Convolution, ReLU, mean of each channel, a linear layer: [rows,CLASSES], or per pixel [rows,CLASSES,h,w].

    flatten: the constant target of a Reshape between the last two; none is a Flatten.
    """
    given, gives = names
    random = np.random.default_rng(0)
    kind = np.float32 if dtype is np.uint8 else dtype
    planes = CLASSES if per_pixel else 8
    weights = {
        "conv.weight": random.normal(size=(planes, channels, 3, 3)).astype(kind),
        "conv.bias": random.normal(size=planes).astype(kind),
        "linear.weight": random.normal(size=(8, CLASSES)).astype(kind) * kind(3),
        "linear.bias": random.normal(size=CLASSES).astype(kind),
        "target": np.array(flatten, np.int64),
    }
    nodes, came = [], given
    if dtype is np.uint8:
        nodes.append(helper.make_node("Cast", [came], ["floats"], name="cast", to=TensorProto.FLOAT))
        weights["scale"] = np.array(1 / 255, np.float32)
        nodes.append(helper.make_node("Mul", ["floats", "scale"], ["scaled"], name="scale"))
        came = "scaled"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [came], ["transposed"], name="transpose", perm=[0, 3, 1, 2]))
        came = "transposed"
    nodes += [
        helper.make_node("Conv", [came, "conv.weight", "conv.bias"], [gives if per_pixel else "c"], name="conv", strides=[2, 2])
    ]
    if not per_pixel:
        flat = helper.make_node("Reshape", ["mean", "target"], ["flat"], name="flat") if flatten else None
        nodes += [
            helper.make_node("Relu", ["c"], ["r"], name="relu"),
            helper.make_node("GlobalAveragePool", ["r"], ["mean"], name="mean"),
            flat or helper.make_node("Flatten", ["mean"], ["flat"], name="flat"),
            helper.make_node("Gemm", ["flat", "linear.weight", "linear.bias"], [gives], name="linear"),
        ]
    used = {name for node in nodes for name in node.input}
    shape = [rows, channels, *size] if layout == "NCHW" else [rows, *size, channels]
    out = [rows, CLASSES, None, None] if per_pixel else [rows, CLASSES]
    graph = helper.make_graph(
        nodes,
        "somebody's",
        [helper.make_tensor_value_info(given, DTYPES[dtype], shape)],
        [helper.make_tensor_value_info(gives, DTYPES[kind], out)],
        [numpy_helper.from_array(array, name) for name, array in weights.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)


def saved(model: ModelProto, file: Path) -> Path:
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)
    return file
