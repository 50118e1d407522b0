"""A fastai flavor's file -> Recording: as data where that can be, by loading it where the operator trusts it."""

from __future__ import annotations

import sys
from pathlib import Path

from tensign.errors import TensignError, UnsupportedModel, UntrustedModel
from tensign.mlmodel import ModelManifest
from tensign_converters.recording import Recording


def read_source(manifest: ModelManifest, *, trust: bool) -> Recording:
    """With `trust` the original is loaded, which runs its code, and is there for the proof; what cannot be loaded is still
    read as data.

    Raises UntrustedModel where only the file's own code could say what the network is, UnsupportedModel for what is broken
    or has no counterpart here.
    """
    from tensign_converters import exported, learner

    flavor = manifest.flavors["fastai"]
    file = _inside(manifest, str(flavor.get("data", "model.fastai")))
    written = str(flavor.get("fastai_version", "an unknown version"))[:40]
    if not trust:
        return _read(file, written)
    try:
        return learner.load(file, written)
    except UnsupportedModel as not_loaded:
        try:
            recording = exported.read_export(file, learner.versions(written))
        except TensignError as not_read:
            raise UnsupportedModel(f"{not_loaded}; read as data: {not_read}") from None
        print(f"{not_loaded}; it was read as data", file=sys.stderr)
        return recording


def _read(file: Path, written: str) -> Recording:
    from tensign_converters import exported, learner

    try:
        return exported.read_export(file, learner.versions(written))
    except UntrustedModel as error:
        raise UntrustedModel(
            f"{file.name}: read as data, without running its code: {error}. If you trust where it comes from, say so:"
            " --trust loads it, which runs whatever code it holds, in a confined process of its own."
        ) from None


def _inside(manifest: ModelManifest, name: str) -> Path:
    """A file of the model directory; a name that leads out of it is refused."""
    file = manifest.path / name
    if ".." in Path(name).parts or not file.resolve().is_relative_to(manifest.path.resolve()):
        raise UnsupportedModel(f'the MLmodel names "{name[:100]}", which is no file of the directory')
    return file
