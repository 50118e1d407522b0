"""PictureModel: network, preprocessing and head, ready to be exported and proved."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from tensign_converters.pictures.activation import activated
from tensign_converters.pictures.picture import Answered, Picture
from tensign_converters.pictures.preprocessing import COLOUR, Preprocessing, example, network_input
from tensign_converters.subject import Head, Subject


@dataclass(frozen=True, slots=True)
class PictureModel:
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

    def subject(self, signature: Signature) -> Subject:
        """What is written and proved under that signature."""
        from tensign_converters.pictures.export import export

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


def rebuilt(
    network: nn.Module, steps: Preprocessing, head: Head, shape: tuple[int, ...], versions: Mapping[str, str]
) -> PictureModel:
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

    return PictureModel(network, steps, head, shape, answers, versions, "the network in torch, on the declared preprocessing")


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
