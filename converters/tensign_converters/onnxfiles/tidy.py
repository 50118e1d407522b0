"""A graph -> the same function in fewer nodes: constants folded, what does nothing or is not used left out."""

from __future__ import annotations

import onnx
from onnx import ModelProto


def tidy(model: ModelProto) -> ModelProto:
    """What torch's own exporter does to its graphs; the same bytes every time. A graph it cannot follow stays as it is.

    Batch normalisation is folded into the convolution before it, which changes results in the seventh digit; quantized
    nodes stay. Names of inputs and outputs stay, inner ones may not.
    """
    from onnxscript.optimizer import optimize

    try:
        made = optimize(model)
        onnx.checker.check_model(made, full_check=True)
    except Exception:  # it runs nodes of a graph that anybody may have written
        return model
    for node in made.graph.node:
        del node.metadata_props[:]  # where a node came from
    for value in (*made.graph.value_info, *made.graph.input, *made.graph.output):
        del value.metadata_props[:]
    return made
