"""One conversion, start to end: read, export, prove, write; the target appears whole or not at all."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from tensign.choice import refusal
from tensign.conversion import CROPS
from tensign.errors import InvalidConfig, UnsupportedModel
from tensign.mlmodel import read_mlmodel
from tensign.proof import report
from tensign.proof.record import Record
from tensign.signature import Signature
from tensign_converters import confined
from tensign_converters.workshop import workshop

ANY_SIZE = (224, 224)  # of pictures, where a Learner may tell its own


def convert(source: Path, target: Path, *, trust: bool, crops: int = CROPS, preprocess: Path | None = None) -> str:
    """Converts an MLmodel directory, or a bare file of a network; gives a report of a few lines.

    preprocess: a YAML file that declares what pictures the network takes. The model is read as data, and with `trust` loaded,
    which runs its code. Raises UntrustedModel where only that code could say what the network is and `trust` is False,
    UnsupportedModel for what has no counterpart, InvalidConfig for a declaration that does not fit, ParityFailed for what
    predicts something else afterwards, FileExistsError where the target exists.
    """
    if not source.is_file():
        _check(source, declared=preprocess is not None)
    with workshop(target) as made:
        _check_torch()
        print(f"converting {source} into {target}: about 10 s", file=sys.stderr, flush=True)
        job = {
            "do": "convert",
            "source": str(source.resolve()),
            "target": str(made.resolve()),
            "trust": trust,
            "crops": crops,
            "preprocess": str(preprocess.resolve()) if preprocess else None,
        }
        said = confined.run(job, _readable(source, preprocess), made.resolve())["report"]
        draw(made)
    return f"{target}: {Signature.load(target)}\n{said}"


def _check(source: Path, *, declared: bool) -> None:
    """What the MLmodel alone tells, before anything heavy starts."""
    manifest = read_mlmodel(source)
    if "tensign" in manifest.flavors or (not declared and "onnx" in manifest.flavors):
        raise UnsupportedModel(f"{source}: needs no conversion, it is served as it is")
    if advice := refusal(manifest):
        raise UnsupportedModel(f"{source}: {advice}")
    Signature.parse(manifest.signature)


def _readable(source: Path, preprocess: Path | None) -> list[Path]:
    """What the confined process may read: of an ONNX file its folder too, where its external data lie."""
    place = source.resolve()
    places = [place.parent if place.suffix == ".onnx" and place.is_file() else place]
    return [*places, preprocess.resolve().parent] if preprocess else places


def draw(made: Path) -> None:
    """The report as a page, where matplotlib is; that keeps a cache in the user's folder, so that it is drawn out here."""
    try:
        report.check()
    except InvalidConfig:
        return
    (made / report.FILE).write_text(report.page(made, Record.read(made)[0]), encoding="utf-8")


def describe(source: Path, *, trust: bool) -> dict[str, str]:
    """{"inputs": "uint8[-1,H,W,3]", "outputs": "float32[-1,n]"}: the pictures a Learner works on, what it answers to one.

    Raises what `convert` raises, and UnsupportedModel where the Learner resizes nothing.
    """
    if "fastai" not in read_mlmodel(source).flavors:
        raise UnsupportedModel(f"{source}: only a Learner tells its signature; give --input and --output")
    _check_torch()
    job = {"do": "describe", "source": str(source.resolve()), "trust": trust}
    found = confined.run(job, [source.resolve()])
    return {part: str(found[part]) for part in ("inputs", "outputs")}


def describe_here(source: str, *, trust: bool, confinement: str) -> dict[str, str]:
    """The same, in the process that is shut in."""
    from tensign_converters.learners.learned import learn
    from tensign_converters.source import read_learner

    learned = learn(read_learner(read_mlmodel(source), trust=trust), ANY_SIZE)
    if not learned.preprocessing.item_steps:
        raise UnsupportedModel(f"{source}: the Learner resizes nothing, so its signature tells the size: give --input")
    return learned.described()


def _check_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise UnsupportedModel("converting needs torch and fastai: pip install 'tensign[cpu,convert]'")


def convert_here(
    source: str, target: str, *, trust: bool, crops: int, preprocess: str | None, confinement: str
) -> dict[str, str]:
    """The conversion itself, in the process that is shut in: reads `source`, writes into the directory `target`.

    confinement: what holds of this process, kept with the model. Raises as `convert` does.
    """
    from tensign_converters.declared.declaration import Declaration
    from tensign_converters.package import write_model
    from tensign_converters.source import read_source

    declaration = Declaration.read(Path(preprocess)) if preprocess else None
    found = read_source(Path(source), declaration, trust=trust)
    origin = {"sha256": found.digest, "flavor": found.flavor, "confinement": confinement}
    return {"report": write_model(found.subject, Path(target), origin=origin, source=found.manifest, crops=crops)}
