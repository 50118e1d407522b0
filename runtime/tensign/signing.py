"""Writes a signature into an MLmodel file: given, or inferred from the ONNX graph, the saved input example or the Learner."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensign import document
from tensign.choice import SERVED_FLAVORS, inside
from tensign.conversion import described
from tensign.engines.onnx import OnnxEngine
from tensign.errors import InvalidConfig, UnsupportedModel
from tensign.mlmodel import SIGNATURE_PARTS, ModelManifest, read_mlmodel
from tensign.notation import parse_param, parse_specs
from tensign.savedexample import example_specs
from tensign.signature import Signature
from tensign.specs import TensorSpec

_HINTS = ("is_signature_from_type_hint", "type_hint_from_example")  # not true of a signature that was written by hand

_MAX_LINE = 300

Entries = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Signed:
    """parts: {"inputs", "outputs", "params"} as MLflow writes them; origins: where each part came from; text: the file anew."""

    parts: dict[str, Entries]
    origins: dict[str, str]
    text: str
    changed: bool

    def lines(self) -> Iterator[tuple[str, str]]:
        """(part, its specs in one line)."""
        return _lines(self.parts)


def sign(
    path: Path,
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    params: Sequence[str] = (),
    force: bool = False,
    trust: bool = False,
    dry_run: bool = False,
) -> Signed:
    """Gives a model directory a signature; every other key of its MLmodel stays as it is, to the letter where YAML allows.

    inputs, outputs, params: as in `tensign.notation`. A part that is not given stays as it was; without a signature, it is
    inferred. Raises InvalidConfig for a spec that is wrong, and where a signature would be replaced and `force` is False;
    UnsupportedModel where nothing can be inferred; UntrustedModel where that takes running the model's code.
    """
    manifest = read_mlmodel(path)
    given = {"inputs": _each(parse_specs, inputs), "outputs": _each(parse_specs, outputs), "params": _each(parse_param, params)}
    old = _old(manifest)
    parts = {part: specs for part, specs in given.items() if specs}
    origins = dict.fromkeys(parts, "given")
    if parts:
        kept = {part: specs for part, specs in old.items() if part not in parts}
        parts, origins = parts | kept, origins | dict.fromkeys(kept, "kept")
    if not {"inputs", "outputs"} <= parts.keys():
        found, origin = _inferred(manifest, trust, wanted="inputs" not in parts)
        origins |= dict.fromkeys((part for part in found if part not in parts), origin)
        parts = found | parts
    parts = {part: parts[part] for part in SIGNATURE_PARTS if part in parts}
    Signature.parse(parts)
    changed = not _same(parts, old)
    lost = not _same({part: parts.get(part) for part in old}, old)  # outputs that a signature lacked replace nothing
    if changed and manifest.document.get("signature") is not None and (lost or "outputs" in old) and not force:
        raise InvalidConfig(f"{manifest.file}: has a signature: {_line(old)}. With --force it becomes: {_line(parts)}")
    written = {part: json.dumps(parts[part]) if part in parts else None for part in SIGNATURE_PARTS}
    changes: dict[str, Any] = {"signature": written} | {key: False for key in _HINTS if manifest.document.get(key)}
    text = document.replaced(manifest.text, changes) if changed else manifest.text
    if changed and not dry_run:
        _write(manifest.file, text)
    return Signed(parts, origins, text, changed)


def _each(parse: Any, texts: Sequence[str]) -> Entries:
    return [entry for text in texts for entry in parse(text)]


def _old(manifest: ModelManifest) -> dict[str, Entries]:
    """The parts that are there and can be kept; a signature that cannot be read is none."""
    try:
        signature = manifest.signature or {}
    except UnsupportedModel:
        return {}
    return {part: specs for part, specs in signature.items() if isinstance(specs, list) and specs}


def _inferred(manifest: ModelManifest, trust: bool, *, wanted: bool) -> tuple[dict[str, Entries], str]:
    """What is known of a model that declares nothing, the exact source first. wanted: it is an error to find no inputs."""
    flavor = next((flavor for flavor in SERVED_FLAVORS if flavor in manifest.flavors), None)
    if flavor:
        return _of_graph(inside(manifest, manifest.flavors[flavor].get(SERVED_FLAVORS[flavor])))
    if "fastai" in manifest.flavors and wanted:
        said = described(manifest.path, trust=trust)
        return {part: parse_specs(said[part]) for part in ("inputs", "outputs")}, "inferred from the Learner"
    specs, params, file = example_specs(manifest)
    if not specs and wanted:
        flavors = ", ".join(manifest.flavors) or "none"
        raise UnsupportedModel(
            f"{manifest.file}: nothing to infer a signature from (flavors {flavors}, no saved input example); give it:"
            " --input 'uint8[-1,300,300,3]' --output 'float32[-1,2]'"
        )
    return {
        part: found for part, found in (("inputs", specs), ("params", params)) if found
    }, f"inferred from {file}, which tells no dtypes"


def _of_graph(file: Path) -> tuple[dict[str, Entries], str]:
    engine = OnnxEngine(file, "cpu")
    engine.load()
    try:
        return {
            "inputs": [*map(_entry, engine.inputs)],
            "outputs": [*map(_entry, engine.outputs)],
        }, f"inferred from {file.name}"
    finally:
        engine.close()


def _entry(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "type": "tensor", "tensor-spec": {"dtype": spec.dtype.name, "shape": list(spec.shape)}}


def _lines(parts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    signature = Signature.parse(parts)
    for part in parts:
        specs = getattr(signature, part)
        yield part, ", ".join(f"{spec.name}: {spec}" if part == "params" or spec.named else str(spec) for spec in specs)


def _line(parts: Mapping[str, Any]) -> str:
    try:
        line = ", ".join(f"{part} {line}" for part, line in _lines(parts))
    except UnsupportedModel as error:
        line = f"one that cannot be used ({error})"
    return line if len(line) < _MAX_LINE else f"{line[:_MAX_LINE]}..."


def _same(parts: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether they declare the same, however they are written."""
    try:
        return Signature.parse(parts) == Signature.parse(old)
    except UnsupportedModel:
        return False


def _write(file: Path, text: str) -> None:
    """Whole or not at all, with the rights that the file had; a link becomes a file, what it led to stays. Raises OSError."""
    number, name = tempfile.mkstemp(prefix=".MLmodel-", dir=file.parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8", newline="") as stream:
            os.fchmod(number, file.stat().st_mode & 0o7777)
            stream.write(text)
            stream.flush()
            os.fsync(number)
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise
