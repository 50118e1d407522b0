"""Records -> plain data, for those few classes whose meaning is known; Opaque for the rest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tensign.errors import UnsupportedModel
from tensign_converters.pickles.allowed import today
from tensign_converters.pickles.records import Entries, Global, Record
from tensign_converters.pickles.tensors import is_tensor, tensor

_MAX_DEPTH = 40
_SEQUENCES = {"fastcore.foundation.L", "fastai.data.transforms.CategoryMap", "fastai.data.transforms.MultiCategory"}
_WRAPPED = {"fastcore.basics.fastuple", "fastcore.basics.Tuple", "torch.Size", "builtins.tuple", "builtins.list"}
_ENUMS = {
    "PIL.Image.Resampling", "torchvision.transforms.functional.InterpolationMode", "fastai.layers.NormType",
    "timm.layers.format.Format",
}  # fmt: skip
_PATHS = {f"pathlib.{kind}" for kind in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")}
_NUMBERS = re.compile(r"[biufc](1|2|4|8|16)|[US][0-9]{1,4}")
_ORDERS = {"<", ">", "=", "|"}


@dataclass(frozen=True, slots=True)
class Opaque:
    """Something that plain data cannot say, such as a function or an object of another class; path: what it is, dotted."""

    path: str


class Plain:
    """Turns records into data; budget: of bytes in all, 128 for each value, since references let a small file say much."""

    def __init__(self, budget: int = 1 << 26) -> None:
        self._left = budget

    def of(self, value: Any, depth: int = 0) -> Any:
        """Data as Recording's attributes are. Raises UnsupportedModel beyond the budget or a depth of 40."""
        self._spend(128)
        if depth > _MAX_DEPTH:
            raise UnsupportedModel(f"values nested deeper than {_MAX_DEPTH}")
        if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 63):
            return value
        if isinstance(value, str | bytes):
            self._spend(len(value))
            return value
        if isinstance(value, list | tuple):
            return type(value)(self.of(item, depth + 1) for item in value)
        if isinstance(value, Entries):
            return self._dict(value.pairs, depth)
        if isinstance(value, Record):
            return self._record(value, depth)
        return Opaque(today(value.path) if isinstance(value, Global) else type(value).__name__)

    def attributes(self, record: Record, *, skip: frozenset[str] = frozenset()) -> dict[str, Any]:
        """The instance's attributes but for dunder names and `skip`."""
        return {
            name: self.of(value, 1) for name, value in state(record).items() if not name.startswith("__") and name not in skip
        }

    def _record(self, record: Record, depth: int) -> Any:
        path, args = today(record.path), record.args
        if is_tensor(record):
            made = tensor(record).detach()
            self._spend(made.numel())
            return (made.float() if made.dtype is torch.bfloat16 else made).numpy()
        if path == "numpy._core.multiarray.scalar" and len(args) == 2:
            return self._array(args[0], (), args[1], depth).item()
        if path == "numpy._core.multiarray._reconstruct" and record.states and isinstance(record.states[-1], tuple):
            said = record.states[-1]
            if len(said) == 5:
                made = self._array(said[2], said[1], said[4], depth, fortran=bool(said[3] is True))
                return made
        if path == "_codecs.encode" and len(args) == 2 and isinstance(args[0], str) and args[1] in ("latin1", "latin-1"):
            self._spend(len(args[0]))
            return args[0].encode("latin1", errors="replace")
        if path in ("builtins.bytes", "builtins.bytearray") and all(isinstance(arg, bytes) for arg in args):
            return self.of(b"".join(args), depth + 1)
        if path in ("builtins.set", "builtins.frozenset"):
            content = args[0] if args and isinstance(args[0], list | tuple) else record.items
            return tuple(self.of(item, depth + 1) for item in content)
        if path in ("collections.OrderedDict", "collections.defaultdict", "builtins.dict"):
            return self._dict([*_pairs(args), *record.entries], depth)
        if path in _SEQUENCES:
            held = state(record).get("items", record.items)
            return list(self.of(held, depth + 1)) if isinstance(held, list | tuple | Record) else Opaque(path)
        if path in _WRAPPED and (not args or isinstance(args[0], list | tuple)):
            return tuple(self.of(item, depth + 1) for item in (*(args[0] if args else ()), *record.items))
        if path in _ENUMS and len(args) == 1:
            return self.of(args[0], depth + 1)
        if path in _PATHS and all(isinstance(part, str) for part in args):
            return self.of("/".join(args), depth + 1)
        if path == "torch.device" and args and isinstance(args[0], str):
            return self.of(args[0], depth + 1)
        return Opaque(described(record))

    def _dict(self, pairs: list[tuple[Any, Any]], depth: int) -> dict[str, Any] | Opaque:
        if not all(isinstance(key, str) or type(key) is int for key, _ in pairs):
            return Opaque("builtins.dict")
        return {str(key): self.of(value, depth + 1) for key, value in pairs}

    def _array(self, dtype: Any, shape: Any, content: Any, depth: int, *, fortran: bool = False) -> Any:
        """A NumPy array; of objects, one of what they are as plain data. Raises UnsupportedModel for sizes that do not fit."""
        kind, order = _dtype(dtype)
        shape = self.of(shape, depth + 1)
        fits = isinstance(shape, tuple) and len(shape) <= 8 and all(type(n) is int and 0 <= n < 1 << 32 for n in shape)
        count = int(np.prod(shape, dtype=object)) if fits else -1
        if kind == "O":
            if count < 0 or not isinstance(content, list) or len(content) != count:
                raise UnsupportedModel("a NumPy array of objects that are not there")
            made = np.empty(count, dtype=object)
            for index, item in enumerate(content):
                made[index] = self.of(item, depth + 1)
            return made.reshape(shape)
        content = self.of(content, depth + 1)
        try:
            dtype = np.dtype(order + kind)
        except TypeError:
            raise UnsupportedModel(f"NumPy has no type {kind}") from None
        if count < 0 or not isinstance(content, bytes) or len(content) != count * dtype.itemsize:
            raise UnsupportedModel(f"a NumPy array whose {kind} values are not there")
        return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C").copy()

    def _spend(self, amount: int) -> None:
        self._left -= amount
        if self._left < 0:
            raise UnsupportedModel("its values are more than any Learner has")


