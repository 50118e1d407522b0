"""Fewer nodes, the same function, the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from onnx_networks import small

pytest.importorskip("onnxscript")

from tensign_converters.onnxfiles.tidy import tidy


def test_what_is_constant_is_folded_and_what_it_cannot_follow_stays() -> None:
    model = small()
    graph = model.graph
    statistics = {"scale": 2, "shift": 1, "mean": 3, "var": 4}
    for name, value in statistics.items():
        graph.initializer.append(numpy_helper.from_array(np.full(8, value, np.float32), f"bn.{name}"))
    graph.node[1].input[0] = "normal"
    given = ["c", *(f"bn.{name}" for name in statistics)]
    graph.node.insert(1, helper.make_node("BatchNormalization", given, ["identical"], name="bn"))
    graph.node.insert(2, helper.make_node("Identity", ["identical"], ["normal"], name="nothing"))
    graph.node.insert(3, helper.make_node("Neg", ["normal"], ["unused"], name="unused"))
    made = tidy(model)
    assert [node.op_type for node in made.graph.node][:3] == ["Conv", "Relu", "GlobalAveragePool"]
    assert len(made.graph.node) == 5
    assert [value.name for value in (*made.graph.input, *made.graph.output)] == ["x", "y"]
    assert made.SerializeToString(deterministic=True) == tidy(model).SerializeToString(deterministic=True)
    broken = small()
    broken.graph.node[1].op_type = "Unheard"
    assert tidy(broken) is broken
