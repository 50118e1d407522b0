"""MLmodel directory -> ModelManifest: what MLflow 1.x, 2.x or 3.x wrote, unknown keys kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tensign import document as yaml
from tensign.errors import ModelNotFound, UnsupportedModel

SIGNATURE_PARTS = ("inputs", "outputs", "params")
_MAX_BYTES = 1 << 20  # MLflow's own have some kilobytes, or some ten where there are many columns


@dataclass(frozen=True)
class ModelManifest:
    """An MLmodel file, read.

    path: the directory it lies in; text: the file as it stands; document: every key of it as YAML gave it, known here or
    not, so that nothing is lost when it is written again. All keys but `flavors` may be missing.
    """

    path: Path
    text: str
    document: Mapping[str, Any]

    @property
    def file(self) -> Path:
        """The MLmodel file itself."""
        return self.path / "MLmodel"

    @property
    def flavors(self) -> Mapping[str, Mapping[str, Any]]:
        """{flavor: what MLflow wrote of it}, such as {"onnx": {"data": "model.onnx", ...}}."""
        return self.document["flavors"]  # type: ignore[no-any-return]

    @cached_property
    def signature(self) -> Mapping[str, Any] | None:
        """`inputs`, `outputs`, `params`, their JSON decoded, None for a part that is not declared; Signature.parse reads it.

        None when the model has no signature. Raises UnsupportedModel where that is no map, or a part no JSON.
        """
        signature = self.document.get("signature")
        if signature is None:
            return None
        if not isinstance(signature, dict):
            raise UnsupportedModel(f"{self.file}: wanted `signature:` as a map, got {type(signature).__name__}")
        try:
            return MappingProxyType({part: _decode(part, signature.get(part)) for part in SIGNATURE_PARTS})
        except UnsupportedModel as error:
            raise UnsupportedModel(f"{self.file}: {error}") from None

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The user's own `metadata:` map, where preprocessing is declared; empty when there is none."""
        return _mapping(self.document.get("metadata"))

    @property
    def env(self) -> Mapping[str, str]:
        """{"conda": file, "virtualenv": file} of the python_function flavor, whichever there are.

        MLflow 1.x named the conda file alone, as a string; later releases write a map.
        """
        env = _mapping(self.flavors.get("python_function")).get("env")
        named = {"conda": env} if isinstance(env, str) else _mapping(env)
        return {str(kind): str(file) for kind, file in named.items() if file is not None}

    @property
    def saved_input_example(self) -> Mapping[str, Any]:
        """`saved_input_example_info`: artifact_path, type, serving_input_path, ...; empty when none was saved."""
        return _mapping(self.document.get("saved_input_example_info"))

    @property
    def name(self) -> str:
        """What to call the model where nobody named it: its artifact path, else its directory.

        A model out of MLflow 3's store has a URI there, of which the last part is no name.
        """
        artifact = str(self.document.get("artifact_path") or "")
        return ("" if ":/" in artifact else Path(artifact).name) or self.path.resolve().name

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names and contents of every file of the directory, in hex."""
        total = hashlib.sha256()
        for file in sorted(path for path in self.path.rglob("*") if path.is_file()):
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            total.update(f"{file.relative_to(self.path).as_posix()}\0{content}\0".encode())
        return total.hexdigest()


def read_mlmodel(path: Path | str) -> ModelManifest:
    """Reads the MLmodel file of a model directory; `path` may name the file itself.

    Raises ModelNotFound when there is none, UnsupportedModel when it is not what MLflow writes.
    Source of the grammar: mlflow.models.Model.to_dict and from_dict, releases 1.30, 2.22 and 3.18.
    """
    path = Path(path)
    if path.name == "MLmodel" and not path.is_dir():
        path = path.parent
    file = path / "MLmodel"
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise ModelNotFound(f"{path}: no MLmodel file there; give the directory that MLflow wrote") from None
    except OSError as error:
        raise UnsupportedModel(f"{file}: cannot be read: {error.strerror}") from None
    if len(content) > _MAX_BYTES:
        raise UnsupportedModel(f"{file}: more than {_MAX_BYTES} bytes, which is no MLmodel that MLflow wrote")
    try:
        text = content.decode("utf-8")
        document = yaml.parse(text)
    except UnicodeDecodeError as error:
        raise UnsupportedModel(f"{file}: not UTF-8 text: {error.reason}") from None
    except yaml.NotYaml as error:
        raise UnsupportedModel(f"{file}: not YAML: {error}") from None
    if not isinstance(document, dict):
        raise UnsupportedModel(f"{file}: wanted a YAML map, got {_kind(document)}")
    if not all(isinstance(key, str) for key in document):
        raise UnsupportedModel(f"{file}: wanted names as keys, got {next(k for k in document if not isinstance(k, str))!r}")
    flavors = document.get("flavors")
    if not isinstance(flavors, dict) or not all(
        isinstance(name, str) and isinstance(flavor, dict) for name, flavor in flavors.items()
    ):
        raise UnsupportedModel(f"{file}: wanted `flavors:` as a map of maps, got {_kind(flavors)}")
    return ModelManifest(path, text, MappingProxyType(document))


def _decode(part: str, value: Any) -> Any:
    """MLflow stores each part as a string holding JSON, often folded over several YAML lines."""
    if value is None or value == "":
        return None
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise UnsupportedModel(f"signature {part} is not JSON: {error}") from None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _kind(value: Any) -> str:
    return type(value).__name__
