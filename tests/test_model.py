from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from onnx import TensorProto, helper

from conftest import CPU, save_onnx, tensor
from tensign.config import ModelConfig
from tensign.demo import MODEL
from tensign.errors import (
    EngineError,
    InvalidConfig,
    ModelNotReady,
    SignatureMismatch,
    TooLarge,
    UndecodableImage,
    UnsupportedModel,
)
from tensign.model import Model
from tensign.plan import ModelPlan

FLOATS = TensorProto.FLOAT


@pytest.fixture
def demo() -> Iterator[Model]:
    model = Model.load(MODEL, ModelConfig(device="cpu", max_batch_size=2))
    yield model
    model.close()


def test_it_answers_by_the_signature(mean_model: Path) -> None:
    model = Model.load(mean_model, CPU)
    rows = np.random.default_rng(0).integers(0, 256, (5, 4, 5, 3), np.uint8)
    np.testing.assert_allclose(model.infer(rows)["output-0"], rows.mean((1, 2)), rtol=1e-6)
    model.close()


def test_more_rows_than_the_largest_bucket_are_answered_whole(mean_model: Path) -> None:
    model = Model.load(mean_model, ModelConfig(device="cpu", max_batch_size=4))
    rows = np.random.default_rng(0).integers(0, 256, (50, 4, 5, 3), np.uint8)
    np.testing.assert_allclose(model.infer(rows)["output-0"], rows.mean((1, 2)), rtol=1e-6)
    model.close()


def test_input_that_breaks_the_signature_is_refused_before_the_engine(mean_model: Path) -> None:
    model = Model.load(mean_model, CPU)
    with pytest.raises(SignatureMismatch, match=r'input "input-0": expected uint8 \[-1,4,5,3\], got float32 \[2,3,4,5\]'):
        model.infer(np.zeros((2, 3, 4, 5), np.float32))
    assert model.statistics.snapshot().executions == 0
    model.close()


def test_infer_takes_more_rows_than_the_queue(mean_model: Path) -> None:
    model = Model.load(mean_model, ModelConfig(device="cpu", max_queue_rows=16, max_batch_size=4))
    rows = np.random.default_rng(0).integers(0, 256, (100, 4, 5, 3), np.uint8)
    np.testing.assert_allclose(model.infer(rows)["output-0"], rows.mean((1, 2)), rtol=1e-6)
    with pytest.raises(TooLarge, match="100 rows in one request"):
        model.submit(rows)
    with pytest.raises(SignatureMismatch, match="got list"):
        model.infer([1, 2])
    model.close()


def test_axes_that_the_network_leaves_open_are_the_signatures(mlmodel: Callable[..., Path]) -> None:
    """Warm-up runs on the signature's height and width, and pictures have to have them."""
    path = mlmodel(
        signature={"inputs": [tensor("uint8", [-1, 4, 5, 3])], "outputs": [tensor("float32", [-1, 4, 5, 3])]},
        metadata={"tensign": {"preprocess": {"version": 1, "steps": []}}},
    )
    cast = helper.make_node("Cast", ["x"], ["y"], to=FLOATS)
    save_onnx(path / "model.onnx", [cast], {"x": (TensorProto.UINT8, ["n", "h", "w", 3])}, {"y": (FLOATS, ["n", "h", "w", 3])})
    model = Model.load(path, CPU)
    with pytest.raises(UndecodableImage, match="wants 4x5 pixels, got 6x7"):
        model.infer({"input-0": np.array([_png(6, 7)], object)})
    assert model.infer({"input-0": np.array([_png(4, 5)], object)})["output-0"].shape == (1, 4, 5, 3)
    model.close()


def _png(height: int, width: int) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


