"""What a network computes on the way, over many rows: the range of each tensor, the mean of each channel of what layers get."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper

from tensign.engines.onnx import session_options
from tensign.errors import UnsupportedModel

Feed = dict[str, npt.NDArray[Any]]
_LEAST, _MOST, _MEAN = "/least", "/most", "/mean"
_LAYERS = ("Conv", "Gemm")


@dataclass(frozen=True, slots=True)
class Seen:
    """ranges: least and greatest, by tensor; means: [channels], by tensor."""

    ranges: Mapping[str, tuple[np.float32, np.float32]]
    means: Mapping[str, npt.NDArray[np.float64]]


def session(model: ModelProto) -> Any:
    """A session on the CPU, as those that serve."""
    import onnxruntime

    return onnxruntime.InferenceSession(model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"])


def seen(network: ModelProto, rows: Iterable[Feed]) -> Seen:
    """Of every tensor of floats; the tensors themselves stay in the runtime, a feed's at a time.

    Raises UnsupportedModel where there are no rows, or values that are not finite.
    """
    graph = network.graph
    values = {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info, *graph.output)}
    floats = [name for name, kind in values.items() if kind.elem_type == TensorProto.FLOAT]
    given = {node.input[0] for node in graph.node if node.op_type in _LAYERS}
    meant = [name for name in floats if name in given and values[name].shape.dim]  # else no axis is known to be the channels'
    told = ModelProto()
    told.CopyFrom(network)
    del told.graph.output[:]
    for name in floats:
        for end, operator in ((_LEAST, "ReduceMin"), (_MOST, "ReduceMax")):
            told.graph.node.append(helper.make_node(operator, [name], [f"{name}{end}"], keepdims=0))
    for name in meant:
        axes = [axis for axis in range(len(values[name].shape.dim)) if axis != 1]
        told.graph.initializer.append(helper.make_tensor(f"{name}/axes", TensorProto.INT64, [len(axes)], axes))
        told.graph.node.append(helper.make_node("ReduceMean", [name, f"{name}/axes"], [f"{name}{_MEAN}"], keepdims=0))
    ends = [f"{name}{end}" for end in (_LEAST, _MOST) for name in floats] + [f"{name}{_MEAN}" for name in meant]
    told.graph.output.extend(helper.make_tensor_value_info(end, TensorProto.FLOAT, None) for end in ends)
    running, count = session(told), 0
    least, most = np.full(len(floats), np.inf, np.float32), np.full(len(floats), -np.inf, np.float32)
    sums = [np.zeros(())] * len(meant)
    for feed in rows:
        found = running.run(ends, feed)
        least = np.minimum(least, found[: len(floats)])
        most = np.maximum(most, found[len(floats) : 2 * len(floats)])
        size = len(next(iter(feed.values())))
        sums = [total + size * mean.astype(np.float64) for total, mean in zip(sums, found[2 * len(floats) :], strict=True)]
        count += size
    if not count or not np.isfinite([least, most]).all():
        reason = "gives values that are not finite" if count else "was calibrated on nothing"
        raise UnsupportedModel(f"variant int8: the network {reason}")
    means = {name: total / count for name, total in zip(meant, sums, strict=True)}
    return Seen(dict(zip(floats, zip(least, most, strict=True), strict=True)), means)
