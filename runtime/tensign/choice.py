"""Which of a model's flavors is run, by which engine, and why not the others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensign.errors import UnsupportedModel
from tensign.mlmodel import ModelManifest

SERVED_FLAVORS = {"tensign": "model", "onnx": "data"}  # flavor -> the key that names its ONNX file, the preferred first
FIRST_CONVERTED = ("fastai", "pytorch")  # by serve and predict, unless an engine is asked for
CONVERTED_FLAVORS = ("fastai", "pytorch", "sklearn", "onnx")  # onnx: where its pictures are declared
_PICKLE = "unpickles {}, which runs the model's own code"


@dataclass(frozen=True, slots=True)
class Choice:
    """One flavor: the engine that runs it, "" where there is none, and the file or directory that engine loads.

    runs: what of the model's own is executed, "" where nothing is and no trust is needed; refused: why it cannot be chosen,
    "" where it can; asked: it is run only where somebody asks for its engine.
    """

    flavor: str
    engine: str = ""
    file: Path | None = None
    runs: str = ""
    refused: str = ""
    asked: bool = False

    def __str__(self) -> str:
        if self.refused:
            return f"{self.flavor}: {self.refused}"
        place = " in a process of its own" if self.engine != "onnx" else ""
        trust = f"; {self.runs}, so it needs --trust" if self.runs else ""
        asked = f"; only with --engine {self.engine}" if self.asked else ""
        return f"{self.flavor}: by engine {self.engine}{place}{trust}{asked}"


def choices(manifest: ModelManifest) -> tuple[Choice, ...]:
    """Every flavor of a model, those that run first, in order of preference."""
    known = {
        flavor: _judged(read, manifest, manifest.flavors[flavor])
        for flavor, read in _KNOWN.items()
        if flavor in manifest.flavors
    }
    beside = "; its python_function flavor may" if "python_function" in known else ""
    others = [Choice(str(flavor), refused=f"no engine runs it{beside}") for flavor in manifest.flavors if flavor not in known]
    return (*known.values(), *others)


def chosen(manifest: ModelManifest, engine: str = "auto") -> Choice:
    """The flavor to run: the preferred one, or that of the engine asked for. Raises UnsupportedModel, which says why."""
    known = choices(manifest)
    able = [choice for choice in known if choice.engine and (choice.engine == engine or engine == "auto")]
    if not able:
        what = f"--engine {engine}: no flavor for it; " if engine != "auto" else ""
        raise UnsupportedModel(f"{what}{'; '.join(map(str, known)) or 'the MLmodel has no flavor'}")
    choice = able[0]
    if choice.asked and engine == "auto":
        raise UnsupportedModel(_CONVERT)
    if choice.refused:
        raise UnsupportedModel(choice.refused)
    return choice


_CONVERT = (
    "a fastai model is converted first: tensign convert SRC DST; or it runs as it is in a process of its own:"
    " --engine fastai --trust"
)


def refusal(manifest: ModelManifest) -> str:
    """Why a model cannot be converted, and what to do; empty where it can."""
    if not any(flavor in manifest.flavors for flavor in CONVERTED_FLAVORS):
        known = f"{', '.join(CONVERTED_FLAVORS[:-1])} and {CONVERTED_FLAVORS[-1]}"
        return f"flavors {', '.join(map(str, manifest.flavors))}: only {known} are converted; see which run as they are"
    return ""


def variant_files(manifest: ModelManifest) -> dict[str, Path]:
    """{"int8": its file, ...} of a converted model, beside fp32. Raises UnsupportedModel where they are not what we write."""
    declared = manifest.flavors.get("tensign", {}).get("variants", {})
    if not isinstance(declared, Mapping):
        raise UnsupportedModel(f"{manifest.path}: wanted variants as a map of files, got {type(declared).__name__}")
    return {str(name): inside(manifest, file) for name, file in declared.items()}


def inside(manifest: ModelManifest, name: Any, *, directory: bool = False) -> Path:
    """A file of the model directory, or a directory where that will do; what leads out of it is refused: UnsupportedModel."""
    file = manifest.path / str(name)
    try:
        inside = (file.is_file() or (directory and file.is_dir())) and file.resolve().is_relative_to(manifest.path.resolve())
        inside = inside and ".." not in Path(str(name)).parts
    except (OSError, ValueError, RuntimeError):  # no name that a file could have, or links in a circle
        inside = False
    if not inside:
        raise UnsupportedModel(f'{manifest.path}: the MLmodel names "{str(name)[:100]}", which is no file of the directory')
    return file


def _judged(read: Any, manifest: ModelManifest, flavor: Mapping[str, Any]) -> Choice:
    try:
        choice: Choice = read(manifest, flavor)
        if flavor.get("code") is not None:
            inside(manifest, flavor["code"], directory=True)
        return choice
    except UnsupportedModel as error:
        engine, name = next((engine, name) for name, (engine, reader) in _READERS.items() if reader is read)
        return Choice(name, engine, refused=str(error), asked=name == "fastai")


def _tensign(manifest: ModelManifest, flavor: Mapping[str, Any]) -> Choice:
    return Choice("tensign", "onnx", inside(manifest, flavor.get(SERVED_FLAVORS["tensign"])))


def _onnx(manifest: ModelManifest, flavor: Mapping[str, Any]) -> Choice:
    return Choice("onnx", "onnx", inside(manifest, flavor.get(SERVED_FLAVORS["onnx"])))


def _fastai(manifest: ModelManifest, flavor: Mapping[str, Any]) -> Choice:
    file = inside(manifest, flavor.get("data", "model.fastai"))
    return Choice("fastai", "fastai", file, _PICKLE.format(file.name), asked=True)


def _pytorch(manifest: ModelManifest, flavor: Mapping[str, Any]) -> Choice:
    data = inside(manifest, flavor.get("model_data", "data"), directory=True)
    file = next((data / name for name in ("model.pth", "model.pt2") if (data / name).is_file()), data)
    if not file.is_file():
        raise UnsupportedModel(f"{manifest.path}: neither model.pth nor model.pt2 in {data.name}")
    file = inside(manifest, file.relative_to(manifest.path))
    archive = f"opens {file.name} with torch.export, whose safe loading has been broken before"
    return Choice("pytorch", "torch", file, archive if file.suffix == ".pt2" else _PICKLE.format(file.name))


def _sklearn(manifest: ModelManifest, flavor: Mapping[str, Any]) -> Choice:
    file = inside(manifest, flavor.get("pickled_model", "model.pkl"))
    pickled = flavor.get("serialization_format") != "skops"  # of skops only its engine can tell
    return Choice("sklearn", "sklearn", file, _PICKLE.format(file.name) if pickled else "")


def _python_function(manifest: ModelManifest, flavor: Mapping[str, Any]) -> Choice:
    module = flavor.get("loader_module")
    if not isinstance(module, str) or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", module):
        raise UnsupportedModel(f"python_function: loader_module {str(module)[:64]!a} is no module's name")
    data = inside(manifest, flavor["data"], directory=True) if flavor.get("data") is not None else manifest.path
    return Choice("python_function", "pyfunc", data, f"loads it with {module}, which runs the model's own code")


_READERS = {
    "tensign": ("onnx", _tensign),
    "onnx": ("onnx", _onnx),
    "fastai": ("fastai", _fastai),
    "pytorch": ("torch", _pytorch),
    "sklearn": ("sklearn", _sklearn),
    "python_function": ("pyfunc", _python_function),
}
_KNOWN = {flavor: read for flavor, (_, read) in _READERS.items()}
