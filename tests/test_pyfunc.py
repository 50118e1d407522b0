"""MLflow's loader contract, with the light install's own model; the golden answers are in test_conversion."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from tensign.demo import MODEL
from tensign.errors import SignatureMismatch
from tensign.pyfunc import _load_pyfunc


@pytest.mark.parametrize("path", [MODEL, MODEL / "model.onnx"])
def test_it_opens_a_directory_or_a_file_in_it(path: Path) -> None:
    named = _load_pyfunc(str(path)).predict({"image": np.zeros((2, 256, 256, 3), np.uint8)})
    assert list(named) == ["probabilities"] and named["probabilities"].shape == (2, 1000)


def test_wrong_input_is_refused_by_us_as_by_mlflow() -> None:
    with pytest.raises(SignatureMismatch, match="expected uint8"):
        _load_pyfunc(str(MODEL)).predict(np.zeros((1, 3), np.float32))


def test_mlflow_enforces_the_signature_before_we_do() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc
        from mlflow.exceptions import MlflowException

        model = mlflow.pyfunc.load_model(str(MODEL))
        assert model.predict(np.zeros((1, 256, 256, 3), np.uint8))["probabilities"].shape == (1, 1000)
        with pytest.raises(MlflowException, match="dtype of input float32 does not match"):
            model.predict(np.zeros((1, 256, 256, 3), np.float32))
