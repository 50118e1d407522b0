"""A torch network, with declared pictures or with the tensors of its signature -> Subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tensign.errors import UnsupportedModel
from tensign.proof.parity import Answers
from tensign.proof.samples import Sample
from tensign.signature import Signature
from tensign.specs import Spec, TensorSpec, tensor_specs
from tensign_converters.declared.declaration import Declaration, size_hint
from tensign_converters.declared.scores import check_logits
from tensign_converters.graph import write
from tensign_converters.networks.network import Network
from tensign_converters.networks.order import Ordered, Sole, given_order, taken_order
from tensign_converters.pictures.model import output_shape, rebuilt
from tensign_converters.pictures.preprocessing import COLOUR, GREY, Preprocessing, example, network_input
from tensign_converters.subject import Head, Subject

_SOME_LENGTH = 64  # of an example's axis that stays open


def tensors_subject(network: Network, signature: Signature) -> Subject:
    """What its signature says goes in and comes out, tensors as they are. Raises UnsupportedModel."""
    inputs, outputs = tensor_specs(signature.inputs), tensor_specs(signature.outputs)
    if not inputs or not outputs or signature.params:
        raise UnsupportedModel(f"wanted a signature of tensors, outputs too, and no params, got {signature}")
    taken, given = taken_order(network.module, network.inputs, inputs), given_order(network.outputs, outputs)
    names, examples = [spec.name for spec in outputs], {spec.name: _example(spec) for spec in inputs}
    original = Ordered(network.module, taken, given, names).eval()

    def answers(samples: Sequence[Sample]) -> Answers:
        columns = [torch.from_numpy(np.stack([sample[spec.name] for sample in samples])) for spec in inputs]
        with torch.no_grad():
            said = original(*columns)
        return Answers({name: np.asarray(tensor) for name, tensor in zip(names, said, strict=True)})

    def written(target: Path) -> None:
        tensors = [example for example, _ in examples.values()]
        module = network.exportable(*(tensors[index] for index in taken))
        write(Ordered(module, taken, given, names), examples, names, target)

    return Subject(signature, written, answers, None, Head(), network.versions, _against(network), _unchecked(network))


def _against(network: Network) -> str:
    how = {"pt2": "the exported program", "torchscript": "the TorchScript", "state dict": "the architecture with its weights"}
    return f"{how.get(network.kind, 'the original module' if network.loaded else 'the network, rebuilt from data')}, in torch"


def _unchecked(network: Network) -> tuple[str, ...]:
    rebuilt_from_data = network.kind == "pickle" and not network.loaded
    return (*network.notes, *["the pickle's own code: it did not run"] * rebuilt_from_data)


def pictures_subject(network: Network, signature: Signature | None, declaration: Declaration) -> Subject:
    """Pictures in, as declared; signature: the network's own, where it has one, which names the tensors and their sizes.

    Raises UnsupportedModel where the network does not take such pictures, InvalidConfig where it ends in what is declared.
    """
    kind = COLOUR if declaration.mode == "RGB" else GREY
    taken, output = _named(signature)
    if signature is not None:
        taken_order(network.module, network.inputs, tensor_specs(signature.inputs))
        given_order(network.outputs, tensor_specs(signature.outputs))
    size = _network_size(declaration, taken)
    host = declaration.spec()
    steps = Preprocessing(kind, host.steps, declaration.graph_steps(), size, size, host.exif_orientation)

    def placed(module: nn.Module) -> nn.Module:
        return Sole(ChannelsLast(module) if declaration.layout == "NHWC" else module).eval()

    original = placed(network.module)
    exportable = placed(network.exportable(network_input(steps, example(steps, 2))))
    shape = output_shape(original, steps)
    head = declaration.head(shape)
    check_logits(head.activation, _of_noise(original, steps))
    model = rebuilt(original, steps, head, shape[1:], network.versions)
    against = f"{_against(network)}, on the declared preprocessing"
    model = replace(model, network=exportable, against=against, unchecked=_unchecked(network))
    sides = declaration.input if host.steps else size
    axes = (-1, *sides, *([3] if kind == COLOUR else []))
    pictures = TensorSpec(taken.name, np.dtype(np.uint8), axes, taken.named)
    scores = TensorSpec(output.name, np.dtype(np.float32), (-1, *_open(shape[1:], size)), output.named)
    return replace(model.subject(Signature((pictures,), (scores,))), preprocess=host)


def _of_noise(network: nn.Module, steps: Preprocessing) -> npt.NDArray[Any]:
    """What it gives to two pictures."""
    noise = np.random.default_rng(0).integers(0, 256, tuple(example(steps, 2).shape), np.uint8)
    with torch.no_grad():
        return np.asarray(network(network_input(steps, torch.from_numpy(noise))))


class ChannelsLast(nn.Module):
    """A network that wants [B,h,w,C], given [B,C,h,w]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        return self.network(x.permute(0, 2, 3, 1))


def _named(signature: Signature | None) -> tuple[Spec, Spec]:
    """The one input and output; without a signature they have no names."""
    if signature is None:
        dtype = np.dtype(np.float32)
        return TensorSpec("input-0", dtype, (-1, 3, -1, -1), False), TensorSpec("output-0", dtype, (-1,), False)
    if len(signature.inputs) != 1 or len(signature.outputs) != 1:
        raise UnsupportedModel(
            f"a declared preprocessing is of one picture in and one tensor out, the signature is {signature}"
        )
    return signature.inputs[0], signature.outputs[0]


def _network_size(declaration: Declaration, taken: Spec) -> tuple[int, int]:
    """Height and width of what reaches the network: as the steps leave it, else as the network's own input says."""
    own = taken.shape[2:4] if declaration.layout == "NCHW" else taken.shape[1:3]
    if len(taken.shape) != 4:
        raise UnsupportedModel(f'input "{taken.name}": pictures are declared, which need {declaration.layout}, got {taken}')
    sides = []
    for declared, said in zip(declaration.network_size, own, strict=True):
        if -1 not in (declared, said) and declared != said:
            ends = "x".join(map(str, declaration.network_size))
            hint = size_hint(*own) if -1 not in own else ""
            raise UnsupportedModel(f'input "{taken.name}": the declared steps end in {ends} pixels, it is {taken}{hint}')
        sides.append(max(declared, said))
    return sides[0], sides[1]


def _open(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[int, ...]:
    """The output's axes for one row; those of a map of a picture of any size are open."""
    return (*shape[:-2], -1, -1) if -1 in size and len(shape) == 3 else shape


def _example(spec: TensorSpec) -> tuple[Tensor, dict[int, str]]:
    """Two rows of zeros, and the names of its open axes."""
    if spec.dtype == object or spec.shape[0] != -1:
        raise UnsupportedModel(f'input "{spec.name}": wanted any number of rows of numbers, got {spec}')
    axes = {axis: f"axis_{axis}" for axis, length in enumerate(spec.shape) if length == -1 and axis}
    shape = [_SOME_LENGTH * axis if axis in axes else length for axis, length in enumerate(spec.shape)]
    return torch.from_numpy(np.zeros([2, *shape[1:]], spec.dtype)), axes
