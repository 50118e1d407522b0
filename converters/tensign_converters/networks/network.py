"""A file of a torch network, of any kind, as a module. Kinds are told by content; what is read as data runs no code of it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from tensign.errors import InvalidConfig, TensignError, UnsupportedModel, UntrustedModel
from tensign.specs import TensorSpec
from tensign_converters.networks import loaded
from tensign_converters.networks.anyrows import any_rows
from tensign_converters.networks.architecture import fill
from tensign_converters.networks.pt2 import is_pt2, read_pt2
from tensign_converters.networks.statedict import read_safetensors, state_dict
from tensign_converters.pickles.archive import read_archive
from tensign_converters.pickles.members import Members, listed
from tensign_converters.pickles.plain import Plain
from tensign_converters.pickles.rebuild import Rebuilder

_TRUST = "If you trust where it comes from, say so: --trust loads it, which runs whatever code it holds, in a confined process."
_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Network:
    """A network that was read. module: in evaluation mode, on the CPU, tensors in and a tensor or several out.

    kind: "pickle", "pt2", "torchscript" or "state dict"; loaded: whether torch loaded the original, or it was made anew from
    its data; inputs and outputs: where the file says them, which only pt2 does; an axis of any length is -1.
    """

    module: nn.Module
    kind: str
    loaded: bool
    versions: Mapping[str, str]
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    notes: tuple[str, ...] = ()

    def exportable(self, *examples: Tensor) -> nn.Module:
        """The module that is given to torch.onnx.export; examples: two rows or more, as it takes them.

        Raises UnsupportedModel for a TorchScript that torch.export has no counterpart for.
        """
        return loaded.unscripted(self.module, examples) if self.kind == "torchscript" else self.module


def read_network(file: Path, *, trust: bool, architecture: str = "", arguments: Mapping[str, Any] = _NONE) -> Network:
    """Reads it as data, which is all that an exported program or a state dict takes. With `trust` a pickled original is
    loaded, and read as data where it cannot be, and so is an exported program that calls for code of its own.

    architecture: "torchvision.NAME" or "timm.NAME", for a state dict, with its constructor's arguments. Raises UntrustedModel
    where only the file's own code could say what the network is, UnsupportedModel for what is broken, has no counterpart or
    lacks a declaration, InvalidConfig for an architecture of what is a whole network.
    """
    try:
        return _read(file, trust, architecture, arguments)
    except FileNotFoundError:
        raise UnsupportedModel(f"{file.name}: the MLmodel names it, and it is not there") from None
    except UntrustedModel as error:
        raise UntrustedModel(f"{file.name}: read as data, without running its code: {_bare(file, error)}. {_TRUST}") from None
    except UnsupportedModel as error:
        raise UnsupportedModel(f"{file.name}: {_bare(file, error)}") from error


def _read(file: Path, trust: bool, architecture: str, arguments: Mapping[str, Any]) -> Network:
    network = _of_kind(_kind(file), file, trust, architecture, arguments)
    if architecture and network.kind != "state dict":
        raise InvalidConfig(f"architecture: is for weights alone, and {file.name} is a whole network")
    return network


def _of_kind(kind: str, file: Path, trust: bool, architecture: str, arguments: Mapping[str, Any]) -> Network:
    if kind == "pt2":
        return _program(file, trust)
    if kind == "torchscript":
        if not trust:
            raise UntrustedModel("a TorchScript archive is a program of its own, which is not read as data")
        return Network(loaded.load_scripted(file), kind, True, _versions())
    if kind == "safetensors":
        return _filled(read_safetensors(file), architecture, arguments)
    try:
        root = read_archive(file)
        tensors = state_dict(root)
    except UnsupportedModel:
        if not trust:
            raise
        root = tensors = None
    if tensors is not None:
        return _filled(tensors, architecture, arguments)
    return _pickled(file, root) if trust else _rebuilt(root)


def _kind(file: Path) -> str:
    with file.open("rb") as stream:
        head = stream.read(9)
        size = stream.seek(0, 2)
    if head.startswith(b"PK\x03\x04"):
        try:
            names = listed(file)
        except UnsupportedModel:  # a broken zip; its reader says so
            return "pickle"
        scripted = any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in names)
        return "pt2" if is_pt2(names) else "torchscript" if scripted else "pickle"
    if len(head) == 9 and head[8:] == b"{" and struct.unpack("<Q", head[:8])[0] <= size - 8:
        return "safetensors"
    return "pickle"


def _program(file: Path, trust: bool) -> Network:
    try:
        program, inputs, outputs, written = read_pt2(Members(file))
    except UntrustedModel:
        if not trust:
            raise
        return Network(loaded.load_program(file), "pt2", True, _versions())
    versions = {**_versions(), "written_by_torch": written}
    return Network(program, "pt2", False, versions, *any_rows(program, inputs, outputs))


def _pickled(file: Path, root: Any) -> Network:
    """The original where it can be loaded; else what its data say."""
    try:
        return Network(loaded.load_pickle(file), "pickle", True, _versions())
    except UnsupportedModel as not_loaded:
        try:
            return replace(_rebuilt(root), notes=(f"read as data: {not_loaded}",))
        except TensignError as not_read:
            if "__main__." in str(not_read):  # which the other error calls by the name of this process
                raise
            raise UnsupportedModel(f"{not_loaded}; read as data: {not_read}") from None


def _rebuilt(root: Any) -> Network:
    return Network(Rebuilder(Plain()).network(root), "pickle", False, _versions())


def _filled(tensors: Mapping[str, Tensor], architecture: str, arguments: Mapping[str, Any]) -> Network:
    library = architecture.partition(".")[0]
    return Network(fill(tensors, architecture, arguments), "state dict", False, _versions(library))


def _versions(*libraries: str) -> dict[str, str]:
    return {"torch": str(torch.__version__), **{library: version(library) for library in libraries}}


def _bare(file: Path, error: TensignError) -> str:
    return str(error).removeprefix(f"{file.name}: ")