def state(record: Record) -> dict[str, Any]:
    """What the states of an object set: its `__dict__`, slots included; a value that is no such state says nothing."""
    attributes: dict[str, Any] = {}
    for said in record.states:
        for part in said if isinstance(said, tuple) and len(said) == 2 else (said,):
            if isinstance(part, Entries):
                attributes.update((name, value) for name, value in part.pairs if isinstance(name, str))
    return attributes


def described(value: Any) -> str:
    """What a record stands for, dotted: the class, the function, or what a getattr or a partial leads to."""
    parts: list[str] = []
    for _ in range(8):
        if isinstance(value, Global):
            return ".".join([today(value.path), *reversed(parts)])
        if not isinstance(value, Record):
            break
        if value.path == "builtins.getattr" and len(value.args) == 2 and isinstance(value.args[1], str):
            parts.append(value.args[1][:100])
            value = value.args[0]
        elif value.path == "functools.partial" and value.args:
            value = value.args[0]
        else:
            return ".".join([today(value.path), *reversed(parts)])
    return "?"


def _pairs(args: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    if len(args) == 1 and isinstance(args[0], list):
        return [(item[0], item[1]) for item in args[0] if isinstance(item, list | tuple) and len(item) == 2]
    return args[0].pairs if len(args) == 1 and isinstance(args[0], Entries) else []


def _dtype(record: Any) -> tuple[str, str]:
    """Kind with width, and byte order, of numpy.dtype's record."""
    if isinstance(record, Record) and record.path == "numpy.dtype" and record.args:
        kind = record.args[0]
        said = record.states[-1] if record.states else ()
        order = said[1] if isinstance(said, tuple) and len(said) > 1 else "="
        if isinstance(kind, str) and isinstance(order, str) and order in _ORDERS:
            if kind in ("O", "O8"):
                return "O", "="
            if _NUMBERS.fullmatch(kind):
                return kind, order
    raise UnsupportedModel("a NumPy type that holds no plain numbers or texts")
