"""Whatever MLflow's python_function flavor names: a loader module, a custom PythonModel. In the worker only."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensign.engines import Engine
from tensign.engines.answers import named
from tensign.engines.code import add_code
from tensign.engines.modelinput import model_input
from tensign.errors import UnsupportedModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tensign.signature import Arrays

_CUSTOM = (
    "mlflow.pyfunc"  # its loaders run a PythonModel; the other ones of MLflow wrap a library, and take an array for one tensor
)


class PyfuncEngine(Engine):
    """path: the model's directory; file: what the loader module is given; flavor: what the MLmodel says of it.

    Source: mlflow.pyfunc.load_model and PyFuncModel.predict, release 3.17. Its enforcement is left out: that has been done.
    """

    def __init__(
        self,
        path: str,
        file: str,
        flavor: dict[str, Any],
        inputs: list[dict[str, Any]],
        outputs: list[dict[str, Any]],
        **_: Any,
    ) -> None:
        self._path, self._file, self._flavor = Path(path), file, flavor
        self._takes, self._gives = inputs, outputs
        self._predict: Any = None
        self._has_params = False

    def load(self) -> None:
        module = str(self._flavor["loader_module"])
        self._single_as_dict = module.startswith(_CUSTOM) or not module.startswith("mlflow.")
        add_code(self._path, self._flavor)
        try:
            loader = importlib.import_module(module)._load_pyfunc
            config = self._flavor.get("config")
            model = loader(self._file, config) if config else loader(self._file)
            self._predict = getattr(model, str(self._flavor.get("predict_fn", "predict")))
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise UnsupportedModel(f"{module} cannot load it: {type(error).__name__}: {reason}") from error
        self._has_params = "params" in inspect.signature(self._predict).parameters

    def warmup(self, batch: Arrays, params: Mapping[str, Any] | None = None) -> None:
        self.run(batch, params)

    def run(self, batch: Arrays, params: Mapping[str, Any] | None = None, deadline: float | None = None) -> dict[str, Any]:
        data = model_input(batch, self._takes, single_as_dict=self._single_as_dict)
        answer = self._predict(data, params=dict(params or {})) if self._has_params else self._predict(data)
        outputs, self.form = named(answer, self._gives)
        return outputs

    def close(self) -> None:
        self._predict = None
