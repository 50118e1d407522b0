"""The contract: parsed from an MLmodel, enforced on what comes and on what goes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from conftest import tensor
from tensign.errors import EngineError, SignatureMismatch, UnsupportedModel
from tensign.signature import Signature, TensorSpec

OUTPUT = tensor("float32", [-1, 2])


def signature(*inputs: dict[str, Any], outputs: tuple[dict[str, Any], ...] = (OUTPUT,)) -> Signature:
    return Signature.parse({"inputs": list(inputs), "outputs": list(outputs)})


IMAGE = signature(tensor("uint8", [-1, 300, 300, 3], "image"))
PAIR = signature(tensor("uint8", [-1, 4, 4, 3], "image"), tensor("float32", [-1, 2], "place"))


# parse


def test_named_tensors() -> None:
    parsed = signature(tensor("uint8", [-1, 8, 9, 3], "image"), outputs=(tensor("float32", [-1, 2], "scores"),))
    assert parsed.inputs == (TensorSpec("image", np.dtype("uint8"), (-1, 8, 9, 3), named=True),)
    assert parsed.outputs == (TensorSpec("scores", np.dtype("float32"), (-1, 2), named=True),)


def test_unnamed_tensors_are_counted() -> None:
    parsed = signature(tensor("uint8", [-1, 8, 9, 3]))
    assert [(spec.name, spec.named) for spec in (*parsed.inputs, *parsed.outputs)] == [("input-0", False), ("output-0", False)]


def test_several_inputs_keep_their_order() -> None:
    assert [spec.name for spec in PAIR.inputs] == ["image", "place"]
    assert str(PAIR) == "uint8 [-1,4,4,3], float32 [-1,2] -> float32 [-1,2]"


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float64", "object", "str"])
def test_dtypes_of_the_protocol(dtype: str) -> None:
    (spec,) = signature(tensor(dtype, [-1])).inputs
    assert spec.dtype == (np.dtype(dtype) if dtype != "str" else np.dtype("object"))


def test_load_reads_the_directory(mlmodel: Callable[..., Path]) -> None:
    path = mlmodel(signature={"inputs": [tensor("uint8", [-1, 4, 5, 3])], "outputs": [OUTPUT]})
    assert str(Signature.load(path)) == "uint8 [-1,4,5,3] -> float32 [-1,2]"


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "tensor"},
        {"type": "tensor", "tensor-spec": None},
        {"type": "tensor", "tensor-spec": {"shape": [-1]}},
        {"type": "tensor", "tensor-spec": {"dtype": "float32"}},
        {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": None}},
        {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": 3}},
        {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": ["n"]}},
        {"type": "tensor", "tensor-spec": {"dtype": 7, "shape": [-1]}},
        tensor("float33", [-1]),
        tensor("complex64", [-1]),
        tensor("datetime64[s]", [-1]),
        tensor("float32", []),
        tensor("float32", [-2]),
        tensor("float32", [-1, -3]),
    ],
)
def test_bad_tensor_spec_names_the_tensor(spec: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModel, match='signature input "picture": '):
        signature({**spec, "name": "picture"})


def test_fractional_axis_is_refused_not_rounded() -> None:
    with pytest.raises(UnsupportedModel, match='signature input "input-0": '):
        signature({"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2.5]}})


@pytest.mark.parametrize("specs", ["tensor", {"type": "tensor"}, ["tensor"], 7])
def test_specs_that_are_no_list_of_maps(specs: Any) -> None:
    with pytest.raises(UnsupportedModel, match="signature inputs: wanted a list of maps"):
        Signature.parse({"inputs": specs, "outputs": [OUTPUT]})


@pytest.mark.parametrize("names", [(None, None), ("a", None), ("a", "a")])
def test_several_tensors_need_a_name_each(names: tuple[str | None, str | None]) -> None:
    with pytest.raises(UnsupportedModel, match="several tensors need a name each"):
        signature(*(tensor("float32", [-1], name) for name in names))


@pytest.mark.parametrize("document", [None, {}, {"inputs": None, "outputs": [OUTPUT]}, {"inputs": [], "outputs": [OUTPUT]}])
def test_model_without_a_signature_says_what_to_do(document: dict[str, Any] | None) -> None:
    with pytest.raises(UnsupportedModel, match="no signature, so no input can be checked: write one with tensign sign"):
        Signature.parse(document)


# what comes


def test_mismatch_names_what_was_wanted_and_what_came() -> None:
    with pytest.raises(SignatureMismatch) as caught:
        IMAGE.enforce_inputs({"image": np.zeros((2, 3, 300, 300), np.float32)})
    assert str(caught.value) == 'input "image": expected uint8 [-1,300,300,3], got float32 [2,3,300,300]'


def test_arrays_come_back_uncopied_in_the_order_of_the_signature() -> None:
    place, image = np.zeros((2, 2), np.float32), np.zeros((2, 4, 4, 3), np.uint8)
    checked = PAIR.enforce_inputs({"place": place, "image": image})
    assert list(checked) == ["image", "place"]
    assert checked["image"] is image
    assert checked["place"] is place


def test_bare_array_stands_for_the_single_input() -> None:
    image = np.zeros((1, 300, 300, 3), np.uint8)
    assert IMAGE.enforce_inputs(image)["image"] is image


def test_bare_array_for_several_inputs_tells_what_is_missing() -> None:
    with pytest.raises(SignatureMismatch, match='missing input "place"; the model takes "image" uint8'):
        PAIR.enforce_inputs(np.zeros((2, 4, 4, 3), np.uint8))


PICTURE, PLACE = np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 2), np.float32)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        pytest.param({}, 'missing input "image", input "place"; the model takes "image" uint8 [-1,4,4,3], "place"', id="none"),
        pytest.param({"image": PICTURE}, 'missing input "place"', id="missing"),
        pytest.param({"image": PICTURE, "place": PLACE, "x": PLACE}, 'unexpected input "x"; the model takes', id="unexpected"),
        pytest.param({"image": PICTURE[0], "place": PLACE}, "expected uint8 [-1,4,4,3], got uint8 [4,4,3]", id="rank"),
        pytest.param({"image": PICTURE[:, :3], "place": PLACE}, "[-1,4,4,3], got uint8 [2,3,4,3]", id="axis"),
        pytest.param({"image": PICTURE.astype("i1"), "place": PLACE}, 'input "image": expected uint8', id="dtype"),
        pytest.param({"image": PICTURE, "place": PLACE.astype("f8")}, 'input "place": expected float32', id="precision"),
        pytest.param({"image": PICTURE, "place": PLACE.astype(">f4")}, 'input "place": expected float32', id="byte order"),
        pytest.param({"image": np.uint8(3), "place": PLACE}, "got uint8 []", id="scalar"),
        pytest.param({"image": PICTURE[:0], "place": PLACE[:0]}, "expected at least 1 row, got 0", id="no rows"),
        pytest.param(
            {"image": PICTURE, "place": PLACE[:1]}, "disagree on the number of rows: {'image': 2, 'place': 1}", id="rows"
        ),
    ],
)
def test_arrays_that_the_signature_refuses(arrays: dict[str, npt.NDArray[Any]], text: str) -> None:
    with pytest.raises(SignatureMismatch, match=re.escape(text)):
        PAIR.enforce_inputs(arrays)


def test_long_names_are_not_echoed_whole() -> None:
    with pytest.raises(SignatureMismatch) as caught:
        PAIR.enforce_inputs({"image": PICTURE, "place": PLACE, "x" * 10_000: PLACE})
    assert len(str(caught.value)) < 300


ENCODED = np.array([b"\xff\xd8", b"\x89PNG"], object)


def test_encoded_images_pass_where_they_are_allowed() -> None:
    assert IMAGE.enforce_inputs({"image": ENCODED}, encoded=("image",))["image"] is ENCODED


def test_encoded_images_are_refused_elsewhere() -> None:
    with pytest.raises(SignatureMismatch, match=re.escape("expected uint8 [-1,300,300,3], got object [2]")):
        IMAGE.enforce_inputs({"image": ENCODED})


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (ENCODED.reshape(1, 2), "expected uint8 [-1,300,300,3] or encoded images BYTES [-1], got object [1,2]"),
        (np.zeros((2, 3), np.uint8), "or encoded images BYTES [-1], got uint8 [2,3]"),
        (ENCODED[:0], "expected at least 1 row, got 0"),
    ],
)
def test_what_is_neither_pixels_nor_encoded_images(array: npt.NDArray[Any], text: str) -> None:
    with pytest.raises(SignatureMismatch, match=re.escape(text)):
        IMAGE.enforce_inputs({"image": array}, encoded=("image",))


def test_where_encoded_images_are_allowed_pixels_pass_too() -> None:
    pixels = np.zeros((1, 300, 300, 3), np.uint8)
    assert IMAGE.enforce_inputs(pixels, encoded=("image",))["image"] is pixels


@pytest.mark.parametrize("dtype", ["object", "str", "bytes"])
@pytest.mark.parametrize("array", [np.array([b"a"], object), np.array(["a"], object), np.array(["a"]), np.array([b"a"])])
def test_text_may_come_in_any_of_numpys_forms(dtype: str, array: npt.NDArray[Any]) -> None:
    got = signature(tensor(dtype, [-1])).enforce_inputs(array)["input-0"]
    assert got.tolist() == ["a"] if dtype == "str" else got is array


def test_text_is_utf_8() -> None:
    with pytest.raises(SignatureMismatch, match='input "input-0", row 1: not UTF-8 at byte 0'):
        signature(tensor("str", [-1, 1])).enforce_inputs(np.array([[b"a"], [b"\xff"]], object))


# what goes


SCORES = signature(tensor("uint8", [-1]), outputs=(tensor("float32", [-1, 2], "scores"), tensor("int64", [-1], "best")))


def test_outputs_come_back_uncopied_without_the_undeclared() -> None:
    scores, best = np.zeros((3, 2), np.float32), np.zeros(3, np.int64)
    checked = SCORES.enforce_outputs({"hidden": scores, "best": best, "scores": scores}, 3)
    assert list(checked) == ["scores", "best"]
    assert checked["scores"] is scores
    assert checked["best"] is best


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        (None, "output \"scores\" is missing; the model gave ['best']"),
        (np.zeros((2, 2), np.float32), 'output "scores": expected 3 rows, got 2'),
        (np.zeros((4, 2), np.float32), 'output "scores": expected 3 rows, got 4'),
        (np.zeros((3, 2), np.float64), 'output "scores": expected float32 [-1,2], got float64 [3,2]'),
        (np.zeros((3, 5), np.float32), 'output "scores": expected float32 [-1,2], got float32 [3,5]'),
        (np.float32(1), 'output "scores": expected float32 [-1,2], got float32 []'),
    ],
)
def test_wrong_answer_is_an_engine_error(scores: npt.NDArray[Any] | None, text: str) -> None:
    outputs: dict[str, npt.NDArray[Any]] = {"best": np.zeros(3, np.int64)}
    if scores is not None:
        outputs["scores"] = scores
    with pytest.raises(EngineError, match=re.escape(text)):
        SCORES.enforce_outputs(outputs, 3)


# the oracle: MLflow itself


def accepts(refusal: type[Exception], enforce: Callable[..., object], *arguments: object) -> bool:
    try:
        enforce(*arguments)
    except refusal:
        return False
    return True


@pytest.mark.parametrize("shape", [[-1], [2], [-1, 3], [2, 3], [-1, -1], [-1, 4, -1, 3]], ids=str)
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64", "float16", "float32", "float64", "str"])
def test_accepts_and_refuses_what_mlflow_does(dtype: str, shape: list[int]) -> None:
    mlflow = pytest.importorskip("mlflow.models.utils")  # whose warnings on import it swallows
    ours, theirs = signature(tensor(dtype, shape)), mlflow.TensorSpec(np.dtype(dtype), shape)
    for given in ("bool", "uint8", "int32", "int64", ">i8", "float16", "float32", ">f4", "float64", "complex64", "<U5"):
        for axes in ((1,), (2,), (3,), (2, 3), (3, 3), (2, 1), (2, 4, 1, 3), (2, 5, 1, 3), (1, 4, 9, 3), (1, 1, 1, 1, 1)):
            array = np.zeros(axes, given)
            we = accepts(SignatureMismatch, ours.enforce_inputs, array)
            they = accepts(mlflow.MlflowException, mlflow._enforce_tensor_spec, array, theirs)
            assert we == they, f"{dtype} {shape} given {given} {list(axes)}: we {we}, MLflow {they}"
