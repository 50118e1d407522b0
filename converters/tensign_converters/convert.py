"""One conversion, start to end: read, export, prove, write; the target appears whole or not at all."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from tensign.choice import SERVED_FLAVORS, refusal
from tensign.errors import UnsupportedModel
from tensign.mlmodel import read_mlmodel
from tensign.signature import Signature
from tensign_converters import confined
from tensign_converters.workshop import workshop

ANY_SIZE = (224, 224)  # of pictures, where a Learner may tell its own


def convert(source: Path, target: Path, *, trust: bool, weights: str = "fp32") -> str:
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
    picture_size(signature)
    with workshop(target) as made:
        _check_torch()
        print(f"converting {source} into {target}: about 10 s", file=sys.stderr, flush=True)
        job = {
            "do": "convert",
            "source": str(source.resolve()),
            "target": str(made.resolve()),
            "trust": trust,
            "weights": weights,
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
    from tensign_converters.source import read_source

    learned = learn(read_source(read_mlmodel(source), trust=trust), ANY_SIZE)
    if not learned.preprocessing.item_steps:
        raise UnsupportedModel(f"{source}: the Learner resizes nothing, so its signature tells the size: give --input")
    return learned.described(learned.preprocessing.size)


def _check_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise UnsupportedModel("converting needs torch and fastai: pip install 'tensign[cpu,convert]'")


def convert_here(source: str, target: str, *, trust: bool, weights: str, confinement: str) -> dict[str, str]:
    """The conversion itself, in the process that is shut in: reads `source`, writes into the directory `target`.

    confinement: what holds of this process, kept with the model. Raises as `convert` does.
    """
    from tensign_converters.learned import learn
    from tensign_converters.package import write_model
    from tensign_converters.source import read_source

    manifest = read_mlmodel(source)
    signature = Signature.parse(manifest.signature)
    size = picture_size(signature)
    learned = learn(read_source(manifest, trust=trust), size)
    learned.check(signature)
    origin = {"sha256": manifest.digest, "flavor": "fastai", "confinement": confinement}
    report = write_model(learned, Path(target), size=size, weights=weights, source=manifest.document, origin=origin)
    return {"report": report}


def picture_size(signature: Signature) -> tuple[int, int]:
    """Height and width of the signature's one uint8 [-1,H,W,3] or [-1,H,W] input."""
    if len(signature.inputs) == len(signature.outputs) == 1:
        spec = signature.inputs[0]
        pictures = len(spec.shape) in (3, 4) and spec.shape[3:] in ((), (3,))
        if spec.dtype == "uint8" and pictures and -1 not in spec.shape[1:3]:
            return spec.shape[1], spec.shape[2]
    raise UnsupportedModel(
        f"wanted a signature of one input uint8 [-1,H,W,3] or, grey, [-1,H,W], and one output, got {signature}"
    )
