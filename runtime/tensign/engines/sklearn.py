"""scikit-learn, from what MLflow's sklearn flavor saved: skops or a pickle. In the worker only."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensign.engines import Engine
from tensign.engines.answers import named
from tensign.engines.code import add_code
from tensign.engines.modelinput import model_input
from tensign.errors import UnsupportedModel, UntrustedModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tensign.signature import Arrays

_METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "score_samples", "transform")


class SklearnEngine(Engine):
    """file: model.skops or model.pkl; flavor, pyfunc: what the MLmodel says of it; trust: its own code may run.

    estimator: what the file held, once it is loaded; method: which of its methods is the prediction.
    """

    def __init__(
        self,
        path: str,
        file: str,
        flavor: dict[str, Any],
        pyfunc: dict[str, Any],
        trust: bool,
        inputs: list[dict[str, Any]],
        outputs: list[dict[str, Any]],
        **_: Any,
    ) -> None:
        self._path, self._file = Path(path), Path(file)
        self._flavor, self._trust = flavor, trust
        self.method = str(pyfunc.get("predict_fn", "predict"))
        self._takes, self._gives = inputs, outputs
        self.estimator: Any = None

    def load(self) -> None:
        if self.method not in _METHODS:  # the MLmodel says it, and without trust that is nobody's word
            raise UnsupportedModel(f"predict_fn: wanted one of {', '.join(_METHODS)}, got {self.method[:64]!r}")
        kind = str(self._flavor.get("serialization_format", "pickle"))
        if self._trust:
            add_code(self._path, self._flavor)
        try:
            self.estimator = self._skops() if kind == "skops" else self._unpickled(kind)
        except UntrustedModel:
            raise
        except Exception as error:
            written = self._flavor.get("sklearn_version", "of an unknown version")
            reason = " ".join(str(error).split())[:300]
            raise UnsupportedModel(
                f"{self._file.name}: written by scikit-learn {written}, and scikit-learn {_version()} cannot load it:"
                f" {type(error).__name__}: {reason}"
            ) from error
        if not callable(getattr(self.estimator, self.method, None)):
            raise UnsupportedModel(f"{self._file.name}: a {type(self.estimator).__name__} has no {self.method}()")

    def warmup(self, batch: Arrays, params: Mapping[str, Any] | None = None) -> None:
        self.run(batch, params)

    def run(self, batch: Arrays, params: Mapping[str, Any] | None = None, deadline: float | None = None) -> dict[str, Any]:
        answer = getattr(self.estimator, self.method)(model_input(batch, self._takes, single_as_dict=False))
        outputs, self.form = named(answer, self._gives)
        return outputs

    def close(self) -> None:
        self.estimator = None

    def _skops(self) -> Any:
        """Without trust, only where skops itself trusts every type in it; the MLmodel's own list is the model's word."""
        import skops.io

        unknown = skops.io.get_untrusted_types(file=self._file)
        if unknown and not self._trust:
            raise UntrustedModel(
                f"{self._file.name} holds types that skops does not trust: {', '.join(map(str, unknown[:5]))}. If you trust"
                " where it comes from, say so: --trust"
            )
        return skops.io.load(self._file, trusted=unknown)

    def _unpickled(self, kind: str) -> Any:
        if not self._trust:
            raise UntrustedModel(f"{self._file.name} is a pickle")
        with self._file.open("rb") as file:
            if kind == "cloudpickle":
                import cloudpickle

                return cloudpickle.load(file)
            return pickle.load(file)


def _version() -> str:
    try:
        import sklearn
    except ImportError:
        return "(not installed)"
    return str(sklearn.__version__)