def test_a_network_that_cannot_run_what_its_signature_allows_is_refused_at_load(mlmodel: Callable[..., Path]) -> None:
    path = mlmodel(signature={"inputs": [tensor("float32", [-1, -1])], "outputs": [tensor("float32", [-1, 2])]})
    reshape = [
        helper.make_node("Constant", [], ["shape"], value=helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 3])),
        helper.make_node("Reshape", ["x", "shape"], ["z"]),
        helper.make_node("Slice", ["z", "zero", "two", "one"], ["y"]),
    ]
    constants = [
        helper.make_node("Constant", [], [name], value=helper.make_tensor(name, TensorProto.INT64, [1], [value]))
        for name, value in (("zero", 0), ("two", 2), ("one", 1))
    ]
    save_onnx(path / "model.onnx", [*constants, *reshape], {"x": (FLOATS, ["n", "k"])}, {"y": (FLOATS, ["m", 2])})
    with pytest.raises(UnsupportedModel, match=r'fails on made-up rows of "x" float32 \[-1,-1\]'):
        Model.load(path, CPU)


def test_after_close_it_is_not_ready(mean_model: Path) -> None:
    model = Model.load(mean_model, CPU)
    model.close()
    with pytest.raises(ModelNotReady):
        model.infer(np.zeros((1, 4, 5, 3), np.uint8))


def test_encoded_images_and_raw_arrays_of_any_mix_of_sizes(demo: Model, pictures: list[Path]) -> None:
    encoded = np.array([picture.read_bytes() for picture in pictures], object)
    probabilities = demo.infer({"image": encoded})["probabilities"]
    assert probabilities.shape == (len(pictures), 1000)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    labels = [demo.plan.labels[index] for index in probabilities.argmax(1)]
    assert {"espresso", "palace", "missile", "Egyptian cat"} <= set(labels)


def test_a_bad_picture_fails_alone_and_names_its_row(demo: Model, pictures: list[Path]) -> None:
    good = np.array([pictures[0].read_bytes()], object)
    bad = np.array([pictures[0].read_bytes(), b"no picture"], object)
    futures = [demo.submit({"image": rows}) for rows in (good, bad, good)]
    assert futures[0].result(30)["probabilities"].shape == (1, 1000)
    with pytest.raises(UndecodableImage, match="row 1: 10 bytes are no JPEG"):
        futures[1].result(30)
    assert futures[2].result(30)["probabilities"].shape == (1, 1000)


def test_cancelled_work_is_not_decoded(demo: Model, pictures: list[Path]) -> None:
    rows = {"image": np.array([pictures[2].read_bytes()] * 8, object)}
    futures = [demo.submit(rows) for _ in range(20)]  # more than the pool has threads
    for future in futures[4:]:
        future.cancel()
    for future in futures[:4]:
        future.result(60)
    demo.infer(rows)
    seen = demo.statistics.snapshot()
    assert seen.fail.count >= 10
    assert seen.preprocess.count == seen.success.count < 20


