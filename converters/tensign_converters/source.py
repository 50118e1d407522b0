"""An MLmodel -> Subject, by its flavor: read as data where that can be, loaded where the operator trusts it."""

from __future__ import annotations

import sys
from pathlib import Path

from tensign.errors import TensignError, UnsupportedModel, UntrustedModel
from tensign.mlmodel import ModelManifest
from tensign.signature import Signature
from tensign_converters.recording import Recording
from tensign_converters.subject import Subject


def read_subject(manifest: ModelManifest, *, trust: bool) -> tuple[str, Subject]:
    """The flavor that is converted, and what it is. Raises UntrustedModel, UnsupportedModel."""
    signature = Signature.parse(manifest.signature)
    return "fastai", _learner(manifest, signature, trust=trust)


def _learner(manifest: ModelManifest, signature: Signature, *, trust: bool) -> Subject:
    from tensign_converters.learned import learn

    size = picture_size(signature)
    learned = learn(read_learner(manifest, trust=trust), size)
    learned.check(signature)
    return learned.subject(signature)


def picture_size(signature: Signature) -> tuple[int, int]:
    """Height and width of the signature's one uint8 [-1,H,W,3] or [-1,H,W] input; -1 where they are open."""
    if len(signature.inputs) == len(signature.outputs) == 1:
        spec = signature.inputs[0]
        if spec.dtype == "uint8" and len(spec.shape) in (3, 4) and spec.shape[3:] in ((), (3,)):
            return spec.shape[1], spec.shape[2]
    raise UnsupportedModel(
        f"wanted a signature of one input uint8 [-1,H,W,3] or, grey, [-1,H,W], and one output, got {signature}"
    )


def read_learner(manifest: ModelManifest, *, trust: bool) -> Recording:
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
