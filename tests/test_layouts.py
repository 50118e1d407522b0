"""Every kind of tensor that a signature may declare, served as it is: layouts, channels, dtypes, names, axes, text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import yaml
from onnx import helper

from tensign.client import Client
from tensign.config import ModelConfig
from tensign.errors import InvalidInput, SignatureMismatch
from tensign.model import Model
from tensign.testing import serving

Specs = Mapping[str, tuple[str, list[int]]]


def echo(path: Path, specs: Specs, *, named: bool = True) -> Path:
    """A network that gives each of its inputs back: name -> name_out."""
    nodes, inputs, outputs = [], [], []
    for name, (dtype, shape) in specs.items():
        kind = onnx.TensorProto.STRING if dtype == "str" else helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        axes = [f"{name}{at}" if axis == -1 else axis for at, axis in enumerate(shape)]
        axes[0] = "rows"
        nodes.append(helper.make_node("Identity", [name], [f"{name}_out"]))
        inputs.append(helper.make_tensor_value_info(name, kind, axes))
        outputs.append(helper.make_tensor_value_info(f"{name}_out", kind, axes))
    graph = helper.make_graph(nodes, "echo", inputs, outputs)
    onnx_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.mkdir()
    onnx.save(onnx_model, path / "model.onnx")

    def declared(suffix: str) -> str:
        tensors = [
            {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}} | ({"name": name + suffix} if named else {})
            for name, (dtype, shape) in specs.items()
        ]
        return json.dumps(tensors)

    document = {
        "flavors": {"onnx": {"data": "model.onnx"}},
        "signature": {"inputs": declared(""), "outputs": declared("_out"), "params": None},
    }
    (path / "MLmodel").write_text(yaml.safe_dump(document))
    return path


def rows(dtype: str, shape: list[int], count: int = 3) -> npt.NDArray[np.generic]:
    random = np.random.default_rng(0)
    lengths = (count, *(5 if axis == -1 else axis for axis in shape[1:]))
    if dtype == "str":
        return np.array([f"é{number}" for number in range(int(np.prod(lengths)))], object).reshape(lengths)
    return random.integers(0, 2 if dtype == "bool" else 100, lengths).astype(dtype)


LAYOUTS: dict[str, Specs] = {
    **{f"NHWC {c}": {"image": ("uint8", [-1, 8, 9, c])} for c in (1, 3, 4)},
    **{f"NCHW {c}": {"image": ("float32", [-1, c, 8, 9])} for c in (1, 3, 4)},
    "any size": {"image": ("uint8", [-1, -1, -1, 3])},
    "no picture": {"x": ("float64", [-1, 7])},
    "one axis": {"x": ("int64", [-1])},
    "several": {"image": ("uint8", [-1, 4, 4, 3]), "mask": ("bool", [-1, 4, 4]), "weight": ("float32", [-1])},
    "text": {"word": ("str", [-1])},
    "text of two axes": {"word": ("str", [-1, 2])},
    **{
        dtype: {"x": (dtype, [-1, 2])}
        for dtype in "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()
    },
}


@pytest.mark.parametrize("specs", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
def test_comes_back_as_it_was(specs: Specs, named: bool, tmp_path: Path) -> None:
    if not named and len(specs) > 1:
        pytest.skip("several tensors need names")
    model = Model.load(echo(tmp_path / "echo", specs, named=named), ModelConfig(device="cpu", max_batch_size=4))
    arrays = {name: rows(*spec) for name, spec in specs.items()}
    with serving(model) as address, Client(address) as client:
        answer = client.infer(arrays if named else {"input-0": next(iter(arrays.values()))})
    for name, got in zip(specs, answer.values(), strict=True):
        wanted = arrays[name]
        if wanted.dtype == object:
            got = np.array([bytes(text).decode() for text in got.flat], object).reshape(got.shape)
        assert got.dtype == wanted.dtype
        assert np.array_equal(got, wanted)


def test_only_equal_shapes_share_a_batch(tmp_path: Path) -> None:
    model = Model.load(echo(tmp_path / "echo", LAYOUTS["any size"]), ModelConfig(device="cpu", max_batch_size=8))
    images = [np.full((1 + n % 3, 4 + n % 2, 5, 3), n, np.uint8) for n in range(60)]
    with serving(model) as address, Client(address) as client:
        answers = list(client.stream({"image": image} for image in images))
    for image, answer in zip(images, answers, strict=True):
        assert answer.error is None
        assert np.array_equal(answer.outputs["image_out"], image)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    model = Model.load(echo(tmp_path / "echo", LAYOUTS["text"]), ModelConfig(device="cpu", max_batch_size=2))
    with serving(model) as address, Client(address) as client:
        with pytest.raises(InvalidInput, match=r"input \"word\".*not UTF-8"):
            client.infer({"word": np.array([b"\xff"], object)})
        with pytest.raises(SignatureMismatch, match='input "word"'):
            client.infer({"word": np.zeros(3)})
        assert client.infer({"word": np.array(["a"], object)})["word_out"][0] == b"a"
