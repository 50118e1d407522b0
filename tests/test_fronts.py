"""First layers stay in single precision where rounding them spoils the answers, by measured error."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from onnx_networks import small
from tensign.demo import MODEL
from tensign.plan import ModelPlan
from tensign.proof.samples import photographs

pytest.importorskip("torch")

from tensign_converters.precision.calibration import rows
from tensign_converters.precision.fronts import Prepared, spared
from tensign_converters.precision.halves import halve
from tensign_converters.precision.part import parts
from tensign_converters.precision.seen import session


def test_halves_leave_the_first_layers_of_a_network_that_magnifies_what_is_rounded_there(tmp_path: Path) -> None:
    """EfficientNet-Lite0, whose probabilities would be off by 0.006."""
    plan, model = ModelPlan.of(MODEL), onnx.load(MODEL / "model.onnx")
    assert plan.preprocess is not None
    given = [{"image": row} for row in rows(photographs(), plan.preprocess)[0][:48]]
    halve(model, tmp_path / "half.onnx", given[::4])
    made = onnx.load(tmp_path / "half.onnx")
    onnx.checker.check_model(made, full_check=True)
    convolutions = [node for node in made.graph.node if node.op_type == "Conv"]
    kinds = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    wide = [kinds[node.input[1]] == TensorProto.FLOAT for node in convolutions]
    assert wide == sorted(wide, reverse=True) and 0 < sum(wide) < len(wide) / 4
    both = [session(each) for each in (model, made)]
    apart = [np.abs(np.subtract(*(each.run(None, feed)[0] for each in both))).max() for feed in given]
    assert max(apart) < 4e-3


def test_where_no_first_layers_are_enough_the_best_of_what_was_tried_is_taken() -> None:
    split = parts(small(rows="rows", opset=20))
    given = Prepared(split.before, [{"x": np.ones((1, 3, 32, 40), np.float32)}])
    offered: list[tuple[int, ModelProto]] = []

    def spoilt(front: Collection[str]) -> ModelProto:
        """The more nodes are left, the less its weights are moved, and with none of them to no number."""
        made = ModelProto()
        made.CopyFrom(split.network)
        for tensor in made.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                by = np.float32(1 + 1 / len(front) if front else np.nan)
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * by, tensor.name))
        offered.append((len(front), made))
        return made

    found = spared(split.network, given, 1e-9, spoilt)
    assert offered[0][0] == 0 and found is max(offered, key=lambda one: one[0])[1]
    offered.clear()
    assert spared(split.network, given, np.inf, spoilt) is offered[0][1] and len(offered) == 1
