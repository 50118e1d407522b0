"""One conversion, start to end: read, export, prove, write; the target appears whole or not at all."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensign.choice import refusal
from tensign.conversion import CROPS
from tensign.errors import InvalidConfig, ModelNotFound, UnsupportedModel
from tensign.mlmodel import read_mlmodel
from tensign.proof import report
from tensign.proof.record import Record
from tensign.signature import Signature
from tensign_converters import confined
from tensign_converters.declared.declaration import Declaration, plain
from tensign_converters.precision.asked import check_variants
from tensign_converters.workshop import workshop

ANY_SIZE = (224, 224)  # of pictures, where a Learner may tell its own


def convert(
    source: Path,
    target: Path,
    *,
    trust: bool,
    crops: int = CROPS,
    preprocess: Path | None = None,
    variants: Sequence[str] = (),
    calibrate: Path | None = None,
) -> str:
    """Converts an MLmodel directory, or a bare file of a network; gives a report of a few lines.

    preprocess: a YAML file that declares what pictures the network takes; variants: "fp16", "int8", beside fp32; calibrate: a
    folder of pictures for the latter. The model is read as data, and with `trust` loaded, which runs its code. Raises
    UntrustedModel where only that code could say what the network is and `trust` is False, UnsupportedModel for what has no
    counterpart, InvalidConfig for a declaration, variant or calibration that does not fit, ParityFailed for what predicts
    something else afterwards, FileExistsError where the target exists.
    """
    if not source.exists():
        raise ModelNotFound(
            f"{source}: no such file or directory; give a directory that MLflow wrote, or the file of a network"
        )
    pictured = preprocess is not None
    if not source.is_file():
        pictured = _check(source, declared=pictured)
    check_variants(variants, calibrate, pictures=pictured)
    declared = {"called": preprocess.name, "document": plain(preprocess)} if preprocess else None
    with workshop(target) as made:
        _check_torch()
        print(f"converting {source} into {target}: some ten seconds, a large network a minute", file=sys.stderr, flush=True)
        job = {
            "do": "convert",
            "source": str(source.resolve()),
            "target": str(made.resolve()),
            "name": target.name,
            "trust": trust,
            "crops": crops,
            "declared": declared,
            "variants": list(variants),
            "calibrate": str(calibrate.resolve()) if calibrate else None,
        }
        pictures = [calibrate.resolve()] if calibrate else []
        said = confined.run(job, [*readable(source), *pictures], made.resolve())["report"]
    return f"{target}: {said}"


def _check(source: Path, *, declared: bool) -> bool:
    """What the MLmodel alone tells, before anything heavy starts; gives back whether what it takes can only be pictures."""
    manifest = read_mlmodel(source)
    if "tensign" in manifest.flavors or (not declared and "onnx" in manifest.flavors):
        raise UnsupportedModel(f"{source}: needs no conversion, it is served as it is")
    if advice := refusal(manifest):
        raise UnsupportedModel(f"{source}: {advice}")
    if not declared or manifest.signature is not None:
        Signature.parse(manifest.signature)
    return declared or "fastai" in manifest.flavors


def readable(source: Path) -> list[Path]:
    """What the confined process may read: with an ONNX file its external data, whose names such a process reads first."""
    place = source.resolve()
    if place.suffix != ".onnx" or not place.is_file():
        return [place]
    named = confined.run({"do": "beside", "source": str(place)}, [place])["files"]
    return [place, *(file for name in json.loads(named) if (file := _beside(place, name)))]


def _beside(place: Path, name: str) -> Path | None:
    try:
        file = (place.parent / name).resolve()
        return file if file.is_file() and file.is_relative_to(place.parent) else None
    except (OSError, RuntimeError, ValueError):  # no name that a file could have, or links in a circle
        return None


def beside_here(source: str, *, confinement: str) -> dict[str, str]:
    """{"files": a JSON list of the names of an ONNX file's external data}, in the process that is shut in."""
    from tensign_converters.onnxfiles.file import external_files

    return {"files": json.dumps(external_files(Path(source)))}


def draw(made: Path, name: str) -> None:
    """The report as a page with that name above it, where matplotlib is."""
    try:
        report.check()
    except InvalidConfig:
        return
    (made / report.FILE).write_text(report.page(made, Record.read(made)[0], name=name), encoding="utf-8")


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
        raise UnsupportedModel("converting needs torch: pip install 'tensign[cpu,convert]'")


def convert_here(
    source: str,
    target: str,
    *,
    name: str,
    trust: bool,
    crops: int,
    declared: Mapping[str, Any] | None,
    variants: Sequence[str],
    calibrate: str | None,
    confinement: str,
) -> dict[str, str]:
    """The conversion itself, in the process that is shut in: reads `source`, writes into the directory `target`.

    All that is read again of what was written is read here: a stranger's code may have written it. name: of the directory that
    `target` becomes; declared: the map of a declaration, and what errors call it; confinement: what holds of this process, kept
    with the model. Raises as `convert` does.
    """
    from tensign_converters.package import write_model
    from tensign_converters.source import read_source

    declaration = Declaration.parse(declared["document"], Path(), declared["called"]) if declared else None
    found = read_source(Path(source), declaration, trust=trust)
    origin = {"sha256": found.digest, "flavor": found.flavor, "confinement": confinement}
    made = Path(target)
    said = write_model(
        found.subject,
        made,
        origin=origin,
        source=found.manifest,
        crops=crops,
        variants=variants,
        calibrate=Path(calibrate) if calibrate else None,
    )
    draw(made, name)
    return {"report": f"{Signature.load(made)}\n{said}"}
