"""One conversion, start to end: read, export, prove, write; the target appears whole or not at all."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from tensign.choice import SERVED_FLAVORS, refusal
from tensign.conversion import CROPS
from tensign.errors import UnsupportedModel
from tensign.mlmodel import read_mlmodel
from tensign.signature import Signature
from tensign_converters import confined
from tensign_converters.workshop import workshop

ANY_SIZE = (224, 224)  # of pictures, where a Learner may tell its own


def convert(source: Path, target: Path, *, trust: bool, crops: int = CROPS) -> str:
    """Converts a fastai MLmodel directory; gives a report of a few lines.

    Its file is read as data, and with `trust` loaded, which runs its code. Raises UntrustedModel where only that code could
    say what the network is and `trust` is False, UnsupportedModel for what has no counterpart, ParityFailed for what predicts
    something else afterwards, FileExistsError where the target exists.
    """
    manifest = read_mlmodel(source)
    if any(flavor in manifest.flavors for flavor in SERVED_FLAVORS):
        raise UnsupportedModel(f"{source}: needs no conversion, it is served as it is")
    if advice := refusal(manifest):
        raise UnsupportedModel(f"{source}: {advice}")
    signature = Signature.parse(manifest.signature)
    with workshop(target) as made:
        _check_torch()
        print(f"converting {source} into {target}: about 10 s", file=sys.stderr, flush=True)
        job = {
            "do": "convert",
            "source": str(source.resolve()),
            "target": str(made.resolve()),
            "trust": trust,
            "crops": crops,
        }
        report = confined.run(job, source.resolve(), made.resolve())["report"]
    return f"{target}: {signature}\n{report}"


def describe(source: Path, *, trust: bool) -> dict[str, str]:
    """{"inputs": "uint8[-1,H,W,3]", "outputs": "float32[-1,n]"}: the pictures a Learner works on, what it answers to one.

    Raises what `convert` raises, and UnsupportedModel where the Learner resizes nothing.
    """
    manifest = read_mlmodel(source)
    if advice := refusal(manifest):
        raise UnsupportedModel(f"{source}: {advice}")
    _check_torch()
    job = {"do": "describe", "source": str(source.resolve()), "trust": trust}
    found = confined.run(job, source.resolve())
    return {part: str(found[part]) for part in ("inputs", "outputs")}


def describe_here(source: str, *, trust: bool, confinement: str) -> dict[str, str]:
    """The same, in the process that is shut in."""
    from tensign_converters.learned import learn
    from tensign_converters.source import read_learner

    learned = learn(read_learner(read_mlmodel(source), trust=trust), ANY_SIZE)
    if not learned.preprocessing.item_steps:
        raise UnsupportedModel(f"{source}: the Learner resizes nothing, so its signature tells the size: give --input")
    return learned.described()


def _check_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise UnsupportedModel("converting needs torch and fastai: pip install 'tensign[cpu,convert]'")


def convert_here(source: str, target: str, *, trust: bool, crops: int, confinement: str) -> dict[str, str]:
    """The conversion itself, in the process that is shut in: reads `source`, writes into the directory `target`.

    confinement: what holds of this process, kept with the model. Raises as `convert` does.
    """
    from tensign_converters.package import write_model
    from tensign_converters.source import read_subject

    manifest = read_mlmodel(source)
    flavor, subject = read_subject(manifest, trust=trust)
    origin = {"sha256": manifest.digest, "flavor": flavor, "confinement": confinement}
    return {"report": write_model(subject, Path(target), origin=origin, source=manifest, crops=crops)}
