from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from conftest import save_onnx
from tensign.engines.onnx import MISSING_TEXT, OnnxEngine
from tensign.errors import ModelFailed, ProviderUnavailable, UnsupportedModel

NO_GPU = "CUDAExecutionProvider" not in onnxruntime.get_available_providers()


@pytest.fixture
def doubler(tmp_path: Path) -> Path:
    """float32 [n,2,?] -> y: twice the input."""
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    tensor = (TensorProto.FLOAT, ["n", 2, "width"])
    save_onnx(tmp_path / "double.onnx", nodes, {"x": tensor}, {"y": tensor})
    return tmp_path / "double.onnx"


def test_it_tells_what_the_network_takes_and_gives(doubler: Path) -> None:
    engine = OnnxEngine(doubler, "cpu")
    engine.load()
    assert [(spec.name, str(spec)) for spec in engine.inputs] == [("x", "float32 [-1,2,-1]")]
    assert [(spec.name, str(spec)) for spec in engine.outputs] == [("y", "float32 [-1,2,-1]")]
    assert engine.device == "cpu"


def test_it_runs_any_number_of_rows(doubler: Path) -> None:
    engine = OnnxEngine(doubler, "cpu")
    engine.load()
    rows = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    engine.warmup({"x": rows})
    np.testing.assert_array_equal(engine.run({"x": rows})["y"], 2 * rows)


@pytest.mark.skipif(not NO_GPU, reason="this onnxruntime has the CUDA provider")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_without_the_provider_fails_and_says_how_to_get_it(doubler: Path, device: str) -> None:
    with pytest.raises(ProviderUnavailable, match=r"has no CUDAExecutionProvider.*tensign\[gpu\]"):
        OnnxEngine(doubler, device).load()


def test_a_session_that_fell_back_to_cpu_is_refused(doubler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime drops a provider that cannot start, without an error: here, one that it lists and cannot load."""
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda file, options, providers: real(file, options, ["CPUExecutionProvider"])
    )
    with pytest.raises(ProviderUnavailable, match="fell back to CPUExecutionProvider"):
        OnnxEngine(doubler, "cuda").load()


def test_auto_on_a_machine_with_a_gpu_never_means_cpu(doubler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensign.engines.onnx._has_gpu", lambda: True)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderUnavailable, match="choose --device cpu"):
        OnnxEngine(doubler, "auto").load()


def test_missing_text_is_one_of_its_own(tmp_path: Path) -> None:
    """ONNX Runtime itself takes None for the text "None", and NaN for "nan"."""
    text = (TensorProto.STRING, ["n", 1])
    save_onnx(tmp_path / "same.onnx", [helper.make_node("Identity", ["x"], ["y"])], {"x": text}, {"y": text})
    engine = OnnxEngine(tmp_path / "same.onnx", "cpu")
    engine.load()
    given = np.array([["None"], [None], [float("nan")], ["é".encode()]], object)
    assert engine.run({"x": given})["y"].tolist() == [["None"], [MISSING_TEXT], [MISSING_TEXT], ["é"]]


def test_a_node_that_fails_on_purpose_says_what_it_refuses(tmp_path: Path) -> None:
    numbers = (TensorProto.INT64, ["n"])
    for name, error, text in (
        ("refuses_odd_ones 3", ModelFailed, "the model refuses odd ones$"),
        ("other", Exception, "'other'"),
    ):
        nodes = [
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Gather", ["shape", "x"], ["y"], name=name),
        ]
        save_onnx(tmp_path / "refusing.onnx", nodes, {"x": numbers}, {"y": numbers})
        engine = OnnxEngine(tmp_path / "refusing.onnx", "cpu")
        engine.load()
        assert engine.run({"x": np.array([0, 0])})["y"].tolist() == [2, 2]
        with pytest.raises(error, match=text):
            engine.run({"x": np.array([0, 1])})


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(UnsupportedModel, match=r"junk\.onnx: ONNX Runtime cannot load it"):
        OnnxEngine(tmp_path / "junk.onnx", "cpu").load()
