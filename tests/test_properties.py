"""What holds for any input at all: of codec, signature, preprocessing spec, MLmodel reader. Random inputs, a few seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tensign._pb import open_inference_pb2 as pb
from tensign.datatypes import TABLE
from tensign.errors import InvalidInput, SignatureMismatch, TensignError, UnsupportedModel
from tensign.inspection import inspected
from tensign.preprocess import CropPad, PreprocessSpec, Resize
from tensign.rpc.answers import encode_response
from tensign.rpc.codec import decode_request, decode_response, encode_request
from tensign.rpc.wire import received
from tensign.signature import Signature

FEW, MANY = settings(max_examples=60, deadline=None), settings(max_examples=200, deadline=None)

DTYPES = st.sampled_from([row.numpy for row in TABLE if row.numpy.kind != "O"])
SHAPES = hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)
ARRAYS = st.one_of(
    hnp.arrays(DTYPES, SHAPES), SHAPES.flatmap(lambda shape: hnp.arrays(object, shape, elements=st.binary(max_size=9)))
)
NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)
NAMED = st.dictionaries(NAMES, ARRAYS, min_size=1, max_size=3)


def short(error: TensignError) -> bool:
    """Of every error: one printable line of a thousand bytes at most."""
    text = str(error)
    return text.isprintable() and 0 < len(text.encode()) <= 1000


def same(one: dict[str, npt.NDArray[Any]], other: dict[str, npt.NDArray[Any]]) -> bool:
    return list(one) == list(other) and all(
        a.dtype == b.dtype
        and a.shape == b.shape
        and (a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes())
        for a, b in zip(one.values(), other.values(), strict=True)
    )


# codec


@MANY
@given(NAMED)
def test_arrays_of_every_datatype_and_shape_travel_unchanged_both_ways(arrays: dict[str, npt.NDArray[Any]]) -> None:
    message = encode_request("m", arrays).SerializeToString()
    came = received(message)
    assert same(decode_request(came.request, came.raw), arrays)
    answer = encode_response(pb.ModelInferRequest(), "1", arrays).alone()
    assert same(decode_response(pb.ModelInferResponse.FromString(answer)), arrays)


@MANY
@given(hnp.arrays(DTYPES.filter(lambda dtype: dtype != np.float16), SHAPES))
def test_typed_contents_are_the_same_as_raw_ones(array: npt.NDArray[Any]) -> None:
    row = next(row for row in TABLE if row.numpy == array.dtype)
    request = pb.ModelInferRequest()
    tensor = request.inputs.add(name="x", datatype=row.protocol, shape=array.shape)
    getattr(tensor.contents, str(row.contents)).extend(array.ravel().tolist())
    assert same(decode_request(request), {"x": array}) or np.isnan(array).any()  # a NaN has more than one form


@MANY
@given(NAMED, st.data())
def test_a_message_of_changed_bytes_is_read_or_refused(arrays: dict[str, npt.NDArray[Any]], data: st.DataObject) -> None:
    content = bytearray(encode_request("m", arrays).SerializeToString())
    places = st.integers(0, len(content) - 1)
    for place, value in data.draw(st.dictionaries(places, st.integers(0, 255), max_size=6)).items():
        content[place] = value
    try:
        came = received(bytes(content))
        for array in decode_request(came.request, came.raw).values():
            assert array.nbytes <= 8 * len(content)
    except InvalidInput as error:
        assert short(error)


# signature

AXES = st.lists(st.one_of(st.just(-1), st.integers(1, 4)), min_size=1, max_size=4)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """The `signature:` of an MLmodel, decoded."""

    def specs() -> list[dict[str, Any]]:
        names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
        return [
            {
                "type": "tensor",
                "tensor-spec": {"dtype": str(draw(DTYPES)), "shape": draw(AXES)},
                **({"name": name} if len(names) > 1 or draw(st.booleans()) else {}),
            }
            for name in names
        ]

    return {"inputs": specs(), "outputs": specs()}


@MANY
@given(documents())
def test_a_signature_says_all_that_its_document_says(document: dict[str, Any]) -> None:
    signature = Signature.parse(document)
    for part, specs in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        written = [
            {"type": "tensor", "tensor-spec": {"dtype": str(spec.dtype), "shape": list(spec.shape)}}
            | ({"name": spec.name} if spec.named else {})
            for spec in specs
        ]
        assert written == document[part]
    assert Signature.parse(json.loads(json.dumps(document))) == signature
    assert str(signature).count(" -> ") == 1


@MANY
@given(documents(), st.dictionaries(NAMES, ARRAYS, max_size=3), st.data())
def test_enforcing_gives_what_fits_or_one_error_and_nothing_changes_the_second_time(
    document: dict[str, Any], strangers: dict[str, npt.NDArray[Any]], data: st.DataObject
) -> None:
    signature = Signature.parse(document)
    rows = data.draw(st.integers(0, 3))
    given_arrays = {
        spec.name: np.zeros([rows, *(abs(axis) for axis in spec.shape[1:])], spec.dtype) for spec in signature.inputs
    } | data.draw(st.sampled_from([{}, strangers]))
    encoded = data.draw(st.sampled_from([(), (signature.inputs[0].name,)]))
    try:
        checked = signature.enforce_inputs(given_arrays, encoded=encoded)
    except SignatureMismatch as error:
        assert short(error)
        return
    assert list(checked) == [spec.name for spec in signature.inputs]
    assert all(checked[name] is given_arrays[name] for name in checked)
    assert len({len(array) for array in checked.values()}) == 1 and all(array.size for array in checked.values())
    again = signature.enforce_inputs(checked, encoded=encoded)
    assert all(again[name] is checked[name] for name in checked)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)),
    max_leaves=9,
)


@MANY
@given(documents(), st.data(), JSON)
def test_a_signature_with_anything_anywhere_is_read_or_refused(
    document: dict[str, Any], data: st.DataObject, junk: Any
) -> None:
    entry = document[data.draw(st.sampled_from(["inputs", "outputs"]))][0]
    tensor = entry["tensor-spec"]
    place, key = data.draw(
        st.sampled_from([(document, "inputs"), (document, "params"), (entry, "type"), (entry, "name"), (entry, "tensor-spec")])
        | st.sampled_from([(tensor, "dtype"), (tensor, "shape")])
    )
    place[key] = junk
    try:
        assert str(Signature.parse(document))
    except UnsupportedModel as error:
        assert short(error)


# preprocessing

SIDES = st.integers(1, 300)
PADS = st.sampled_from(["zeros", "border", "reflection"])
STEPS = st.one_of(
    st.builds(
        Resize,
        SIDES,
        SIDES,
        st.sampled_from(["crop", "pad", "squish"]),
        PADS,
        st.sampled_from(["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]),
    ),
    st.builds(CropPad, SIDES, SIDES, PADS),
)
SPECS = st.builds(
    PreprocessSpec,
    st.lists(STEPS, max_size=3).map(tuple),
    st.sampled_from(["ignore", "apply"]),
    st.lists(st.text(max_size=20), max_size=2).map(tuple),
)


@MANY
@given(SPECS, SPECS)
def test_a_spec_reads_back_from_json_and_from_yaml_with_the_same_digest(spec: PreprocessSpec, other: PreprocessSpec) -> None:
    document = spec.document()
    for back in (json.loads(json.dumps(document)), yaml.safe_load(yaml.safe_dump(document))):
        read = PreprocessSpec.parse(back)
        assert read == spec
        assert read.digest == spec.digest == document["sha256"]
    assert (spec.digest == other.digest) == (spec == other)


@FEW
@given(SPECS.filter(lambda spec: spec.steps), st.integers(1, 60), st.integers(1, 60))
def test_pixels_come_out_in_the_size_that_the_spec_says(spec: PreprocessSpec, width: int, height: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    out = spec.arrays(images)
    assert out.shape == (2, *spec.size(height, width), 3)
    assert out.dtype == np.uint8
    assert (out is images) == spec.keeps(height, width)


@MANY
@given(SPECS, st.data(), JSON)
def test_a_spec_with_anything_anywhere_is_read_or_refused(spec: PreprocessSpec, data: st.DataObject, junk: Any) -> None:
    document = spec.document()
    places = [(document, key) for key in document] + [(step, key) for step in document["steps"] for key in step]
    place, key = data.draw(st.sampled_from(places))
    place[key] = junk
    try:
        read = PreprocessSpec.parse(document)
    except UnsupportedModel as error:
        assert short(error)
    else:
        assert PreprocessSpec.parse(read.document()) == read


# MLmodel


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("any")
    (path / "model.onnx").write_bytes(b"")
    return path


def told(directory: Path, content: bytes) -> None:
    (directory / "MLmodel").write_bytes(content)
    try:
        assert json.dumps(inspected(directory), default=str)
    except TensignError as error:
        assert short(error)


ONNX = {"onnx": {"data": "model.onnx"}}
DOCUMENT: dict[str, Any] = {
    "flavors": ONNX,
    "signature": {
        "inputs": '[{"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, 8, 8, 3]}}]',
        "outputs": '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}]',
    },
    "metadata": {"tensign": {"preprocess": {"version": 1, "steps": []}}},
}


@MANY
@given(JSON)
def test_any_document_is_told_or_refused(directory: Path, document: Any) -> None:
    told(directory, yaml.safe_dump(document).encode())


@MANY
@given(st.sampled_from(["flavors", "signature", "metadata", "artifact_path", "run_id"]), JSON, st.booleans())
def test_a_document_with_anything_anywhere_is_told_or_refused(directory: Path, key: str, junk: Any, inside: bool) -> None:
    value = {**dict(DOCUMENT.get(key) or {}), "tensign": junk, "inputs": junk} if inside else junk
    told(directory, yaml.safe_dump({**DOCUMENT, key: value}).encode())


WORDS = [
    "flavors",
    "signature",
    "&a",
    "*a",
    "<<",
    "!!int",
    "!!binary",
    "!!timestamp",
    "!!set",
    "!!python/tuple",
    "2001-99-99",
    "0b_",
]
MARKS = ["{", "}", "[", "]", ":", ",", "-", "?", "|", ">", "\n", "  ", "'", '"', "#", "---", "%YAML 9.9", "1:1:1", ".inf", "~"]


@MANY
@given(st.lists(st.sampled_from(WORDS + MARKS) | st.text(max_size=3), max_size=40))
def test_any_text_is_told_or_refused(directory: Path, pieces: list[str]) -> None:
    told(directory, " ".join(pieces).encode("utf-8", "surrogatepass"))
