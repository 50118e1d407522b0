"""The network of a graph in 8-bit integers, calibrated on rows; what surrounds it stays as it is.

Weights are signed, one scale for each output channel; activations unsigned, one range for each tensor: on CPUs with VNNI that
pair is multiplied in one instruction, a signed pair is not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from tensign.errors import UnsupportedModel
from tensign_converters.graph import save
from tensign_converters.precision.fronts import LINEAR, Prepared, spared
from tensign_converters.precision.part import joined, parts
from tensign_converters.precision.seen import Feed, Seen, seen

_WEIGHED = ("Conv", "Gemm")
# What ONNX Runtime computes in 8 bits on a CPU; the rest would only be rounded. AveragePool is none of them: its means would
# get the steps of what it takes them of, and fill few of these.
_OPERATORS = """Conv Gemm MatMul Add Mul Relu Clip LeakyRelu Sigmoid MaxPool GlobalAveragePool Concat Resize
Reshape Flatten Squeeze Unsqueeze Transpose Split Slice Pad""".split()
# The last layer's sums stay floats: nothing after it gains from 8 bits, and classes are told apart there.
_SUMS = [*LINEAR]
# Of the answers, to their spread. ResNet-18 is off by 0.03; EfficientNet-Lite0 by 0.05 to 0.1, and then its best class changes
# on one piece in ten of photographs that it is unsure about, at 0.035 on one in forty.
_ERROR = 0.035


def quantize(model: ModelProto, target: Path, feeds: Sequence[Feed]) -> None:
    """Writes it with QuantizeLinear and DequantizeLinear around what is computed between NETWORK_INPUT and LOGITS.

    feeds: what the graph takes, a row or more each, by the names of its inputs. Layers from the first on stay as they are while
    the answers are off by more than 3.5 % of their spread: what is rounded there all others magnify. Raises UnsupportedModel
    for a network that has nothing to quantize, or a layer that takes what nobody can tell the type of.
    """
    split = parts(model)
    operators = {node.op_type for node in split.network.graph.node}
    if "QuantizeLinear" in operators or not operators.intersection(("Conv", "Gemm", "MatMul")):
        raise UnsupportedModel("variant int8: the network is quantized already, or has no convolution or linear layer")
    if any(tensor.data_type == TensorProto.FLOAT16 for tensor in split.network.graph.initializer):
        raise UnsupportedModel("variant int8: wanted a network in single precision, got one that computes in half precision")
    rows = Prepared(split.before, feeds)
    known = seen(split.network, rows)
    _check_known(split.network, known)
    made = spared(split.network, rows, _ERROR, lambda front: _eight_bits(split.network, known, front))
    whole = joined(split.whole, made)
    _widen(whole, {node.name for node in split.before.graph.node})
    save(whole, target)


def _check_known(network: ModelProto, known: Seen) -> None:
    told = {*known.ranges, *(tensor.name for tensor in network.graph.initializer)}
    for node in network.graph.node:
        if node.op_type in _WEIGHED and (name := node.input[0]) not in told:
            taken = f"{name[:60]!a} is float32, which {node.name[:60]!a} takes"
            raise UnsupportedModel(f"variant int8: nobody can tell that {taken}")


def _eight_bits(network: ModelProto, known: Seen, front: Collection[str]) -> ModelProto:
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorData, TensorsData
    from onnxruntime.quantization.quant_utils import add_infer_metadata

    last = {value.name for value in network.graph.output}
    ends = [node.name for node in network.graph.node if node.op_type not in _SUMS and last.intersection(node.output)]
    kept = {*front, *ends, *_single(network)}
    source = ModelProto()
    source.CopyFrom(_corrected(network, known, kept))
    add_infer_metadata(source)  # else it would be written to a file and inferred once more
    ranges = {name: TensorData(lowest=low, highest=high) for name, (low, high) in known.ranges.items()}
    quantizer = QDQQuantizer(
        source,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[],
        nodes_to_exclude=sorted(kept),
        op_types_to_quantize=_OPERATORS,
        extra_options={"OpTypesToExcludeOutputQuantization": _SUMS},
    )
    quantizer.quantize_model()
    made: ModelProto = quantizer.model.model
    _go_round(made, kept)
    quantizer.model.topological_sort()
    del made.metadata_props[:]
    return made


def _single(network: ModelProto) -> list[str]:
    """Nodes that give one value for a channel, such as gates and what joins pools: too few to be worth an error."""
    axes = {value.name: value.type.tensor_type.shape.dim for value in network.graph.value_info}
    places = {name: {axis.dim_value for axis in shape[2:]} for name, shape in axes.items()}
    return [node.name for node in network.graph.node if node.op_type not in _SUMS and places.get(node.output[0], {0}) <= {1}]


def _go_round(made: ModelProto, kept: Collection[str]) -> None:
    """What stays in single precision takes it from what stays so before it, round the pair that is there for other readers.

    Between that pair and the next one ONNX Runtime would quantize the weights itself, those of all channels alike.
    """
    makers = {name: node for node in made.graph.node for name in node.output}
    for node in made.graph.node:
        for at, name in enumerate(node.input if node.name in kept else ()):
            wide = makers.get(name)
            narrow = makers.get(wide.input[0]) if wide and wide.op_type == "DequantizeLinear" else None
            if narrow and ((source := makers.get(narrow.input[0])) is None or source.name in kept):
                node.input[at] = narrow.input[0]


def _widen(whole: ModelProto, before: Collection[str]) -> None:
    """Constants [1,C,1,1] of the preprocessing as [1,C,1,W], the same values, where the width is known: ONNX Runtime computes a
    quantized graph channels last, where its loop over a constant of 3 values takes ten times as long. One that is used at two
    widths stays."""
    widths = {
        value.name: value.type.tensor_type.shape.dim[3].dim_value
        for value in whole.graph.value_info
        if len(value.type.tensor_type.shape.dim) == 4
    }
    constants = {tensor.name: tensor for tensor in whole.graph.initializer}
    uses: dict[str, set[int]] = {}
    for node in whole.graph.node:
        for name in node.input:
            uses.setdefault(name, set()).add(widths.get(node.output[0], 0) if node.name in before else 0)
    for name, tensor in constants.items():
        width = max(uses.get(name, {0}))
        if uses.get(name) == {width} != {0} and len(tensor.dims) == 4 and tensor.dims[1] > 1 == tensor.dims[3]:
            wide = np.repeat(numpy_helper.to_array(tensor), width, axis=3)
            tensor.CopyFrom(numpy_helper.from_array(wide, name))
            for value in [value for value in whole.graph.value_info if value.name == name]:
                whole.graph.value_info.remove(value)


def _groups(node: NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def _corrected(network: ModelProto, known: Seen, kept: Collection[str]) -> ModelProto:
    """Rounded weights move the mean of a channel; its bias moves it back, by what the mean input makes of the rounding."""
    made = ModelProto()
    made.CopyFrom(network)
    constants = {tensor.name: tensor for tensor in made.graph.initializer}
    uses = [name for node in made.graph.node for name in node.input]
    means: Mapping[str, npt.NDArray[np.float64]] = known.means
    layers = [
        node
        for node in made.graph.node
        if node.op_type in _WEIGHED
        and node.name not in kept
        and len(node.input) == 3
        and node.input[1] in constants
        and node.input[2] in constants
        and node.input[0] in means
        and constants[node.input[1]].data_type == TensorProto.FLOAT
        and uses.count(node.input[1]) == uses.count(node.input[2]) == 1
    ]
    for node in layers:
        weights, bias = (numpy_helper.to_array(constants[name]) for name in node.input[1:])
        mean, linear = means[node.input[0]], node.op_type == "Gemm"
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        flat = weights.T if linear and not attributes.get("transB") else weights
        lost = flat - _rounded(flat)
        if not linear:
            lost = lost.sum(axis=tuple(range(2, lost.ndim)))  # each place of the kernel sees about the same mean
            mean = np.repeat(mean.reshape(_groups(node), -1), len(lost) // _groups(node), axis=0)
        shift = (lost * mean).sum(axis=1)
        constants[node.input[2]].CopyFrom(numpy_helper.from_array((bias + shift).astype(np.float32), node.input[2]))
    return made


def _rounded(weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    scale = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True) / 127
    scale = np.where(scale == 0, 1, scale)
    return np.asarray(np.clip(np.rint(weights / scale), -127, 127) * scale)
