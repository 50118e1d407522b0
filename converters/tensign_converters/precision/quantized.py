"""The network of a graph in 8-bit integers, calibrated on rows; what surrounds it stays as it is.

Weights are signed, one scale for each output channel; activations unsigned, one range for each tensor: on CPUs with VNNI that
pair is multiplied in one instruction, a signed pair is not.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from tensign.errors import UnsupportedModel
from tensign_converters.graph import save
from tensign_converters.precision.part import joined, parts

Feed = dict[str, npt.NDArray[Any]]
_WEIGHED = ("Conv", "Gemm")


def quantize(model: ModelProto, target: Path, feeds: Sequence[Feed]) -> None:
    """Writes it with QuantizeLinear and DequantizeLinear around what is computed between NETWORK_INPUT and LOGITS.

    feeds: what the graph takes, a row or more each, by the names of its inputs. Raises UnsupportedModel for a network that has
    nothing to quantize.
    """
    split = parts(model)
    operators = {node.op_type for node in split.network.graph.node}
    if "QuantizeLinear" in operators or not operators.intersection(("Conv", "Gemm", "MatMul")):
        raise UnsupportedModel("variant int8: the network is quantized already, or has no convolution or linear layer")
    rows = _Prepared(split.before, feeds)
    network = _corrected(split.network, rows)
    save(joined(split.whole, _with_ranges(network, rows)), target)


class _Prepared:
    """Feeds of the graph as what its network gets, computed anew each time they are asked for."""

    def __init__(self, before: ModelProto, feeds: Sequence[Feed]) -> None:
        self._session, self._feeds = _session(before), feeds
        self._taken = {value.name for value in self._session.get_inputs()}
        self._names = [value.name for value in self._session.get_outputs()]

    def __iter__(self) -> Iterator[Feed]:
        for feed in self._feeds:
            taken = {name: array for name, array in feed.items() if name in self._taken}
            yield dict(zip(self._names, self._session.run(self._names, taken), strict=True))


def _session(model: ModelProto) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _with_ranges(network: ModelProto, rows: _Prepared) -> ModelProto:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(rows)

        def get_next(self) -> Feed | None:
            return next(self._left, None)

    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch, "quantized.onnx")
        logging.disable(logging.WARNING)  # it advises to optimize the graph first, which its exporter has done
        try:
            quantize_static(
                network,
                made,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8,
                nodes_to_exclude=_front(network),
                # The last layer's sums stay floats: nothing after it gains from 8 bits, and classes are told apart there.
                extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
            )
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(made)


def _front(network: ModelProto) -> list[str]:
    """Nodes up to the first sum of two branches of a network with depthwise convolutions, whose few channels there have ranges
    so unlike each other that one for the whole tensor loses the small ones."""
    graph = network.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv" and node.input[1] in weights]
    depthwise = any(_groups(node) == weights[node.input[1]].dims[0] > 1 for node in convolutions)
    names: list[str] = []
    for node in graph.node if depthwise else ():
        names.append(node.name)
        if node.op_type == "Add" and not any(name in weights for name in node.input):
            return names
    return []


def _groups(node: NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def _corrected(network: ModelProto, rows: _Prepared) -> ModelProto:
    """Rounded weights move the mean of a channel; its bias moves it back, by what the mean input makes of the rounding."""
    made = ModelProto()
    made.CopyFrom(network)
    constants = {tensor.name: tensor for tensor in made.graph.initializer}
    uses = [name for node in made.graph.node for name in node.input]
    front = set(_front(made))
    layers = [
        node
        for node in made.graph.node
        if node.op_type in _WEIGHED
        and node.name not in front
        and len(node.input) == 3
        and node.input[1] in constants
        and node.input[2] in constants
        and constants[node.input[1]].data_type == TensorProto.FLOAT
        and uses.count(node.input[1]) == uses.count(node.input[2]) == 1
    ]
    means = _means(made, sorted({node.input[0] for node in layers}), rows)
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


def _means(network: ModelProto, names: Sequence[str], rows: _Prepared) -> dict[str, npt.NDArray[Any]]:
    """Of each channel, axis 1, of these inner tensors, over all rows."""
    told = ModelProto()
    told.CopyFrom(network)
    outputs = {value.name for value in told.graph.output}
    given = {value.name for value in told.graph.input}
    values = [value for value in told.graph.value_info if value.name in names and value.name not in outputs]
    told.graph.output.extend(values)
    session, sums, count = _session(told), dict.fromkeys(names, np.zeros(1)), 0
    inner = [name for name in names if name not in given]
    for feed in rows:
        found = {**feed, **dict(zip(inner, session.run(inner, feed), strict=True))}
        for name in names:
            array = found[name]
            sums[name] = sums[name] + array.mean(axis=tuple(range(2, array.ndim)), dtype=np.float64).sum(axis=0)
        count += len(next(iter(found.values())))
    return {name: total / count for name, total in sums.items()}