def test_several_named_inputs_and_outputs(mlmodel: Callable[..., Path]) -> None:
    signature = {
        "inputs": [tensor("float32", [-1, 2], "a"), tensor("float32", [-1, 2], "b")],
        "outputs": [tensor("float32", [-1, 2], "difference"), tensor("float32", [-1, 2], "sum")],
    }
    path = mlmodel(signature=signature)
    nodes = [helper.make_node("Add", ["b", "a"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    pair = (FLOATS, ["n", 2])
    save_onnx(path / "model.onnx", nodes, {"b": pair, "a": pair}, {"sum": pair, "difference": pair})
    model = Model.load(path, CPU)
    a, b = np.full((3, 2), 5, np.float32), np.full((3, 2), 2, np.float32)
    outputs = model.infer({"b": b, "a": a})
    assert list(outputs) == ["difference", "sum"]
    np.testing.assert_array_equal(outputs["difference"], a - b)
    np.testing.assert_array_equal(outputs["sum"], a + b)
    model.close()


def test_a_graph_of_fixed_rows_runs_padded(mlmodel: Callable[..., Path]) -> None:
    path = mlmodel(signature={"inputs": [tensor("float32", [-1, 2])], "outputs": [tensor("float32", [-1, 2])]})
    save_onnx(path / "model.onnx", [helper.make_node("Neg", ["x"], ["y"])], {"x": (FLOATS, [4, 2])}, {"y": (FLOATS, [4, 2])})
    model = Model.load(path, CPU)
    assert model.buckets.rows == (4,)
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    np.testing.assert_array_equal(model.infer(rows)["output-0"], -rows)
    model.close()


def test_an_output_that_lost_its_rows_is_the_engines_fault(mlmodel: Callable[..., Path]) -> None:
    path = mlmodel(signature={"inputs": [tensor("float32", [-1, 2])], "outputs": [tensor("float32", [-1, 2])]})
    turned = helper.make_node("Transpose", ["x"], ["y"])
    save_onnx(path / "model.onnx", [turned], {"x": (FLOATS, ["n", 2])}, {"y": (FLOATS, [2, "n"])})
    with pytest.raises(EngineError, match=r'output "output-0"'):
        Model.load(path, CPU)


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        (tensor("float32", [-1, 3]), tensor("float32", [-1, 2]), r'input "input-0": the signature promises float32 \[-1,3\]'),
        (tensor("uint8", [-1, 2]), tensor("float32", [-1, 2]), r"promises uint8 \[-1,2\], the network in the file has float32"),
        (tensor("float32", [-1, 2]), tensor("float64", [-1, 2]), r'output "output-0": the signature promises float64'),
        (tensor("float32", [-1, 2, 1]), tensor("float32", [-1, 2]), r"promises float32 \[-1,2,1\]"),
    ],
)
def test_a_signature_that_is_not_the_networks_is_refused_at_load(
    mlmodel: Callable[..., Path], inputs: dict[str, object], outputs: dict[str, object], said: str
) -> None:
    path = mlmodel(signature={"inputs": [inputs], "outputs": [outputs]})
    save_onnx(
        path / "model.onnx", [helper.make_node("Neg", ["x"], ["y"])], {"x": (FLOATS, ["n", 2])}, {"y": (FLOATS, ["n", 2])}
    )
    with pytest.raises(UnsupportedModel, match=said):
        Model.load(path, CPU)


def test_a_preprocessing_spec_needs_a_picture_to_work_on(mlmodel: Callable[..., Path]) -> None:
    path = mlmodel(
        signature={"inputs": [tensor("float32", [-1, 2])], "outputs": [tensor("float32", [-1, 2])]},
        metadata={"tensign": {"preprocess": {"version": 1, "steps": []}}},
    )
    (path / "model.onnx").touch()
    with pytest.raises(UnsupportedModel, match=r"needs one uint8 \[-1,H,W,3\] input"):
        ModelPlan.of(path)


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "missing.onnx"])
def test_a_file_outside_the_directory_is_refused(mlmodel: Callable[..., Path], name: str) -> None:
    path = mlmodel(
        signature={"inputs": [tensor("float32", [-1, 2])], "outputs": [tensor("float32", [-1, 2])]},
        flavors={"onnx": {"data": name}},
    )
    (path.parent / "model.onnx").touch()
    with pytest.raises(UnsupportedModel, match="which is no file of the directory"):
        ModelPlan.of(path)


def test_a_flavor_that_is_not_served_says_what_to_do(mlmodel: Callable[..., Path]) -> None:
    path = mlmodel(
        signature={"inputs": [tensor("uint8", [-1, 2, 2, 3])], "outputs": [tensor("float32", [-1, 2])]},
        flavors={"fastai": {"data": "model.fastai"}},
    )
    with pytest.raises(UnsupportedModel, match="tensign convert SRC DST"):
        ModelPlan.of(path)


def test_labels_that_are_no_json_list_are_refused(mlmodel: Callable[..., Path], mean_model: Path) -> None:
    path = mlmodel(
        "mean",
        signature={"inputs": [tensor("uint8", [-1, 4, 5, 3])], "outputs": [tensor("float32", [-1, 3])]},
        flavors={"onnx": {"data": "model.onnx", "labels": "labels.json"}},
    )
    for broken in ("{broken", '{"0": "cat"}', '[{"0": "cat"}]'):
        (path / "labels.json").write_text(broken)
        with pytest.raises(UnsupportedModel, match=r"labels\.json: wanted a JSON list of names"):
            ModelPlan.of(path)


@pytest.mark.parametrize("bad", [{"device": "tpu"}, {"max_batch_size": 0}, {"max_queue_rows": -1}, {"max_pixels": 0}])
def test_a_knob_outside_its_range_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(InvalidConfig, match=next(iter(bad))):
        ModelConfig(**bad)  # type: ignore[arg-type]
