"""Recording -> PictureModel, and whether it is what the signature promises."""

from __future__ import annotations

from dataclasses import replace

from tensign.errors import UnsupportedModel
from tensign.signature import Signature
from tensign_converters.learners.heads import head
from tensign_converters.learners.recording import Recording
from tensign_converters.learners.transforms import preprocessing
from tensign_converters.pictures.model import PictureModel, output_shape, rebuilt
from tensign_converters.pictures.preprocessing import COLOUR

NOT_LOADED = "the network, rebuilt from data, in torch on the recovered preprocessing; the original Learner was not loaded"
UNSEEN = ("fastai's own pictures before the network: its Learner was not loaded, the preprocessing was recovered as data",)


def learn(recording: Recording, size: tuple[int, int]) -> PictureModel:
    """size: height and width in the signature. Raises UnsupportedModel for what no step of ours does, UntrustedModel for
    what could be found out by running the original."""
    if recording.inputs != 1:
        raise UnsupportedModel(f"the Learner takes {recording.inputs} inputs; this version converts those of one picture")
    kind = recording.types[0] if recording.types else ""
    steps = preprocessing(kind, recording.item_transforms, recording.batch_transforms, size)
    network = recording.network.eval()
    shape = output_shape(network, steps)
    model = rebuilt(network, steps, head(recording, shape), shape[1:], recording.versions)
    if recording.answers is None:
        return replace(model, against=NOT_LOADED, unchecked=UNSEEN)
    return replace(model, answers=recording.answers, against="the original Learner")


def check(model: PictureModel, signature: Signature) -> None:
    """Raises UnsupportedModel where the signature promises other pictures or another output than the Learner knows."""
    kind = model.preprocessing.kind
    if signature.inputs[0].shape[3:] != ((3,) if kind == COLOUR else ()):
        wanted = "[-1,H,W,3]" if kind == COLOUR else "[-1,H,W]"
        raise UnsupportedModel(f"a Learner of {kind} takes uint8 {wanted}, the signature is {signature}")
    promised = signature.outputs[0].shape[1:]
    if len(promised) == len(model.shape) and all(p in (-1, got) for p, got in zip(promised, model.shape, strict=True)):
        return
    if len(promised) == len(model.shape) == 1 and model.head.labels:
        raise UnsupportedModel(f"the signature promises {promised[0]} classes, the Learner knows {model.shape[0]} labels")
    raise UnsupportedModel(f"the signature promises {list(promised)} for each picture, the network gives {list(model.shape)}")
