"""Recording -> Learned: network, preprocessing and head, ready to be exported and proved."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tensign.errors import UnsupportedModel
from tensign.proof.parity import Answers
from tensign.proof.samples import Sample
from tensign.signature import Signature
from tensign_converters.learners.heads import activated, head
from tensign_converters.learners.recording import Answered, Picture, Recording
from tensign_converters.learners.transforms import COLOUR, MASK, Preprocessing, preprocessing
from tensign_converters.subject import Head, Subject

NOT_LOADED = "the network, rebuilt from data, in torch on the recovered preprocessing; the original Learner was not loaded"
UNSEEN = ("fastai's own pictures before the network: its Learner was not loaded, the preprocessing was recovered as data",)
_OPEN_SIDE = 64  # of an example picture whose signature leaves height and width open


@dataclass(frozen=True, slots=True)
class Learned:
    """One picture model, taken apart.

    shape: of the output for one row; answers: what conversions are held against; against says whose answers those are,
    unchecked what they cannot show.
    """

    network: nn.Module
    preprocessing: Preprocessing
    head: Head
    shape: tuple[int, ...]
    answers: Callable[[Sequence[Picture]], Answered]
    versions: Mapping[str, str]
    against: str
    unchecked: tuple[str, ...] = ()

    def check(self, signature: Signature) -> None:
        """Raises UnsupportedModel where the signature promises other pictures or another output than the Learner knows."""
        channels, grey = signature.inputs[0].shape[3:], self.preprocessing.kind != COLOUR
        if channels != (() if grey else (3,)):
            wanted = "[-1,H,W]" if grey else "[-1,H,W,3]"
            raise UnsupportedModel(f"a Learner of {self.preprocessing.kind} takes uint8 {wanted}, the signature is {signature}")
        promised = signature.outputs[0].shape[1:]
        if len(promised) == len(self.shape) and all(p in (-1, got) for p, got in zip(promised, self.shape, strict=True)):
            return
        if len(promised) == len(self.shape) == 1 and self.head.labels:
            raise UnsupportedModel(f"the signature promises {promised[0]} classes, the Learner knows {self.shape[0]} labels")
        raise UnsupportedModel(
            f"the signature promises {list(promised)} for each picture, the network gives {list(self.shape)}"
        )

    def subject(self, signature: Signature) -> Subject:
        """What is written and proved under that signature."""
        from tensign_converters.learners.export import export

        (picture,), (output,) = signature.inputs, signature.outputs

        def answers(samples: Sequence[Sample]) -> Answers:
            said = self.answers([sample[picture.name] for sample in samples])
            scores = np.asarray(activated(self.head, torch.from_numpy(said.logits)))
            return Answers({output.name: scores}, said.logits, said.network_input)

        return Subject(
            signature,
            partial(export, self),
            answers,
            self.preprocessing.spec(),
            self.head,
            self.versions,
            self.against,
            self.unchecked,
        )

    def described(self) -> dict[str, str]:
        """{"inputs": "uint8[-1,H,W,3]", "outputs": "float32[-1,n]"} for pictures of the size that the graph takes."""
        shapes = (-1, *self.preprocessing.size, *([3] if self.preprocessing.kind == COLOUR else [])), (-1, *self.shape)
        pictures, answers = (",".join(map(str, shape)) for shape in shapes)
        return {"inputs": f"uint8[{pictures}]", "outputs": f"float32[{answers}]"}


def learn(recording: Recording, size: tuple[int, int]) -> Learned:
    """size: height and width in the signature. Raises UnsupportedModel for what no step of ours does, UntrustedModel for
    what could be found out by running the original."""
    if recording.inputs != 1:
        raise UnsupportedModel(f"the Learner takes {recording.inputs} inputs; this version converts those of one picture")
    kind = recording.types[0] if recording.types else ""
    steps = preprocessing(kind, recording.item_transforms, recording.batch_transforms, size)
    network = recording.network.eval()
    shape = output_shape(network, steps)
    learned = rebuilt(network, steps, head(recording, shape), shape[1:], recording.versions)
    if recording.answers is None:
        return replace(learned, against=NOT_LOADED, unchecked=UNSEEN)
    return replace(learned, answers=recording.answers, against="the original Learner")


def rebuilt(
    network: nn.Module, steps: Preprocessing, head: Head, shape: tuple[int, ...], versions: Mapping[str, str]
) -> Learned:
    """A model of these parts, held against its own network in torch."""
    spec = steps.spec()

    def prepared(picture: Picture) -> npt.NDArray[np.uint8]:
        if isinstance(picture, Path):
            return spec.encoded([picture.read_bytes()], height=-1, width=-1)
        return spec.arrays(picture[None])

    def answers(pictures: Sequence[Picture]) -> Answered:
        with torch.inference_mode():
            given = network_input(steps, torch.from_numpy(np.concatenate([prepared(picture) for picture in pictures])))
            return Answered(np.asarray(network(given), np.float32), given.numpy())

    return Learned(network, steps, head, shape, answers, versions, "the network in torch, on the declared preprocessing")


def example(steps: Preprocessing, rows: int) -> Tensor:
    """uint8 zeros as they reach the graph: [rows,h,w,3] or [rows,h,w]; a side that is open has some length."""
    height, width = (side if side != -1 else some for side, some in zip(steps.size, (_OPEN_SIDE, 2 * _OPEN_SIDE), strict=True))
    return torch.zeros(rows, height, width, *([3] if steps.kind == COLOUR else []), dtype=torch.uint8)


def network_input(steps: Preprocessing, pixels: Tensor) -> Tensor:
    """uint8 pixels as they reach the graph -> what the network gets."""
    x = (pixels.permute(0, 3, 1, 2) if steps.kind == COLOUR else pixels.unsqueeze(1)).float()
    for step in steps.graph_steps:
        x = step(x)
    return x.squeeze(1).long() if steps.kind == MASK else x


def output_shape(network: nn.Module, steps: Preprocessing) -> tuple[int, ...]:
    """[2,...], found by running it. Raises UnsupportedModel for a network that pictures of this size do not suit."""
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            output = network(network_input(steps, example(steps, 2)))
    except Exception as error:  # a network's forward raises anything
        reason = " ".join(str(error).split())[:300]
        height, width = steps.network_size
        raise UnsupportedModel(f"the network fails on a picture of {height}x{width} pixels: {reason}") from error
    if not isinstance(output, Tensor) or not output.is_floating_point():
        raise UnsupportedModel("the network gives several tensors, or other than floats; this version converts those of one")
    return tuple(output.shape)
