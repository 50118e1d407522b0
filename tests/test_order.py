"""Which tensor of a network is which of its signature's."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import tensor
from tensign.errors import UnsupportedModel
from tensign.signature import Signature
from tensign_converters.declared.declaration import Declaration
from tensign_converters.networks.module import pictures_subject, tensors_subject
from tensign_converters.networks.network import Network, read_network


class Crossed(nn.Module):
    def forward(self, y: Tensor, x: Tensor) -> dict[str, Tensor]:
        return {"b": x * 2 + y, "a": x * 1000 - y}


class Paired(nn.Module):
    """Its outputs have no names."""

    def forward(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2 + y, x * 1000 - y


class Whatever(nn.Module):
    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        return given


class Lone(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": x.mean((2, 3))}


def signature(inputs: list[Any], outputs: list[Any]) -> Signature:
    """Of "x" float32 [-1,4] for each letter, or of what is given in full."""
    specs = [
        [tensor("float32", [-1, 4], each) if isinstance(each, str) else each for each in side] for side in (inputs, outputs)
    ]
    return Signature.parse(dict(zip(("inputs", "outputs"), specs, strict=True)))


def answered(network: Network, said: Signature) -> dict[str, float]:
    """To x = 1 and y = 5."""
    given = {spec.name: torch.full((4,), 5.0 if spec.name == "y" else 1.0).numpy() for spec in said.inputs}
    outputs = tensors_subject(network, said).answers([given]).outputs
    return {name: float(array[0, 0]) for name, array in outputs.items()}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return exported(Crossed(), tmp_path_factory.mktemp("program"))


def exported(module: nn.Module, folder: Path) -> Network:
    rows = {0: torch.export.Dim("rows")}
    exported = torch.export.export(module, (torch.rand(2, 4), torch.rand(2, 4)), dynamic_shapes=(rows, rows))
    torch.export.save(exported, folder / "model.pt2")
    return read_network(folder / "model.pt2", trust=False)


def live(module: nn.Module) -> Network:
    return Network(module, "pickle", True, {})


BY_NAME = {"a": 995.0, "b": 7.0}


@pytest.mark.parametrize("inputs", ["xy", "yx"])
@pytest.mark.parametrize("outputs", ["ab", "ba"])
def test_names_decide(program: Network, inputs: str, outputs: str) -> None:
    said = signature([*inputs], [*outputs])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit as a whole
        scripted = torch.jit.script(Crossed())
    for network in (program, live(Crossed()), live(scripted)):
        assert answered(network, said) == BY_NAME


def test_position_decides_where_the_network_has_no_names(tmp_path: Path) -> None:
    assert answered(exported(Paired(), tmp_path), signature(["x", "y"], ["a", "b"])) == {"a": 7.0, "b": 995.0}
    assert answered(live(Whatever()), signature(["x", "y"], ["a", "b"])) == {"a": 1.0, "b": 5.0}


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (["x", "z"], ["a", "b"], "the network takes 2, y, x; the signature has 2, x, z: they need the same names"),
        (["x"], ["a", "b"], "the network takes 2, y, x; the signature has 1, x"),
        (["x", "y"], ["a", "c"], "the network gives 2, b, a; the signature has 2, a, c"),
        (["x", "y"], ["a"], "the network gives 2, b, a; the signature has 1, a"),
        (["x", tensor("int64", [-1, 4], "y")], ["a", "b"], r'takes "y" as float32 \[-1,4\], the signature says "y" is int64'),
        (["x", tensor("float32", [-1, 5], "y")], ["a", "b"], r'takes "y" as float32 \[-1,4\], .* float32 \[-1,5\]'),
        (["x", tensor("float32", [-1, -1], "y")], ["a", "b"], r'takes "y" as float32 \[-1,4\], .* float32 \[-1,-1\]'),
        (["x", tensor("float32", [-1, 4, 1], "y")], ["a", "b"], r'takes "y" as .* float32 \[-1,4,1\]'),
        (["x", "y"], ["a", tensor("float64", [-1, 4], "b")], r'gives "b" as float32 \[-1,4\], .* float64'),
        (["x", "y"], ["a", tensor("float32", [-1, 3], "b")], r'gives "b" as float32 \[-1,4\], .* float32 \[-1,3\]'),
    ],
)
def test_what_contradicts_is_refused_and_both_are_named(
    program: Network, inputs: list[Any], outputs: list[Any], message: str
) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        tensors_subject(program, signature(inputs, outputs))


def test_names_that_a_module_does_not_have_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="the network takes 2, y, x; the signature has 2, x, z"):
        tensors_subject(live(Crossed()), signature(["x", "z"], ["a", "b"]))
    with pytest.raises(UnsupportedModel, match="the network gives 2, b, a; the signature has 2, a, c"):
        answered(live(Crossed()), signature(["x", "y"], ["a", "c"]))


def test_an_open_output_may_promise_less(program: Network) -> None:
    said = signature(["x", "y"], [tensor("float32", [-1, -1], "a"), "b"])
    assert answered(program, said) == BY_NAME


def test_the_only_entry_of_a_dict_is_the_only_output() -> None:
    said = Signature.parse(
        {"inputs": [tensor("float32", [-1, 3, 8, 8], "picture")], "outputs": [tensor("float32", [-1, 3], "scores")]}
    )
    row = {"picture": torch.ones(3, 8, 8).numpy()}
    assert tensors_subject(live(Lone()), said).answers([row]).outputs["scores"].tolist() == [[1.0, 1.0, 1.0]]
    subject = pictures_subject(live(Lone()), said, Declaration())
    assert subject.signature.outputs[0].name == "scores" and subject.signature.outputs[0].shape == (-1, 3)
