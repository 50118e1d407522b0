"""Learned -> ONNX: cast, transpose, float steps, network and activation in one graph, any number of rows."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from tensign.errors import UnsupportedModel
from tensign_converters.learned import Learned, example, network_input

OPSET, IR_VERSION = 20, 10  # what ONNX Runtime 1.18 and later read
INPUT, OUTPUT = "image", "output"
NETWORK_INPUT, LOGITS = "network_input", "logits"  # inner tensors that keep their names, for proof and diagnosis
_WORTH_HALVING = 4096  # elements; what is smaller saves nothing, and biases keep their precision


class Graph(nn.Module):
    """uint8 pixels [B,h,w,3] or [B,h,w] -> float32 [B,...], with the network's input and its logits besides."""

    def __init__(self, learned: Learned) -> None:
        super().__init__()
        self.preprocessing, self.head = learned.preprocessing, learned.head
        self.steps = nn.ModuleList(learned.preprocessing.graph_steps)
        self.network = learned.network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = network_input(self.preprocessing, pixels)
        logits = self.network(x)
        return self.head.activate(logits), x + 0, logits  # + 0: a tensor of its own name


def export(learned: Learned, target: Path) -> None:
    """Writes one ONNX file, any number of rows; NETWORK_INPUT and LOGITS are inner tensors of it. The same model gives the
    same bytes.

    Raises UnsupportedModel for a network that the exporter cannot follow.
    """
    with warnings.catch_warnings(), _plain_tensors(learned.network):
        warnings.simplefilter("ignore")  # the exporter's own
        try:
            program = torch.onnx.export(
                Graph(learned).eval(),
                (example(learned.preprocessing, 2),),
                input_names=[INPUT],
                output_names=[OUTPUT, NETWORK_INPUT, LOGITS],
                dynamic_shapes={"pixels": {0: torch.export.Dim("rows")}},
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        except Exception as error:  # the exporter wraps whatever a network's forward does
            reason = str(error.__cause__ or error).strip().partition("\n")[0][:300]
            raise UnsupportedModel(f"the network cannot be exported to ONNX: {reason}") from error
    assert program is not None
    model = program.model_proto
    model.ir_version = IR_VERSION
    for value in [value for value in model.graph.output if value.name in (NETWORK_INPUT, LOGITS)]:
        model.graph.output.remove(value)
        model.graph.value_info.append(value)
    for node in model.graph.node:  # the exporter's notes name files of the machine it ran on
        del node.metadata_props[:]
        node.doc_string = ""
    if (size := model.ByteSize()) >= onnx.checker.MAXIMUM_PROTOBUF:
        raise UnsupportedModel(f"the graph takes {size} bytes; one file holds less than {onnx.checker.MAXIMUM_PROTOBUF}")
    onnx.checker.check_model(model, full_check=True)
    target.write_bytes(model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _plain_tensors(network: nn.Module) -> Iterator[None]:
    """Without the modules of fastai's unets that only change the class of a tensor, which the exporter cannot follow."""
    swapped = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if type(child).__name__ == "ToTensorBase" and type(child).__module__ == "fastai.layers"
    ]
    for parent, name, _ in swapped:
        setattr(parent, name, nn.Identity())
    try:
        yield
    finally:
        for parent, name, child in swapped:
            setattr(parent, name, child)


def store_as_fp16(file: Path) -> None:
    """Halves the file: the network's large initializers are stored as fp16 behind a Cast, which the runtime folds at load."""
    model = onnx.load(file)
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        of_the_network = not tensor.name.startswith("steps.")  # the preprocessing stays exact
        if not of_the_network or tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _WORTH_HALVING:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}_fp16"))
        casts.append(helper.make_node("Cast", [f"{name}_fp16"], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    for cast in reversed(casts):
        graph.node.insert(0, cast)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)


def with_inner_outputs(file: Path) -> bytes:
    """The serialized model with NETWORK_INPUT and LOGITS as outputs again."""
    model = onnx.load(file)
    for value in model.graph.value_info:
        if value.name in (NETWORK_INPUT, LOGITS):
            model.graph.output.append(value)
    return model.SerializeToString()
