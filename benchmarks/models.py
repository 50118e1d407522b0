"""The models that benchmarks serve, made when they are asked for: MLmodel directories with an `onnx` flavor.

mean: the mean of each colour over every thirtieth pixel of every thirtieth row, near-free, so that the server is what costs.
resnet18: torchvision's, weights drawn from a fixed seed, cast and normalisation inside the graph; accuracy is not the point.
Both uint8 [-1,300,300,3]. thumbnail: mean, which also takes files, resized to that. echo: gives the picture back.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper

from tensign.preprocess import PreprocessSpec, Resize

MODELS = Path(__file__).parent / "results" / "scratch" / "models"

Output = tuple[str, tuple[int, ...]]  # dtype, and the axes behind the rows


def make(name: str) -> Path:
    """Path of the MLmodel directory called "mean", "resnet18", "thumbnail" or "echo"."""
    target = MODELS / name
    if not (target / "MLmodel").exists():
        target.mkdir(parents=True, exist_ok=True)
        makers = {"mean": _mean, "resnet18": _resnet18, "thumbnail": _mean, "echo": _echo}
        output = makers[name](target / "model.onnx")
        describe(target, output, PreprocessSpec((Resize(300, 300, "squish"),)) if name == "thumbnail" else None)
    return target


def _mean(file: Path) -> Output:
    places = {"starts": [0, 0], "ends": [300, 300], "axes": [1, 2], "steps": [30, 30]}
    constants = [
        helper.make_node("Constant", [], [name], value=helper.make_tensor(name, TensorProto.INT64, [2], values))
        for name, values in places.items()
    ]
    nodes = [
        *constants,
        helper.make_node("Slice", ["image", *places], ["few"]),
        helper.make_node("Cast", ["few"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x"], ["colour"], axes=[1, 2], keepdims=0),
    ]
    return _save(file, nodes, ("float32", (3,)))


def _echo(file: Path) -> Output:
    return _save(file, [helper.make_node("Identity", ["image"], ["colour"])], ("uint8", (300, 300, 3)))


def _save(file: Path, nodes: list[onnx.NodeProto], output: Output) -> Output:
    dtype, shape = output
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["rows", 300, 300, 3])
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    colour = helper.make_tensor_value_info("colour", element, ["rows", *shape])
    graph = helper.make_graph(nodes, "colour", [image], [colour])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), file)
    return output


def _resnet18(file: Path) -> Output:
    import torch
    from torchvision.models import resnet18

    from tensign_converters.pictures import export
    from tensign_converters.pictures.model import rebuilt
    from tensign_converters.pictures.preprocessing import COLOUR, Preprocessing
    from tensign_converters.pictures.steps import Normalize, Scale
    from tensign_converters.subject import Head

    torch.manual_seed(0)
    steps = (Scale(255.0), Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    preprocessing = Preprocessing(COLOUR, (), steps, (300, 300), (300, 300))
    head = Head("classification", "softmax", -1, (), None)
    export.export(rebuilt(resnet18(weights=None).eval(), preprocessing, head, (1000,), {}), file)
    return "float32", (1000,)


def describe(target: Path, output: Output, preprocess: PreprocessSpec | None = None) -> None:
    """Writes the MLmodel of a model.onnx that takes 300x300 pictures and gives that; files too, given a preprocessing."""
    signature = {
        "inputs": [{"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, 300, 300, 3]}}],
        "outputs": [{"type": "tensor", "tensor-spec": {"dtype": output[0], "shape": [-1, *output[1]]}}],
    }
    document: dict[str, Any] = {
        "artifact_path": target.name,
        "flavors": {
            "onnx": {"data": "model.onnx", "onnx_version": onnx.__version__},
            "python_function": {"data": "model.onnx", "loader_module": "mlflow.onnx"},
        },
        "signature": {part: json.dumps(specs) for part, specs in signature.items()},
    }
    if preprocess:
        document["metadata"] = {"tensign": {"preprocess": preprocess.document()}}
    (target / "MLmodel").write_text(yaml.safe_dump(document))
