"""The network of a graph in half precision; what surrounds it stays as it is."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto, TensorProto

from tensign.errors import UnsupportedModel
from tensign_converters.graph import save
from tensign_converters.precision.part import joined, parts


def halve(model: ModelProto, target: Path) -> None:
    """Writes it with half-precision weights and arithmetic between NETWORK_INPUT and LOGITS, but for the operators that ONNX
    Runtime keeps from it. Inputs, outputs and those two tensors stay what they were.

    Raises UnsupportedModel where there is nothing to halve.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    split = parts(model)
    if not any(tensor.data_type == TensorProto.FLOAT for tensor in split.network.graph.initializer):
        raise UnsupportedModel("variant fp16: the network has no weights in single precision")
    halved = convert_float_to_float16(split.network, keep_io_types=True, disable_shape_infer=True)
    save(joined(split.whole, halved), target)
