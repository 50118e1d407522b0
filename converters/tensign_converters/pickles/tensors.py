"""Records of tensors -> tensors, by code of our own that holds every claimed size against the bytes that are there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tensign.errors import UnsupportedModel
from tensign_converters.pickles.archive import Storage, read_nested
from tensign_converters.pickles.records import Global, Record

_MAX_DIMENSIONS = 16
_PLAIN = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3")
_SUBCLASS = (
    "torch._tensor._rebuild_from_type", "torch._tensor._rebuild_from_type_v2", "torch.tensor._rebuild_from_type",
    "torch.tensor._rebuild_from_type_v2", "fastai.torch_core._rebuild_from_type", "fastai2.torch_core._rebuild_from_type",
)  # fmt: skip
_PARAMETER = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state", "torch.nn.parameter.Parameter")
_NESTED = "torch.storage._load_from_bytes"


def is_tensor(value: Any) -> bool:
    """Whether a record is that of a tensor or of a parameter."""
    return isinstance(value, Record) and value.path in (*_PLAIN, *_SUBCLASS, *_PARAMETER)


def tensor(record: Record) -> Tensor:
    """The tensor of a record, on the CPU; of a subclass only its numbers.

    Raises UnsupportedModel for sizes that its storage does not have, and for kinds other than plain dense tensors.
    """
    for _ in range(4):  # a parameter of a subclass of a tensor is the deepest that torch writes
        path, args = record.path, record.args
        if path in _PLAIN:
            return _dense(args)
        if path in _PARAMETER and args and isinstance(args[0], Record):
            record = args[0]
        elif path in _SUBCLASS and len(args) >= 3 and isinstance(args[0], Global) and isinstance(args[2], tuple):
            record = Record(args[0], args[2])
        else:
            break
    raise UnsupportedModel(f"a tensor made by {record.path[:100]}, which is no plain dense one")


def _dense(args: tuple[Any, ...]) -> Tensor:
    if len(args) < 4:
        raise UnsupportedModel("a tensor without storage, offset, size and stride")
    storage, (offset, size, stride) = _storage(args[0]), args[1:4]
    size, stride = (side.args[0] if isinstance(side, Record) and side.args else side for side in (size, stride))  # torch.Size
    if len(args) > 6 and isinstance(args[6], Global):  # v3: an untyped storage, and a dtype beside it
        raise UnsupportedModel(f"a tensor of {args[6].path[:50]}")
    return strided(storage, offset, size, stride)


def strided(storage: Storage, offset: Any, size: Any, stride: Any) -> Tensor:
    """The tensor that lies so in a storage; size and stride in elements, whatever a file says they are.

    Raises UnsupportedModel for what are no tuples of counts, or reach beyond the storage.
    """
    numbers = (offset, *size, *stride) if isinstance(size, tuple) and isinstance(stride, tuple) else (None,)
    if not all(type(number) is int and 0 <= number < 1 << 48 for number in numbers):
        raise UnsupportedModel("a tensor whose offset, size or stride is no count")
    if len(size) != len(stride) or len(size) > _MAX_DIMENSIONS:
        raise UnsupportedModel(f"a tensor of {len(size)} sizes and {len(stride)} strides")
    count = 1
    for length in size:
        count *= length
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if count > storage.count or (count and last >= storage.count) or offset > storage.count:
        raise UnsupportedModel(f"a tensor of size {list(size)} in a storage of {storage.count} elements")
    dtype = getattr(torch, storage.dtype)  # one of the names in archive.py
    try:
        if not count:
            return torch.empty(size, dtype=dtype)
        if storage.flat is None:  # read once, shared by the tensors that share it, as in the original
            storage.flat = torch.frombuffer(bytearray(storage.content()), dtype=dtype)
        return torch.as_strided(storage.flat, size, stride, offset)
    except RuntimeError as error:
        raise UnsupportedModel(f"a tensor of size {list(size)}: {str(error)[:100]}") from None


def _storage(value: Any) -> Storage:
    if isinstance(value, Record) and value.path == _NESTED and len(value.args) == 1:
        content = value.args[0]
        if isinstance(content, bytes):
            value = read_nested(content, 1)
    if isinstance(value, Storage):
        return value
    raise UnsupportedModel("a tensor whose storage is none")
