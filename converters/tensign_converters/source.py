"""An MLmodel directory, or a bare file of a network -> Subject: read as data where that can be, loaded where it is trusted."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from tensign.choice import choices, inside
from tensign.engines.code import add_code
from tensign.errors import InvalidConfig, TensignError, UnsupportedModel, UntrustedModel
from tensign.mlmodel import ModelManifest, read_mlmodel
from tensign.proof.record import digest
from tensign.signature import Signature
from tensign_converters.declared.declaration import Declaration
from tensign_converters.learners.recording import Recording
from tensign_converters.subject import Subject

_LEARNER, _HEAD = b"fastai.learner", 512  # what a Learner's pickle begins with, and within how many bytes


@dataclass(frozen=True, slots=True)
class Source:
    """What is converted. manifest: None of a bare file; flavor: which of its flavors; digest: SHA-256 of what was read."""

    subject: Subject
    manifest: ModelManifest | None
    flavor: str
    digest: str


def read_source(path: Path, declaration: Declaration | None, *, trust: bool) -> Source:
    """Raises UntrustedModel where only the model's own code could say what it is, UnsupportedModel for what has no counterpart,
    InvalidConfig where the declaration does not fit."""
    if path.is_file():
        return Source(_bare(path, declaration, trust=trust), None, "file", digest(path))
    manifest = read_mlmodel(path)
    flavor = next((name for name in _FLAVORS if name in manifest.flavors), "")
    if not flavor:
        raise UnsupportedModel(f"flavors {', '.join(map(str, manifest.flavors))}: none of {', '.join(_FLAVORS)} to convert")
    return Source(_FLAVORS[flavor](manifest, declaration, trust), manifest, flavor, manifest.digest)


def _bare(file: Path, declaration: Declaration | None, *, trust: bool) -> Subject:
    """A file beside which nobody says what it takes."""
    with file.open("rb") as stream:
        if _LEARNER in stream.read(_HEAD):
            raise UnsupportedModel(
                f"{file.name}: what a fastai Learner exported: give the MLmodel directory that it lies in, or log the Learner"
                " with tensign.mlflow.log_learner"
            )
    if declaration is None:
        raise UnsupportedModel(f"{file.name}: nothing says what pictures it takes: declare that, --preprocess YAML")
    if file.suffix == ".onnx":
        return _folded(file, declaration)
    return _torch(file, None, declaration, trust=trust)


def _torch(file: Path, signature: Signature | None, declaration: Declaration | None, *, trust: bool) -> Subject:
    from tensign_converters.networks.module import pictures_subject, tensors_subject
    from tensign_converters.networks.network import read_network

    said = declaration or Declaration()
    network = read_network(file, trust=trust, architecture=said.architecture or "", arguments=said.arguments)
    if declaration is not None:
        return pictures_subject(network, signature, declaration)
    if signature is None:
        raise UnsupportedModel("the model has no signature: tensign sign writes one")
    return tensors_subject(network, signature)


def _folded(file: Path, declaration: Declaration) -> Subject:
    from tensign_converters.onnxfiles.folding import folded

    if declaration.architecture:
        raise InvalidConfig(f"architecture: is for weights alone, and {file.name} is a whole network")
    return folded(file, declaration)


def _from_pytorch(manifest: ModelManifest, declaration: Declaration | None, trust: bool) -> Subject:
    signature = None if declaration and manifest.signature is None else _whole(manifest)
    if trust:
        _own_code(manifest, "pytorch")
    return _torch(_file(manifest, "pytorch"), signature, declaration, trust=trust)


def _from_onnx(manifest: ModelManifest, declaration: Declaration | None, trust: bool) -> Subject:
    if declaration is None:
        raise UnsupportedModel("needs no conversion, it is served as it is; --preprocess YAML gives it pictures")
    return _folded(_file(manifest, "onnx"), declaration)


def _from_sklearn(manifest: ModelManifest, declaration: Declaration | None, trust: bool) -> Subject:
    from tensign_converters.tables.tabular import read_tabular

    if declaration is not None:
        raise InvalidConfig("--preprocess: is of pictures, and a scikit-learn model takes columns")
    return read_tabular(manifest, trust=trust).subject()


def _from_fastai(manifest: ModelManifest, declaration: Declaration | None, trust: bool) -> Subject:
    if declaration is not None:
        raise InvalidConfig("--preprocess: a Learner says itself how its pictures are prepared")
    return _learner(manifest, _whole(manifest), trust=trust)


def _whole(manifest: ModelManifest) -> Signature:
    signature = Signature.parse(manifest.signature)
    if not signature.outputs:
        raise UnsupportedModel("the signature has no outputs: tensign sign MODEL --input ... --output ... writes them")
    return signature


def _own_code(manifest: ModelManifest, flavor: str) -> None:
    """What MLflow kept of the model's code comes first on the path. Raises UnsupportedModel for a place outside of it."""
    if code := manifest.flavors[flavor].get("code"):
        inside(manifest, code, directory=True)
        add_code(manifest.path, manifest.flavors[flavor])


def _file(manifest: ModelManifest, flavor: str) -> Path:
    """The file of that flavor. Raises UnsupportedModel."""
    choice = next(choice for choice in choices(manifest) if choice.flavor == flavor)
    if choice.file is None:
        raise UnsupportedModel(f"{flavor}: {choice.refused}")
    return choice.file


_FLAVORS = {"fastai": _from_fastai, "pytorch": _from_pytorch, "sklearn": _from_sklearn, "onnx": _from_onnx}


def _learner(manifest: ModelManifest, signature: Signature, *, trust: bool) -> Subject:
    from tensign_converters.learners.learned import check, learn

    size = picture_size(signature)
    learned = learn(read_learner(manifest, trust=trust), size)
    check(learned, signature)
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
    from tensign_converters.learners import exported, learner

    flavor = manifest.flavors["fastai"]
    file = inside(manifest, flavor.get("data", "model.fastai"))
    written = str(flavor.get("fastai_version", "an unknown version"))[:40]
    if not trust:
        return _read(file, written)
    _own_code(manifest, "fastai")
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
    from tensign_converters.learners import exported, learner

    try:
        return exported.read_export(file, learner.versions(written))
    except UntrustedModel as error:
        raise UntrustedModel(
            f"{file.name}: read as data, without running its code: {error}. If you trust where it comes from, say so:"
            " --trust loads it, which runs whatever code it holds, in a confined process of its own."
        ) from None
