"""The network of a graph in half precision; what surrounds it stays as it is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from onnx import ModelProto, TensorProto

from tensign.errors import UnsupportedModel
from tensign_converters.graph import save
from tensign_converters.precision.fronts import Prepared, spared
from tensign_converters.precision.part import after, joined, parts
from tensign_converters.precision.seen import Feed

# Of the answers, to their spread; a probability is off by up to 1.4 times as much. EfficientNet-Lite0 is off by 0.004 to 0.007
# where all is halved, by 0.003 where nine layers are not.
_ERROR = 0.0035


def halve(model: ModelProto, target: Path, feeds: Sequence[Feed]) -> None:
    """Writes it with half-precision weights and arithmetic between NETWORK_INPUT and LOGITS, but for the operators that ONNX
    Runtime keeps from it. Inputs, outputs and those two tensors stay what they were.

    feeds: what the graph takes, a row or more each, by the names of its inputs. Layers from the first on stay as they are while
    the answers are off by more than 0.35 % of their spread. Raises UnsupportedModel where there is nothing to halve.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    split = parts(model)
    if not any(tensor.data_type == TensorProto.FLOAT for tensor in split.network.graph.initializer):
        raise UnsupportedModel("variant fp16: the network has no weights in single precision")

    def halved(front: Collection[str]) -> ModelProto:
        rest = convert_float_to_float16(after(split.network, front), keep_io_types=True, disable_shape_infer=True)
        return joined(split.network, rest)

    save(joined(split.whole, spared(split.network, Prepared(split.before, feeds), _ERROR, halved)), target)
