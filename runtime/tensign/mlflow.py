"""Into MLflow: a live fastai Learner as an MLmodel that MLflow 3 opens, registers and serves, and tensign without trust.

For whoever trains: it needs MLflow, torch and fastai, and nothing that serves imports it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from tensign.errors import UnsupportedModel
from tensign.signature import Signature

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.models.model import ModelInfo

Example = npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]
# Into that directory, with that signature as MLflow's JSON texts, or one of its own, and those requirements; gives a report.
Write = Callable[[Path, Mapping[str, str | None] | None, Sequence[str]], str]


def save_learner(
    learner: Any,
    path: Path | str,
    *,
    signature: ModelSignature | None = None,
    input_example: Example | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> str:
    """Writes a live fastai Learner of pictures as an MLmodel directory; gives a report of three lines.

    The Learner stays as it was: a copy of it on the CPU is converted, and held against the conversion.
    signature: one input uint8 [-1,H,W,3] or, grey, [-1,H,W], and one output; None where the Learner tells both.
    input_example: what such a model takes, an array [n,...] or {name: array}; None for a photograph that tensign has.
    Raises UnsupportedModel for the part of a Learner that has no counterpart, and for what is not installed; ParityFailed,
    SignatureMismatch for the example, InvalidInput for what is no Learner, FileExistsError where `path` exists.
    """
    write = _learner(learner)
    from mlflow.models import Model

    return _save(write, Path(path), Model(metadata=dict(metadata or {})), signature, input_example)


def log_learner(
    learner: Any,
    name: str,
    *,
    signature: ModelSignature | None = None,
    input_example: Example | None = None,
    registered_model_name: str | None = None,
    **options: Any,
) -> ModelInfo:
    """Logs a live fastai Learner of pictures to MLflow, within the active run where there is one; gives MLflow's own account.

    options: as `mlflow.models.Model.log` takes them: metadata, tags, params, step, run_id and so on. Everything else is as
    of `save_learner`.
    """
    options["registered_model_name"] = registered_model_name
    return _log(_learner(learner), name, signature, input_example, options)


def _learner(learner: Any) -> Write:
    _check_installed("mlflow", "torch", "fastai", "onnx", "onnxscript", "onnxruntime")
    from tensign_converters import live

    return partial(live.write, learner)


def _check_installed(*libraries: str) -> None:
    if missing := [library for library in libraries if find_spec(library) is None]:
        raise UnsupportedModel(f"this needs {', '.join(missing)}: pip install 'tensign[cpu,convert]' mlflow")


def _log(
    write: Write, name: str, signature: ModelSignature | None, example: Example | None, options: Mapping[str, Any]
) -> ModelInfo:
    import mlflow
    from mlflow.models import Model

    def save_model(path: str, mlflow_model: Model) -> None:
        _save(write, Path(path), mlflow_model, signature, example)

    flavor = SimpleNamespace(__name__="tensign", save_model=save_model)  # all that MLflow asks of a flavor's module
    named = {"artifact_path": None, "name": name} if int(mlflow.__version__.partition(".")[0]) > 2 else {"artifact_path": name}
    info: ModelInfo = Model.log(flavor=flavor, **named, **options)
    return info


def _save(write: Write, target: Path, model: Any, signature: ModelSignature | None, example: Example | None) -> str:
    """model: MLflow's own, which is told everything that is written."""
    import mlflow
    from mlflow.models import Model

    from tensign_converters.workshop import workshop

    with workshop(target) as made:
        report = write(made, None if signature is None else signature.to_dict(), [f"mlflow=={mlflow.__version__}"])
        written = Model.load(str(made))
        model.flavors |= written.flavors
        model.signature = written.signature
        model.metadata = {**(model.metadata or {}), **(written.metadata or {})}
        model.saved_input_example_info = _save_example(made, example)
        model.model_size_bytes = sum(file.stat().st_size for file in made.iterdir())
        model.save(str(made / "MLmodel"))
    return report


def _save_example(model: Path, example: Example | None) -> dict[str, str]:
    """Writes it as MLflow does, once alone and once as a request. Source: mlflow.models.utils._Example, release 3.17."""
    signature = Signature.load(model)
    given = signature.enforce_inputs(_photograph(signature) if example is None else example)
    listed: Any = {name: array.tolist() for name, array in given.items()}
    listed = listed if signature.inputs[0].named else listed[signature.inputs[0].name]
    info = {"type": "ndarray", "artifact_path": "input_example.json", "serving_input_path": "serving_input_example.json"}
    for key, content in (("artifact_path", listed), ("serving_input_path", {"inputs": listed})):
        (model / info[key]).write_text(json.dumps(content, separators=(",", ":")))
    return info


def _photograph(signature: Signature) -> npt.NDArray[Any]:
    """uint8 [1,H,W,3] or [1,H,W]."""
    from tensign.demo import pictures
    from tensign_converters.parity import arrays

    _, height, width, *channels = signature.inputs[0].shape
    return next(arrays(pictures(), (height, width), "RGB" if channels else "L", 0))[None]
