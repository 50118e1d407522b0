"""The wire: messages against literal bytes, and everything a client can get wrong."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tensign._pb import open_inference_pb2 as pb
from tensign.datatypes import TABLE
from tensign.errors import EngineError, InvalidInput
from tensign.rpc.answers import encode_response, requested_outputs
from tensign.rpc.codec import (
    decode_params,
    decode_request,
    decode_response,
    encode_param,
    encode_request,
)
from tensign.signature import Signature

Request, Response = pb.ModelInferRequest, pb.ModelInferResponse


def raw(datatype: str, shape: list[int], content: bytes) -> pb.ModelInferRequest:
    request = Request(raw_input_contents=[content])
    request.inputs.add(name="x", datatype=datatype, shape=shape)
    return request


def typed(datatype: str, shape: list[int], **contents: list[Any]) -> pb.ModelInferRequest:
    request = Request()
    request.inputs.add(name="x", datatype=datatype, shape=shape, contents=pb.InferTensorContents(**contents))
    return request


# raw

RAW: list[tuple[str, bytes, list[Any]]] = [
    ("BOOL", b"\x00\x01", [False, True]),
    ("UINT8", b"\x00\xff", [0, 255]),
    ("UINT16", b"\x01\x00\xff\xff", [1, 65535]),
    ("UINT32", b"\x01\x00\x00\x00\xff\xff\xff\xff", [1, 2**32 - 1]),
    ("UINT64", b"\x01" + bytes(7) + b"\xff" * 8, [1, 2**64 - 1]),
    ("INT8", b"\x7f\x80", [127, -128]),
    ("INT16", b"\x00\x80\xfe\xff", [-(2**15), -2]),
    ("INT32", b"\x02\x01\x00\x00\xff\xff\xff\xff", [258, -1]),
    ("INT64", b"\x02\x01" + bytes(6) + b"\xff" * 8, [258, -1]),
    ("FP16", b"\x00\x3c\x00\xc0", [1.0, -2.0]),
    ("FP32", b"\x00\x00\x80\x3f\x00\x00\x00\xc0", [1.0, -2.0]),
    ("FP64", bytes(6) + b"\xf0\x3f" + bytes(7) + b"\xc0", [1.0, -2.0]),
    ("BYTES", b"\x03\x00\x00\x00cat\x00\x00\x00\x00", [b"cat", b""]),
]
EVERY_RAW = pytest.mark.parametrize(("datatype", "content", "values"), RAW, ids=[row[0] for row in RAW])


def test_tables_here_cover_every_datatype() -> None:
    assert [row[0] for row in RAW] == [row.protocol for row in TABLE]


@EVERY_RAW
def test_raw_bytes_are_read(datatype: str, content: bytes, values: list[Any]) -> None:
    array = decode_request(raw(datatype, [2, 1], content))["x"]
    assert array.shape == (2, 1)
    assert array.dtype == next(row.numpy for row in TABLE if row.protocol == datatype)
    assert array[:, 0].tolist() == values


@EVERY_RAW
def test_raw_bytes_are_written(datatype: str, content: bytes, values: list[Any]) -> None:
    dtype = next(row.numpy for row in TABLE if row.protocol == datatype)
    assert encode_request("m", {"x": np.array(values, dtype)}) == Request(
        model_name="m",
        inputs=[Request.InferInputTensor(name="x", datatype=datatype, shape=[2])],
        raw_input_contents=[content],
    )


def test_raw_numbers_are_a_view_that_nobody_can_write_to() -> None:
    array = decode_request(raw("UINT8", [3], b"abc"))["x"]
    assert not array.flags.writeable
    assert not array.flags.owndata


def test_scalar_has_no_axes() -> None:
    assert decode_request(raw("UINT8", [], b"\x07"))["x"][()] == 7


@pytest.mark.parametrize("shape", [[0], [0, 3], [3, 0], [2**40, 0]])
@pytest.mark.parametrize("datatype", ["UINT8", "BYTES"])
def test_empty_tensor(shape: list[int], datatype: str) -> None:
    assert decode_request(raw(datatype, shape, b""))["x"].shape == tuple(shape)


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.arange(6, dtype=">i4").reshape(2, 3), id="big-endian"),
        pytest.param(np.arange(6, dtype="<i4").reshape(3, 2).T, id="transposed"),
        pytest.param(np.arange(24, dtype="<i4").reshape(4, 6)[::2, ::-2], id="strided"),
    ],
)
def test_any_layout_is_written_in_row_order_little_endian(array: npt.NDArray[Any]) -> None:
    (content,) = encode_request("m", {"x": array}).raw_input_contents
    assert content == b"".join(int(value).to_bytes(4, "little") for row in array for value in row)


@pytest.mark.parametrize(
    "array",
    [
        np.array([b"a", b"\xc3\xbc"], object),
        np.array(["a", "ü"], object),
        np.array(["a", "ü"]),
        np.array([b"a", b"\xc3\xbc"]),
        np.array([bytearray(b"a"), memoryview(b"\xc3\xbc")], object),
    ],
)
def test_text_and_bytes_are_written_alike(array: npt.NDArray[Any]) -> None:
    request = encode_request("m", {"x": array})
    assert request.inputs[0].datatype == "BYTES"
    assert request.raw_input_contents[0] == b"\x01\x00\x00\x00a\x02\x00\x00\x00\xc3\xbc"


@pytest.mark.parametrize("value", [3, 0.5, None, True, [1, 2]])
def test_object_that_is_neither_text_nor_bytes_is_refused_not_written_as_zeros(value: Any) -> None:
    array = np.empty(1, object)
    array[0] = value
    with pytest.raises(InvalidInput):
        encode_request("m", {"x": array})


def test_dtype_without_a_datatype_cannot_be_sent() -> None:
    with pytest.raises(InvalidInput, match="dtype complex64 has no datatype"):
        encode_request("m", {"x": np.zeros(1, np.complex64)})


def test_several_inputs_keep_names_and_order() -> None:
    request = encode_request("m", {"b": np.array([1], np.uint8), "a": np.array([2], np.uint8)}, version="3", request_id="r7")
    assert (request.model_name, request.model_version, request.id) == ("m", "3", "r7")
    assert [(name, array.tolist()) for name, array in decode_request(request).items()] == [("b", [1]), ("a", [2])]


def test_request_without_inputs_is_empty() -> None:
    assert decode_request(Request()) == {}


# typed

TYPED: list[tuple[str, dict[str, list[Any]]]] = [
    ("BOOL", {"bool_contents": [True, False]}),
    ("UINT8", {"uint_contents": [0, 255]}),
    ("UINT16", {"uint_contents": [0, 65535]}),
    ("UINT32", {"uint_contents": [0, 2**32 - 1]}),
    ("UINT64", {"uint64_contents": [0, 2**64 - 1]}),
    ("INT8", {"int_contents": [-128, 127]}),
    ("INT16", {"int_contents": [-(2**15), 2**15 - 1]}),
    ("INT32", {"int_contents": [-(2**31), 2**31 - 1]}),
    ("INT64", {"int64_contents": [-(2**63), 2**63 - 1]}),
    ("FP32", {"fp32_contents": [0.5, -2.0]}),
    ("FP64", {"fp64_contents": [0.1, -2.0]}),
    ("BYTES", {"bytes_contents": [b"cat", b""]}),
]


@pytest.mark.parametrize(("datatype", "contents"), TYPED, ids=[row[0] for row in TYPED])
def test_typed_contents_are_read(datatype: str, contents: dict[str, list[Any]]) -> None:
    array = decode_request(typed(datatype, [1, 2], **contents))["x"]
    assert array.shape == (1, 2)
    assert array.dtype == next(row.numpy for row in TABLE if row.protocol == datatype)
    assert array[0].tolist() == next(iter(contents.values()))


def test_all_but_half_precision_travels_typed() -> None:
    assert {row[0] for row in TYPED} == {row.protocol for row in TABLE} - {"FP16"}


def test_empty_typed_tensor() -> None:
    assert decode_request(typed("UINT8", [0, 3]))["x"].shape == (0, 3)


# bad input

HUGE = 2**40


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        pytest.param(raw("UINT8", [2, 2], b"abc"), "UINT8 [2, 2] takes 4 bytes, got 3", id="too few bytes"),
        pytest.param(raw("UINT8", [2], b"abc"), "UINT8 [2] takes 2 bytes, got 3", id="too many bytes"),
        pytest.param(raw("FP32", [1], b"abc"), "FP32 [1] takes 4 bytes, got 3", id="part of a number"),
        pytest.param(raw("FP32", [], b""), "FP32 [] takes 4 bytes, got 0", id="empty scalar"),
        pytest.param(raw("UINT8", [-1], b"a"), "shape [-1] has a negative axis", id="negative axis"),
        pytest.param(raw("UINT8", [-1, -1], b"a"), "shape [-1, -1] has a negative axis", id="negative axes"),
        pytest.param(raw("UINT8", [HUGE, HUGE], b""), f"takes {HUGE * HUGE} bytes, got 0", id="product overflows"),
        pytest.param(raw("FP64", [2**61], b""), f"takes {2**64} bytes, got 0", id="bytes overflow"),
        pytest.param(raw("BYTES", [HUGE, HUGE], b""), "expected at most 65536 elements", id="BYTES product overflows"),
        pytest.param(raw("BYTES", [2], b"\1\0\0\0a"), "BYTES [2] takes 2 elements, got 1", id="too few elements"),
        pytest.param(raw("BYTES", [1], b"\1\0\0\0a" * 3), "BYTES [1] takes 1 elements, got more", id="too many elements"),
        pytest.param(raw("BYTES", [0], bytes(4)), "BYTES [0] takes 0 elements, got more", id="element in nothing"),
        pytest.param(raw("BYTES", [1], b"\2\0\0\0a"), "element 0 claims 2 bytes, 1 are left", id="length lies"),
        pytest.param(
            raw("BYTES", [1], b"\xff\xff\xff\xffa"), f"element 0 claims {2**32 - 1} bytes, 1 are left", id="length 4 GB"
        ),
        pytest.param(raw("BYTES", [2], b"\1\0\0\0a\1\0"), "element 1 ends inside its length", id="length cut"),
        pytest.param(raw("FLOAT", [1], b"abcd"), 'datatype "FLOAT" is unknown', id="unknown datatype"),
        pytest.param(raw("", [1], b"a"), 'datatype "" is unknown', id="no datatype"),
        pytest.param(typed("FLOAT", [1], fp32_contents=[1]), 'datatype "FLOAT" is unknown', id="typed unknown"),
        pytest.param(typed("FP16", [1], fp32_contents=[1]), "FP16 has no typed contents; send it in raw", id="typed FP16"),
        pytest.param(
            typed("UINT8", [1], uint_contents=[300]), "element 0 does not fit UINT8, which holds 0 to 255", id="uint8"
        ),
        pytest.param(typed("UINT16", [2], uint_contents=[1, 65536]), "element 1 does not fit UINT16", id="uint16"),
        pytest.param(
            typed("INT8", [2], int_contents=[-129, 1]), "element 0 does not fit INT8, which holds -128 to 127", id="int8 low"
        ),
        pytest.param(typed("INT8", [2], int_contents=[1, 128]), "element 1 does not fit INT8", id="int8 high"),
        pytest.param(typed("INT16", [1], int_contents=[-32769]), "element 0 does not fit INT16", id="int16"),
        pytest.param(typed("UINT8", [1], int_contents=[-1]), "takes 1 uint_contents, got 0", id="wrong field"),
        pytest.param(typed("FP32", [3], fp32_contents=[1, 2]), "FP32 [3] takes 3 fp32_contents, got 2", id="typed too few"),
        pytest.param(typed("FP32", [1], fp32_contents=[1, 2]), "FP32 [1] takes 1 fp32_contents, got 2", id="typed too many"),
        pytest.param(typed("FP32", [HUGE, HUGE]), f"takes {HUGE * HUGE} fp32_contents, got 0", id="typed overflow"),
        pytest.param(typed("BYTES", [2], bytes_contents=[b"a"]), "BYTES [2] takes 2 bytes_contents, got 1", id="typed BYTES"),
        pytest.param(typed("UINT8", [-1], uint_contents=[1]), "shape [-1] has a negative axis", id="typed negative"),
    ],
)
def test_bad_tensor_is_refused_by_name(request_: pb.ModelInferRequest, text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_request(request_)
    assert str(caught.value).startswith('input "x": ')
    assert text in str(caught.value)


@pytest.mark.parametrize("shape", [[2**62, 2**62, 0], [1] * 65, [0] * 65])
@pytest.mark.parametrize("datatype", ["UINT8", "BYTES"])
def test_shape_beyond_what_numpy_holds_is_the_callers_mistake(shape: list[int], datatype: str) -> None:
    content = {"UINT8": b"a", "BYTES": b"\1\0\0\0a"}[datatype] if 0 not in shape else b""
    with pytest.raises(InvalidInput, match='input "x": '):
        decode_request(raw(datatype, shape, content))


@pytest.mark.parametrize("contents", [[], [b"a"], [b"a", b"b", b"c"]])
def test_raw_contents_must_be_one_for_each_input(contents: list[bytes]) -> None:
    request = encode_request("m", {"x": np.array([1], np.uint8), "y": np.array([2], np.uint8)})
    del request.raw_input_contents[:]
    request.raw_input_contents.extend(contents)
    with pytest.raises(InvalidInput, match=r"raw_input_contents: expected one for each of the 2|takes 1 uint_contents, got 0"):
        decode_request(request)


def test_raw_contents_without_inputs() -> None:
    with pytest.raises(InvalidInput, match="expected one for each of the 0 inputs, got 1"):
        decode_request(Request(raw_input_contents=[b"a"]))


def test_raw_and_typed_together_are_refused() -> None:
    request = typed("UINT8", [1], uint_contents=[1])
    request.raw_input_contents.append(b"\1")
    with pytest.raises(InvalidInput, match='input "x": has contents besides raw_input_contents; send one of them'):
        decode_request(request)


def test_one_name_twice_is_refused() -> None:
    request = raw("UINT8", [1], b"a")
    request.MergeFrom(raw("UINT8", [1], b"b"))
    with pytest.raises(InvalidInput, match='input "x" comes twice'):
        decode_request(request)


def test_long_name_is_not_echoed_whole() -> None:
    request = raw("UINT8", [2], b"a")
    request.inputs[0].name = "x" * 10_000
    with pytest.raises(InvalidInput) as caught:
        decode_request(request)
    assert len(str(caught.value)) < 200


# answers

SCORES = np.array([[0.25, 0.75], [1.0, 0.0]], np.float32)
OUTPUTS: dict[str, npt.NDArray[Any]] = {"scores": SCORES, "best": np.array([1, 0])}


def answered(*arguments: Any, **others: Any) -> pb.ModelInferResponse:
    return Response.FromString(encode_response(*arguments, **others).alone())


def test_answer_is_written_to_the_byte() -> None:
    request = Request(model_name="m")
    assert answered(request, "3", {"scores": SCORES[:1]}, request_id="r7") == Response(
        model_name="m",
        model_version="3",
        id="r7",
        outputs=[Response.InferOutputTensor(name="scores", datatype="FP32", shape=[1, 2])],
        raw_output_contents=[b"\x00\x00\x80\x3e\x00\x00\x40\x3f"],
    )


def test_answer_reads_back() -> None:
    back = decode_response(answered(Request(), "1", OUTPUTS))
    assert list(back) == ["scores", "best"]
    np.testing.assert_array_equal(back["scores"], SCORES)
    np.testing.assert_array_equal(back["best"], [1, 0])


def test_typed_answer_reads_back_too() -> None:
    response = Response()
    response.outputs.add(name="y", datatype="FP32", shape=[1]).contents.fp32_contents.append(0.5)
    assert decode_response(response)["y"].tolist() == [0.5]


def test_broken_answer_names_the_output() -> None:
    response = answered(Request(), "1", OUTPUTS)
    response.outputs[0].shape[0] = 7
    with pytest.raises(InvalidInput, match=re.escape('output "scores": FP32 [7, 2] takes 56 bytes, got 16')):
        decode_response(response)


def test_only_the_outputs_asked_for_in_the_order_asked() -> None:
    request = Request(outputs=[Request.InferRequestedOutputTensor(name=name) for name in ("best", "scores")])
    assert requested_outputs(request, OUTPUTS) == {"best": 0, "scores": 0}
    assert [output.name for output in answered(request, "1", OUTPUTS).outputs] == ["best", "scores"]
    del request.outputs[1]
    assert list(decode_response(answered(request, "1", OUTPUTS))) == ["best"]


def test_unknown_output_is_refused_with_the_known_ones() -> None:
    request = Request(outputs=[Request.InferRequestedOutputTensor(name="logits")])
    with pytest.raises(InvalidInput, match='output "logits" is unknown; the model gives scores, best'):
        requested_outputs(request, OUTPUTS)


def test_more_axes_than_a_tensor_may_have_are_refused_at_once() -> None:
    request = Request(model_name="m", raw_input_contents=[b""])
    request.inputs.add(name="x", datatype="UINT8", shape=[2**62] * 100_000)
    with pytest.raises(InvalidInput, match='input "x": 100000 axes are more than the 32'):
        decode_request(request)


def test_classes_travel_as_text() -> None:
    request = encode_request("m", {}, classes={"scores": 1})
    assert requested_outputs(request, OUTPUTS) == {"scores": 1}
    response = answered(request, "1", OUTPUTS, ("cat", "dog"))
    assert response == Response(
        model_name="m",
        model_version="1",
        outputs=[Response.InferOutputTensor(name="scores", datatype="BYTES", shape=[2, 1])],
        raw_output_contents=[b"\x0e\x00\x00\x000.750000:1:dog\x0e\x00\x00\x001.000000:0:cat"],
    )


def test_fewer_than_no_classes_are_refused() -> None:
    with pytest.raises(InvalidInput, match='output "scores": classification: wanted an int64 of at least 1'):
        requested_outputs(encode_request("m", {}, classes={"scores": -1}), OUTPUTS)


def test_classes_of_what_has_none_are_refused() -> None:
    with pytest.raises(InvalidInput, match="classification needs an output of rank 2"):
        answered(encode_request("m", {}, classes={"best": 1}), "1", OUTPUTS)


# anything at all

NUMBERS = st.sampled_from(
    [order for row in TABLE if row.numpy.kind != "O" for order in (row.numpy, row.numpy.newbyteorder(">"))]
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(NUMBERS, SHAPES), hnp.arrays(NUMBERS, SHAPES))
def test_numbers_travel_unchanged(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
    back = decode_request(Request.FromString(encode_request("m", {"x": x, "y": y}).SerializeToString()))
    for name, array in {"x": x, "y": y}.items():
        assert back[name].dtype == array.dtype.newbyteorder("<")
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.astype(back[name].dtype).tobytes()


@settings(max_examples=50, deadline=None)
@given(SHAPES.flatmap(lambda shape: hnp.arrays(object, shape, elements=st.binary(max_size=20))))
def test_bytes_travel_unchanged(array: npt.NDArray[Any]) -> None:
    back = decode_request(encode_request("m", {"x": array}))["x"]
    assert (back.shape, back.dtype) == (array.shape, array.dtype)
    assert back.ravel().tolist() == array.ravel().tolist()


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([row.protocol for row in TABLE]),
    st.lists(st.one_of(st.integers(-2, 4), st.integers(-(2**63), 2**63 - 1)), max_size=4),
    st.binary(max_size=40),
)
def test_any_shape_and_bytes_give_an_array_or_one_error(datatype: str, shape: list[int], content: bytes) -> None:
    try:
        assert decode_request(raw(datatype, shape, content))["x"].shape == tuple(shape)
    except InvalidInput as error:
        assert str(error)


# columns and params

COLUMNS = Signature.parse(
    {
        "inputs": [{"type": "long", "name": "age"}, {"type": "string", "name": "thal"}, {"type": "datetime", "name": "seen"}],
        "outputs": [
            {"type": "string", "name": "label"},
            {"type": "datetime", "name": "when"},
            {"type": "array", "items": {"type": "double"}, "name": "scores", "required": True},
            {"type": "any", "name": "note", "required": True},
            {"type": "binary", "name": "thumb"},
        ],
        "params": [
            {"name": "k", "type": "long", "default": 3},
            {"name": "names", "type": "string", "default": ["x"], "shape": [-1]},
            {"name": "since", "type": "datetime", "default": None},
            {"name": "point", "type": "object", "properties": {"x": {"type": "double"}}, "default": {"x": 0.5}},
            {"name": "timeout", "type": "long", "default": 7},
        ],
    }
)


def column(*values: Any) -> npt.NDArray[np.object_]:
    array = np.empty(len(values), object)
    array[:] = values
    return array


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_columns_arrive_as_text_and_numbers(shape: tuple[int, ...]) -> None:
    sent: dict[str, npt.NDArray[Any]] = {
        "age": np.array([3, 4]),
        "thal": column("é", b"fixed"),
        "seen": column(b"2024-05-06T07:08:09", b"2024-05-06"),
    }
    request = encode_request("m", {name: array.reshape(shape) for name, array in sent.items()})
    got = COLUMNS.enforce_inputs(decode_request(Request.FromString(request.SerializeToString())))
    assert got["age"].tolist() == [3, 4]
    assert got["thal"].tolist() == ["é", "fixed"]
    assert got["seen"].tolist() == np.array(["2024-05-06T07:08:09", "2024-05-06"], "datetime64[ns]").tolist()


def test_columns_leave_as_text_iso_and_json() -> None:
    outputs: dict[str, npt.NDArray[Any]] = {
        "label": column("é", None),
        "when": np.array(["2024-05-06T07:08:09", "NaT"], "datetime64[ns]"),
        "scores": column([0.5, 1.0], []),
        "note": column("text", {"at": datetime(2024, 5, 6), "raw": b"\xff"}),
        "thumb": column(b"\xff", b""),
    }
    answer = answered(Request(model_name="m"), "1", outputs, (), COLUMNS.outputs)
    assert {output.datatype for output in answer.outputs} == {"BYTES"}
    assert {name: array.tolist() for name, array in decode_response(answer).items()} == {
        "label": ["é".encode(), b""],
        "when": [b"2024-05-06T07:08:09", b""],
        "scores": [b"[0.5, 1.0]", b"[]"],
        "note": [b'"text"', b'{"at": "2024-05-06T00:00:00", "raw": "/w=="}'],
        "thumb": [b"\xff", b""],
    }


def test_what_json_cannot_hold_is_the_models_fault() -> None:
    with pytest.raises(EngineError, match='output "note": a value that JSON cannot hold: set has no JSON'):
        answered(Request(), "1", {"note": column({1})}, (), COLUMNS.outputs)


def test_params_travel_as_parameters() -> None:
    request = Request()
    sent = {"k": 5, "names": ["a", "b"], "since": datetime(2024, 5, 6), "point": {"x": 1.5}, "unknown": 2.5, "timeout": 9}
    for name, value in sent.items():
        request.parameters[name].CopyFrom(encode_param(value))
    assert COLUMNS.enforce_params(decode_params(request, COLUMNS.params)) == {
        "k": 5,
        "names": ["a", "b"],
        "since": datetime(2024, 5, 6),
        "point": {"x": 1.5},
        "timeout": 7,  # the request's is the protocol's
    }


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("k", pb.InferParameter(double_param=1.5), 'param "k": expected long, got float'),
        ("k", pb.InferParameter(bool_param=True), 'param "k": expected long, got bool'),
        ("k", pb.InferParameter(), 'param "k": expected long, got nothing'),
        ("names", pb.InferParameter(string_param="[1"), 'param "names": expected JSON'),
        ("names", pb.InferParameter(string_param='["a", 1]'), 'param "names": expected string, got int'),
        ("names", pb.InferParameter(string_param="[" * 100_000), 'param "names": expected JSON'),
        ("since", pb.InferParameter(string_param="noon"), 'param "since": expected datetime, got text'),
        ("point", pb.InferParameter(string_param='{"y": 1}'), 'param "point": property "x" is missing'),
        ("point", pb.InferParameter(int64_param=1), 'param "point": expected object<x: double>, got int'),
    ],
)
def test_a_bad_param_is_named(name: str, value: pb.InferParameter, text: str) -> None:
    request = Request()
    request.parameters[name].CopyFrom(value)
    with pytest.raises(InvalidInput, match=re.escape(text)):
        COLUMNS.enforce_params(decode_params(request, COLUMNS.params))


def test_a_param_that_nothing_on_the_wire_holds() -> None:
    with pytest.raises(InvalidInput, match="a param of bytes has no form on the wire"):
        encode_param(b"x")
