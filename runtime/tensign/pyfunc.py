"""MLflow's way into a model that tensign converted: `mlflow.pyfunc.load_model(DIR)` names this module as its loader.

MLflow enforces the signature's inputs itself; then the same preprocessing and graph run as on the server.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.model import Model


class PyFuncModel:
    """What MLflow calls."""

    def __init__(self, path: Path) -> None:
        self._model = Model.load(path)

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """[n,...] or {name: [n,...]} -> {name: array}; one array where the signature's single output is unnamed, or where the
        model returned one before it was converted, several columns side by side."""
        single = isinstance(model_input, np.ndarray)
        outputs: dict[str, npt.NDArray[Any]] = self._model.infer(
            model_input if single else {name: np.asarray(value) for name, value in model_input.items()}
        )
        if self._model.plan.form.kind != "ndarray":
            return outputs if self._model.signature.outputs[0].named else next(iter(outputs.values()))
        return next(iter(outputs.values())) if len(outputs) == 1 else np.stack(list(outputs.values()), axis=1)


def _load_pyfunc(path: str) -> PyFuncModel:
    """The name and form that MLflow's python_function flavor asks for; path: the file that `data:` names, or the directory."""
    data = Path(path)
    return PyFuncModel(data if data.is_dir() else data.parent)
