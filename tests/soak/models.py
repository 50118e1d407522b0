"""The models under soak, written as MLmodel directories with an `onnx` flavor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from .identity import FACTOR

WORK = 300  # additions, about 0.3 ms for a batch of any size: requests wait for the engine, and batches fill


def identity(folder: Path, *, work: int = WORK, reverse: bool = False) -> Path:
    """The model "identity": row int64 [-1,-1] -> answer int64 [-1,-1], 5 x row + work.

    reverse: wrong on purpose, each batch answered last row first.
    """
    constants = {"factor": FACTOR, "one": 1}
    nodes = [helper.make_node("Mul", ["row", "factor"], ["fivefold"]), helper.make_node("Size", ["row"], ["n0"])]
    nodes += [helper.make_node("Add", [f"n{n}", "one"], [f"n{n + 1}"]) for n in range(work)]
    nodes += [
        helper.make_node("Sub", [f"n{work}", "n0"], ["work"]),
        helper.make_node("Add", ["fivefold", "work"], ["right"]),
    ]
    if reverse:
        constants |= {"start": -1, "end": -(1 << 31), "axis": 0, "step": -1}
        nodes.append(helper.make_node("Slice", ["right", "start", "end", "axis", "step"], ["answer"]))
    else:
        nodes.append(helper.make_node("Identity", ["right"], ["answer"]))
    graph = helper.make_graph(
        nodes,
        "identity",
        [helper.make_tensor_value_info("row", TensorProto.INT64, ["rows", "width"])],
        [helper.make_tensor_value_info("answer", TensorProto.INT64, ["rows", "width"])],
        [numpy_helper.from_array(np.array([value], np.int64), name) for name, value in constants.items()],
    )
    signature = {"inputs": [_tensor("row", "int64", [-1, -1])], "outputs": [_tensor("answer", "int64", [-1, -1])]}
    return _written(folder / "identity", graph, signature=signature)


def colours(folder: Path) -> Path:
    """The model "colours": image uint8 [-1,32,32,3], or pictures squeezed to 32x32 -> mean float32 [-1,3] of each colour."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2], keepdims=0),
        ],
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["rows", 32, 32, 3])],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["rows", 3])],
    )
    steps = [{"op": "resize", "height": 32, "width": 32, "method": "squish"}]
    return _written(
        folder / "colours",
        graph,
        signature={
            "inputs": [_tensor("image", "uint8", [-1, 32, 32, 3])],
            "outputs": [_tensor("mean", "float32", [-1, 3])],
        },
        metadata={"tensign": {"preprocess": {"version": 1, "steps": steps}}},
    )


def _tensor(name: str, dtype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}


def _written(target: Path, graph: onnx.GraphProto, *, signature: dict[str, Any], **document: Any) -> Path:
    target.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), target / "model.onnx")
    document |= {
        "artifact_path": target.name,
        "flavors": {"onnx": {"data": "model.onnx"}},
        "signature": {part: json.dumps(specs) for part, specs in signature.items()},
    }
    (target / "MLmodel").write_text(yaml.safe_dump(document))
    return target
