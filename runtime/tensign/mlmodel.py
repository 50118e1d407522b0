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

import yaml

from tensign.errors import ModelNotFound, UnsupportedModel

_SIGNATURE_PARTS = ("inputs", "outputs", "params")
_MAX_BYTES = 1 << 20  # MLflow's own have some kilobytes, or some ten where there are many columns
_MAX_NODES = 100_000  # of the document, each alias counted as the whole that it stands for
_MAX_DEPTH = 50
_MAX_DIGITS = 100
_KEYS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "merge", "value")}


@dataclass(frozen=True)
class ModelManifest:
    """An MLmodel file, read.

    path: the directory it lies in; document: every key of the file as YAML gave it, so that nothing is lost when it is
    written again; signature: its JSON strings decoded, None when the model has none.
    """

    path: Path
    document: Mapping[str, Any]
    signature: Mapping[str, Any] | None

    @property
    def flavors(self) -> Mapping[str, Mapping[str, Any]]:
        """{flavor: what MLflow wrote of it}, such as {"onnx": {"data": "model.onnx", ...}}."""
        return self.document["flavors"]  # type: ignore[no-any-return]

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The user's own `metadata:` map, where preprocessing is declared; empty when there is none."""
        metadata = self.document.get("metadata")
        return metadata if isinstance(metadata, dict) else {}

    @property
    def name(self) -> str:
        """What to call the model where nobody named it: its artifact path, else its directory."""
        return Path(str(self.document.get("artifact_path") or "")).name or self.path.resolve().name

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
    """Reads the MLmodel file of a model directory.

    Raises ModelNotFound when there is none, UnsupportedModel when it is not what MLflow writes.
    Source of the grammar: mlflow.models.Model.to_dict and from_dict, releases 1.30, 2.22 and 3.18.
    """
    path = Path(path)
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
        document = _parse_yaml(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UnsupportedModel(f"{file}: not UTF-8 text: {error.reason}") from None
    except yaml.MarkedYAMLError as error:  # without the lines it quotes: the file may be a link to what is nobody's business
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UnsupportedModel(f"{file}: not YAML: {where}{error.problem}") from None
    except RecursionError:
        raise UnsupportedModel(f"{file}: nested too deep") from None
    except Exception as error:  # ValueError, AttributeError and others, of a date of month 13 or a number without digits
        raise UnsupportedModel(f"{file}: not YAML: {type(error).__name__}: {str(error)[:200]}") from None
    if not isinstance(document, dict):
        raise UnsupportedModel(f"{file}: wanted a YAML map, got {type(document).__name__}")
    flavors = document.get("flavors")
    if not isinstance(flavors, dict) or not all(isinstance(flavor, dict) for flavor in flavors.values()):
        raise UnsupportedModel(f"{file}: wanted `flavors:` as a map of maps, got {type(flavors).__name__}")
    return ModelManifest(path, MappingProxyType(document), _decode_signature(file, document.get("signature")))


def _parse_yaml(text: str) -> Any:
    """Plain data, of a document that is no larger than it looks. Raises yaml.YAMLError, ValueError and others."""
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        if _size(root, {}, 0) > _MAX_NODES:  # before merge keys are resolved, which would copy what aliases stand for
            raise yaml.constructor.ConstructorError(problem=f"aliases make it more than {_MAX_NODES} values")
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Values below and with a node, were every alias written out. Raises ConstructorError for a loop and for odd text."""
    if depth > _MAX_DEPTH or known.get(id(node)) == 0:
        raise yaml.constructor.ConstructorError(problem="nested too deep, or within itself", problem_mark=node.start_mark)
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = 0
    size = 1
    if isinstance(node, yaml.ScalarNode):
        if any("\ud800" <= letter <= "\udfff" for letter in node.value):
            raise yaml.constructor.ConstructorError(problem="half a surrogate pair", problem_mark=node.start_mark)
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > _MAX_DIGITS:
            raise yaml.constructor.ConstructorError(problem="a number of many digits", problem_mark=node.start_mark)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag not in _KEYS:
                raise yaml.constructor.ConstructorError(problem="a key that is no text", problem_mark=key.start_mark)
            size += _size(key, known, depth + 1) + _size(value, known, depth + 1)
    else:
        size += sum(_size(child, known, depth + 1) for child in node.value)
    known[id(node)] = size
    return size


def _decode_signature(file: Path, signature: Any) -> Mapping[str, Any] | None:
    """MLflow stores each part as a string holding JSON, often folded over several YAML lines."""
    if signature is None:
        return None
    if not isinstance(signature, dict):
        raise UnsupportedModel(f"{file}: wanted `signature:` as a map, got {type(signature).__name__}")
    decoded: dict[str, Any] = {}
    for part in _SIGNATURE_PARTS:
        value = signature.get(part)
        try:
            decoded[part] = json.loads(value) if isinstance(value, str) else value
        except (ValueError, RecursionError) as error:
            raise UnsupportedModel(f"{file}: signature {part} is not JSON: {error}") from None
    return MappingProxyType(decoded)
