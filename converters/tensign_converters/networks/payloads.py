"""An exported program's tensors: bytes beside a description, or a dict that torch.save wrote. Read when asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tensign.errors import UnsupportedModel, UntrustedModel
from tensign_converters.networks.literals import DTYPES, field
from tensign_converters.networks.statedict import pairs
from tensign_converters.pickles.archive import Storage, read_zipped
from tensign_converters.pickles.members import Members
from tensign_converters.pickles.plain import described
from tensign_converters.pickles.records import Record
from tensign_converters.pickles.tensors import is_tensor, strided, tensor

MAX_JSON = 64 << 20  # bytes; a ResNet-50's program has half a megabyte
Payloads = Iterator[tuple[str, Callable[[], Tensor]]]  # by the dotted name that the original had


def described_in(members: Members, folder: str, config: str) -> Payloads:
    """Those of a folder. Raises UnsupportedModel where one is not there or is no tensor, UntrustedModel for an object of the
    file's own: here, or once it is asked for."""
    storages: dict[str, Storage] = {}
    for name, meta in field(read_json(members, folder + config), "config", dict).items():
        yield name, partial(_described, members, folder, storages, name, meta)


def pickled_in(members: Members, file: str) -> Payloads:
    """Those of a dict that torch.save wrote; raises as `described_in`."""
    content = members.read(file, members.size(file) or 0)
    for name, value in pairs(read_zipped(content)) if content else []:
        yield name, partial(_recorded, name, value)


def read_json(members: Members, name: str) -> Any:
    """A member as JSON. Raises UnsupportedModel for what is none, and for two fields of one name."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) != len(pairs):
            raise ValueError("two fields of one name")
        return found

    try:
        return json.loads(members.read(name, MAX_JSON), object_pairs_hook=once)
    except ValueError as error:  # json's, and that of bytes that are no UTF-8
        raise UnsupportedModel(f"{name[:100]!a} is no JSON: {str(error)[:100]}") from None


def dtype(code: Any) -> str:
    """torch's name of a type. Raises UnsupportedModel for one that ONNX does not have."""
    if type(code) is not int or code not in DTYPES:
        raise UnsupportedModel(f"a tensor of a type that is not known: {str(code)[:50]!a}")
    return DTYPES[code]


def _described(members: Members, folder: str, storages: dict[str, Storage], name: str, meta: Any) -> Tensor:
    file = field(meta, "path_name", str)
    if not file.startswith(("weight_", "tensor_")):
        raise UntrustedModel(f"{name[:100]!a} is no tensor but an object of the file's own, {file[:100]!a}")
    if field(meta, "use_pickle", bool):
        return _recorded(name, read_zipped(members.read(folder + file, members.size(folder + file) or 0)))
    said = field(meta, "tensor_meta", dict)
    kind = dtype(said.get("dtype"))
    if file not in storages:
        size, width = members.size(folder + file), getattr(torch, kind).itemsize
        if size is None or size % width:
            has = "is not there" if size is None else f"has {size} bytes"
            raise UnsupportedModel(f"{file[:100]!a}: numbers of {kind} are named, the member {has}")
        storages[file] = Storage(kind, size // width, partial(members.read, folder + file, size))
    if storages[file].dtype != kind:
        raise UnsupportedModel(f"{file[:100]!a} is {storages[file].dtype} here and {kind} there")
    sizes, strides = (tuple(_number(each) for each in field(said, part, list)) for part in ("sizes", "strides"))
    made = strided(storages[file], _number(said.get("storage_offset")), sizes, strides)
    return nn.Parameter(made, requires_grad=False) if meta.get("is_param") is True else made


def _number(value: Any) -> Any:
    """Of {"as_int": 3}; whether it is a count is seen later."""
    return value.get("as_int") if isinstance(value, dict) else None


def _recorded(name: str, value: Any) -> Tensor:
    if not is_tensor(value):
        kind = described(value)[:100] if isinstance(value, Record) else type(value).__name__
        raise UntrustedModel(f"{name[:100]!a} is no tensor but {kind}")
    made = tensor(value)
    return made.requires_grad_(False) if made.is_floating_point() else made
