"""The proof of several precisions at once: which is judged on what was held back, and which on photographs too."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from precision_network import DECLARED, SIZE, network, noise
from tensign.errors import ParityFailed
from tensign.proof.samples import Samples, samples
from tensign_converters.live import module_subject
from tensign_converters.precision.variants import write_variants
from tensign_converters.prove import prove_all
from tensign_converters.subject import Subject


@pytest.fixture(scope="module")
def subject() -> Subject:
    return module_subject(network(), DECLARED, None)


@pytest.fixture(scope="module")
def graph(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network in single precision."""
    file = tmp_path_factory.mktemp("graph") / "model.onnx"
    subject.write(file)
    return file


def test_what_is_not_finite_is_refused_on_photographs_too(subject: Subject, graph: Path, tmp_path: Path) -> None:
    broken = onnx.load(graph)
    (last,) = [node for node in broken.graph.node if "output" in node.output]
    last.output[0] = "sound"
    axes, most, none = np.array([1, 2, 3]), np.array(100, np.float32), np.zeros((1, 1, 1, 1), np.float32)
    given = (("axes", axes), ("most", most), ("none", none), ("inner", np.array([2, 3])))
    broken.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in given)
    broken.graph.node.extend(
        [
            helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["levels", "axes"], ["brightest"]),
            helper.make_node("Sub", ["most", "brightest"], ["left"]),
            helper.make_node("Sqrt", ["left"], ["root"]),  # no number where a pixel is brighter than 100
            helper.make_node("Mul", ["root", "none"], ["nothing"]),
            helper.make_node("Squeeze", ["nothing", "inner"], ["column"]),
            helper.make_node("Add", ["sound", "column"], ["output"]),
        ]
    )
    onnx.save(broken, tmp_path / "int8.onnx")
    files, name = {"fp32": graph, "int8": tmp_path / "int8.onnx"}, subject.signature.inputs[0].name
    tried = samples(subject.signature, subject.preprocess, crops=2)
    dark = Samples(tuple((f"{row}", partial(dict, {name: pixels // 4})) for row, pixels in enumerate(noise(20))), "dark ones")
    with pytest.raises(ParityFailed, match=r"its int8 variant does not .* 100\.0%, on dark ones; beside them: .* nan"):
        prove_all(subject, files, tried, dark)


def test_halves_hold_their_tolerance_on_photographs_and_on_what_was_held_back(
    subject: Subject, graph: Path, tmp_path: Path
) -> None:
    """Eight bits were calibrated on what is like the latter, and are judged there alone."""
    made, file = onnx.load(graph), tmp_path / "other.onnx"
    (weights,) = [tensor for tensor in made.graph.initializer if list(tensor.dims) == [8, 3, 3, 3]]
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(1.5), weights.name))
    onnx.save(made, file)
    tried, name = samples(subject.signature, subject.preprocess, crops=2), subject.signature.inputs[0].name
    same = Samples((("grey", partial(dict, {name: np.full((SIZE, SIZE, 3), 127, np.uint8)})),), "grey")  # next to 0 within
    assert prove_all(subject, {"fp32": graph, "int8": file}, tried, same)[0]["int8"].held
    for rows, held in ((tried, same), (same, tried)):
        with pytest.raises(ParityFailed, match="its fp16 variant does not predict"):
            prove_all(subject, {"fp32": graph, "fp16": file}, rows, held)


def test_tensors_are_judged_on_rows_of_the_example_that_were_held_back(subject: Subject, graph: Path, tmp_path: Path) -> None:
    model, taking, name = tmp_path / "model.onnx", replace(subject, preprocess=None), subject.signature.inputs[0].name
    model.write_bytes(graph.read_bytes())
    rows = Samples(tuple((f"{row}", partial(dict, {name: pixels})) for row, pixels in enumerate(noise(4))), "noise")
    example = {name: noise(30) // 64}
    found = write_variants(taking, model, ["int8"], None, example, rows)
    assert found.calibrated == "20 rows of the saved input example" and found.held
    held = prove_all(taking, {"fp32": model, **found.files}, rows, found.held)[0]["int8"].held
    assert held and (held.rows, held.inputs) == (10, "10 rows of the saved input example held back from calibration")
