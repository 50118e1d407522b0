"""Into MLflow: a live fastai Learner, or a torch module, as an MLmodel that MLflow 3 opens, registers and serves, and that
tensign serves without trust.

For whoever trains: it needs MLflow and torch, and nothing that serves imports it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from tensign.conversion import CROPS
from tensign.errors import UnsupportedModel
from tensign.mlmodel import ModelManifest
from tensign.proof.samples import samples
from tensign.signature import Signature

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.models.model import ModelInfo

    from tensign_converters.subject import Subject

Example = npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]
Read = Callable[[Signature | None], "tuple[str, Subject]"]  # by the signature that a user gives: where from, and what


def save_learner(
    learner: Any,
    path: Path | str,
    *,
    signature: ModelSignature | None = None,
    input_example: Example | None = None,
    metadata: Mapping[str, Any] | None = None,
    crops: int = CROPS,
) -> str:
    """Writes a live fastai Learner of pictures as an MLmodel directory; gives a report of a few lines.

    The Learner stays as it was: a copy of it on the CPU is converted, and held against the conversion.
    signature: one input uint8 [-1,H,W,3] or, grey, [-1,H,W], and one output; None where the Learner tells both.
    input_example: what the written model takes, an array [n,...] or {name: array}; None for a photograph that tensign has.
    crops: how many pieces of photographs the proof tries.
    Raises UnsupportedModel for the part of a Learner that has no counterpart, and for what is not installed; ParityFailed,
    SignatureMismatch for the example, InvalidInput for what is no Learner, FileExistsError where `path` exists.
    """
    return _save_new(_learner(learner), path, metadata, signature, input_example, crops)


def log_learner(
    learner: Any,
    name: str,
    *,
    signature: ModelSignature | None = None,
    input_example: Example | None = None,
    registered_model_name: str | None = None,
    crops: int = CROPS,
    **options: Any,
) -> ModelInfo:
    """Logs a live fastai Learner of pictures to MLflow, within the active run where there is one; gives MLflow's own account.

    options: as `mlflow.models.Model.log` takes them: metadata, tags, params, step, run_id and so on. Everything else is as
    of `save_learner`.
    """
    options["registered_model_name"] = registered_model_name
    return _log(_learner(learner), name, options, signature, input_example, crops)


def save_module(
    module: Any,
    path: Path | str,
    *,
    preprocess: Path | str | Mapping[str, Any],
    signature: ModelSignature | None = None,
    input_example: Example | None = None,
    metadata: Mapping[str, Any] | None = None,
    crops: int = CROPS,
) -> str:
    """Writes a torch module that takes pictures as an MLmodel directory; gives a report of a few lines.

    preprocess: what becomes of a picture before the module and of what it gives, in the YAML file of `tensign convert
    --preprocess`, or as the map that such a file holds. signature: of the module itself, one tensor in and one out, where
    these are to have names. Everything else is as of `save_learner`. Raises InvalidConfig where `preprocess` is wrong,
    InvalidInput for what is no module.
    """
    return _save_new(_module(module, preprocess), path, metadata, signature, input_example, crops)


def log_module(
    module: Any,
    name: str,
    *,
    preprocess: Path | str | Mapping[str, Any],
    signature: ModelSignature | None = None,
    input_example: Example | None = None,
    registered_model_name: str | None = None,
    crops: int = CROPS,
    **options: Any,
) -> ModelInfo:
    """Logs a torch module that takes pictures to MLflow: `preprocess` and `signature` as of `save_module`, the rest as of
    `log_learner`."""
    options["registered_model_name"] = registered_model_name
    return _log(_module(module, preprocess), name, options, signature, input_example, crops)


def _learner(learner: Any) -> Read:
    _check_installed("fastai")
    from tensign_converters import live

    return lambda signature: ("fastai", live.learner_subject(learner, signature))


def _module(module: Any, preprocess: Path | str | Mapping[str, Any]) -> Read:
    _check_installed()
    from tensign_converters import live

    declared = preprocess if isinstance(preprocess, Mapping) else Path(preprocess)
    return lambda signature: ("pytorch", live.module_subject(module, declared, signature))


def _check_installed(*libraries: str) -> None:
    wanted = ("mlflow", "torch", "onnx", "onnxscript", "onnxruntime", *libraries)
    if missing := [library for library in wanted if find_spec(library) is None]:
        raise UnsupportedModel(f"this needs {', '.join(missing)}: pip install 'tensign[cpu,convert]' mlflow")


def _save_new(read: Read, path: Path | str, metadata: Mapping[str, Any] | None, *given: Any) -> str:
    from mlflow.models import Model

    return _save(read, Path(path), Model(metadata=dict(metadata or {})), *given)


def _log(read: Read, name: str, options: Mapping[str, Any], *given: Any) -> ModelInfo:
    """given: signature, example and crops."""
    import mlflow
    from mlflow.models import Model

    def save_model(path: str, mlflow_model: Model) -> None:
        _save(read, Path(path), mlflow_model, *given)

    flavor = SimpleNamespace(__name__="tensign", save_model=save_model)  # all that MLflow asks of a flavor's module
    named = {"artifact_path": None, "name": name} if int(mlflow.__version__.partition(".")[0]) > 2 else {"artifact_path": name}
    info: ModelInfo = Model.log(flavor=flavor, **named, **options)
    return info


def _save(read: Read, target: Path, model: Any, signature: ModelSignature | None, example: Example | None, crops: int) -> str:
    """model: MLflow's own, which is told everything that is written."""
    import mlflow
    from mlflow.models import Model

    from tensign_converters.convert import draw
    from tensign_converters.package import write_model
    from tensign_converters.undisturbed import undisturbed
    from tensign_converters.workshop import workshop

    with workshop(target) as made, tempfile.TemporaryDirectory() as folder, undisturbed():
        flavor, subject = read(None if signature is None else _parsed(signature))
        report = write_model(
            subject,
            made,
            origin={"flavor": flavor},
            source=_with_example(Path(folder), subject.signature, example),
            crops=crops,
            requirements=[f"mlflow=={mlflow.__version__}"],
        )
        draw(made, target.name)
        written = Model.load(str(made))
        model.flavors |= written.flavors
        model.signature = written.signature
        model.metadata = {**(model.metadata or {}), **(written.metadata or {})}
        model.saved_input_example_info = written.saved_input_example_info
        model.model_size_bytes = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
        model.save(str(made / "MLmodel"))
    return report


def _parsed(signature: ModelSignature) -> Signature:
    return Signature.parse({part: json.loads(text) for part, text in signature.to_dict().items() if text})


def _with_example(folder: Path, signature: Signature, example: Example | None) -> ModelManifest:
    """An MLmodel that has nothing but a saved input example, once alone and once as a request.

    Source: mlflow.models.utils._Example, release 3.17.
    """
    if example is None:
        example = {name: value[None] for name, value in samples(signature, crops=1)[0].items()}
    listed: Any = {name: array.tolist() for name, array in signature.enforce_inputs(example).items()}
    (first, *_) = signature.inputs
    listed = listed if first.named else listed[first.name]
    info = {"type": "ndarray", "artifact_path": "input_example.json", "serving_input_path": "serving_input_example.json"}
    for key, content in (("artifact_path", listed), ("serving_input_path", {"inputs": listed})):
        (folder / info[key]).write_text(json.dumps(content, separators=(",", ":")))
    return ModelManifest(folder, "", {"flavors": {}, "saved_input_example_info": info})
