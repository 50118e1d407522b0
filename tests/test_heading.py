"""What requests share that say the same, and what is looked at in every one of them all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper

from conftest import CPU, save_mean_model, save_onnx, tensor, write_mlmodel
from tensign._pb import open_inference_pb2 as pb
from tensign.errors import InvalidInput, ModelNotFound
from tensign.model import Model
from tensign.repository import Repository
from tensign.rpc import heading
from tensign.rpc.codec import decode_request, encode_request
from tensign.rpc.heading import Headings
from tensign.rpc.wire import received

PICTURES = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
Change = Callable[[pb.ModelInferRequest], object]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    made = Model.load(save_mean_model(tmp_path_factory.mktemp("mean")), CPU, name="mean")
    yield made
    made.close()


@pytest.fixture
def headings(model: Model) -> Headings:
    return Headings(Repository([model]))


def asked(pictures: npt.NDArray[Any] = PICTURES, *changes: Change) -> bytes:
    request = encode_request("mean", {"input-0": pictures}, request_id="7")
    for change in changes:
        change(request)
    return request.SerializeToString()


def test_it_is_read_once_and_gives_each_request_its_own_rows(headings: Headings, model: Model) -> None:
    for pictures in (PICTURES, PICTURES + 1):
        message = received(asked(pictures))
        found = headings.of(message)
        arranged = found.arranged(message.raw)
        assert arranged is not None and arranged.rows == 2 and not arranged.params
        np.testing.assert_array_equal(arranged["input-0"], pictures)
        assert not arranged["input-0"].flags.writeable
        usual = model.enforced(decode_request(message.request, message.raw))
        assert [*usual] == [*arranged] and usual["input-0"].dtype == arranged["input-0"].dtype
        assert headings.of(received(asked())) is found


@pytest.mark.parametrize("raw", [[b"short"], [PICTURES.tobytes() + b"x"], [], [PICTURES.tobytes()] * 2])
def test_contents_of_other_lengths_are_left_to_who_says_what_is_wrong(headings: Headings, raw: list[bytes]) -> None:
    assert headings.of(received(asked())).arranged(raw) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.inputs[0].shape.append(1),
        lambda r: r.inputs[0].shape.__setitem__(0, 0),
        lambda r: r.inputs[0].shape.__setitem__(0, -2),
        lambda r: r.inputs[0].shape.__setitem__(0, 1 << 62),
        lambda r: r.inputs[0].shape.extend([1] * 100),
        lambda r: setattr(r.inputs[0], "datatype", "FP32"),
        lambda r: setattr(r.inputs[0], "datatype", "UINT9"),
        lambda r: setattr(r.inputs[0], "datatype", "BYTES"),
        lambda r: setattr(r.inputs[0], "name", "other"),
        lambda r: r.inputs.append(r.inputs[0]),
        lambda r: r.inputs[0].contents.uint_contents.append(1),
        lambda r: r.ClearField("inputs"),
    ],
)
def test_what_enforcement_refuses_is_refused_each_time(headings: Headings, model: Model, change: Change) -> None:
    message = received(asked(PICTURES, change))
    for _ in range(2):
        assert headings.of(message).arranged(message.raw) is None
    with pytest.raises(InvalidInput):
        model.enforced(decode_request(message.request, message.raw))


def test_outputs_and_parameters_that_are_wrong_are_refused_each_time(headings: Headings) -> None:
    wrong: tuple[tuple[Change, str], ...] = (
        (lambda r: r.outputs.add(name="none"), "none"),
        (lambda r: r.parameters["timeout"].__setattr__("bool_param", True), "timeout"),
        (lambda r: r.parameters["timings"].__setattr__("int64_param", 1), "timings"),
    )
    for change, said in wrong:
        for _ in range(2):
            with pytest.raises(InvalidInput, match=said):
                headings.of(received(asked(PICTURES, change)))
    with pytest.raises(ModelNotFound):
        headings.of(received(asked(PICTURES, lambda r: setattr(r, "model_name", "nobody"))))


def test_a_message_of_very_many_inputs_costs_nobody_anything(headings: Headings) -> None:
    def many(request: pb.ModelInferRequest) -> None:
        for number in range(16_000):
            request.inputs.add(name=f"a{number}", datatype="INT8", shape=[1])

    message = received(asked(PICTURES, many))
    assert message.heading == b"" and headings.of(message).layouts is None and not headings._known


def test_bytes_of_booleans_are_looked_at_each_time(tmp_path: Path) -> None:
    path = write_mlmodel(
        tmp_path / "bool", signature={"inputs": [tensor("bool", [-1, 2])], "outputs": [tensor("bool", [-1, 2])]}
    )
    nodes = [helper.make_node("Not", ["x"], ["y"])]
    save_onnx(path / "model.onnx", nodes, {"x": (TensorProto.BOOL, ["n", 2])}, {"y": (TensorProto.BOOL, ["n", 2])})
    model = Model.load(path, CPU, name="bool")
    headings = Headings(Repository([model]))
    message = received(encode_request("bool", {"input-0": np.array([[True, False]])}).SerializeToString())
    for _ in range(2):
        assert headings.of(message).arranged([b"\0\2"]) is None
    model.close()


def test_inputs_may_come_in_any_order(tmp_path: Path) -> None:
    parts = {"inputs": [tensor("float32", [-1], "a"), tensor("int64", [-1], "b")], "outputs": [tensor("float32", [-1], "y")]}
    path = write_mlmodel(tmp_path / "pair", signature=parts)
    nodes = [helper.make_node("Cast", ["b"], ["c"], to=TensorProto.FLOAT), helper.make_node("Sub", ["a", "c"], ["y"])]
    given = {"a": (TensorProto.FLOAT, ["n"]), "b": (TensorProto.INT64, ["n"])}
    save_onnx(path / "model.onnx", nodes, given, {"y": (TensorProto.FLOAT, ["n"])})
    model = Model.load(path, CPU, name="pair")
    headings = Headings(Repository([model]))
    arrays = {"b": np.array([1, 2]), "a": np.array([5.0, 7.0], np.float32)}
    message = received(encode_request("pair", arrays).SerializeToString())
    arranged = headings.of(message).arranged(message.raw)
    assert arranged is not None and [*arranged] == ["a", "b"]
    assert model.infer(arranged)["y"].tolist() == [4, 5]
    model.close()


def test_they_are_forgotten_before_they_are_too_many(headings: Headings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heading, "KEPT", 3)
    for rows in range(1, 9):
        found = headings.of(received(asked(PICTURES[:1].repeat(rows, 0))))
        assert found.layouts is not None and found.layouts[0].shape[0] == rows
        assert len(headings._known) <= 3
