"""A file that torch.save or pickle.dump wrote -> its pickle's records and its storages; nothing is extracted, no code is run.

Zips are torch's since 1.6; before, one stream of five pickles and the storages behind them. Source: torch.serialization.
"""

from __future__ import annotations

import io
import mmap
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tensign.errors import UnsupportedModel
from tensign_converters.pickles.members import Members
from tensign_converters.pickles.records import Entries, Global
from tensign_converters.pickles.unpickler import unpickle

MAX_PICKLE = 64 << 20  # bytes of a zip's data.pkl, tensors apart; a Learner has some ten kilobytes
MAX_NESTED = 1  # files within a file: how a plain pickle carries tensors
MAGIC = 0x1950A86A20F9469CFC6C  # what torch's older stream begins with, pickled
_PROTOCOL = 1001
_STORAGES = {  # torch's name of a typed storage -> dtype, bytes an element
    "DoubleStorage": ("float64", 8),
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
    "UntypedStorage": ("uint8", 1),
}


@dataclass(eq=False, slots=True)
class Storage:
    """Numbers without a shape: dtype as torch calls it, count elements; content: their bytes, little-endian.

    flat: the same as a tensor, once somebody has made it.
    """

    dtype: str
    count: int
    content: Callable[[], bytes]
    flat: Any = None


def read_archive(file: Path) -> Any:
    """The root of a torch file or a plain pickle, as records, with Storage where storages stand.

    Raises UnsupportedModel for what is neither, is broken, or claims sizes that it does not have.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise UnsupportedModel(f"{file.name}: no regular file")
        with file.open("rb") as stream:
            if stream.read(4) == b"PK\x03\x04":
                return _Zip(Members(file)).root()
            if not stream.seek(0, io.SEEK_END):
                raise UnsupportedModel(f"{file.name}: empty")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _plain(content, 0)  # type: ignore[arg-type]  # reads as a file does
    except FileNotFoundError:
        raise UnsupportedModel(f"{file.name}: the MLmodel names it, and it is not there") from None
    except UnsupportedModel as error:
        text = str(error)
        raise UnsupportedModel(text if text.startswith(file.name) else f"{file.name}: {text}") from None


class _Zip:
    """torch's zip: `<name>/data.pkl`, `<name>/data/<key>`, stored and not compressed."""

    def __init__(self, members: Members) -> None:
        self.members = members
        self.storages: dict[str, Storage] = {}
        pickles = [name for name in members.names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise UnsupportedModel(f"a zip with {len(pickles)} data.pkl, wanted the one that torch.save writes")
        self.prefix = pickles[0].removesuffix("data.pkl")
        if members.size(f"{self.prefix}constants.pkl") is not None:
            raise UnsupportedModel("a TorchScript archive, which is a program of its own")
        members.check_order(f"{self.prefix}byteorder")

    def root(self) -> Any:
        return unpickle(io.BytesIO(self.members.read(f"{self.prefix}data.pkl", MAX_PICKLE)), self._persistent)

    def _persistent(self, identity: Any) -> Storage:
        dtype, width, key, count = _identity(identity, 5)
        if key not in self.storages:
            name = f"{self.prefix}data/{key}"
            size = self.members.size(name)
            if size != count * width:
                has = "is not there" if size is None else f"has {size} bytes"
                raise UnsupportedModel(f"storage {key[:50]!a}: {count} elements of {dtype} are named, the member {has}")
            self.storages[key] = Storage(dtype, count, lambda: self.members.read(name, count * width))
        known = self.storages[key]
        if (known.dtype, known.count) != (dtype, count):
            raise UnsupportedModel(f"storage {key[:50]!a} is {known.count} of {known.dtype} here and {count} of {dtype} there")
        return known


def _plain(stream: BinaryIO, depth: int) -> Any:
    """The root of torch's older stream, or of a plain pickle, whose tensors are such streams again, as bytes."""
    stream.seek(0)
    first = unpickle(stream, _refused)
    if first != MAGIC:
        return first
    if unpickle(stream, _refused) != _PROTOCOL:
        raise UnsupportedModel("a torch stream of another protocol than 1001")
    information = unpickle(stream, _refused)
    pairs = information.pairs if isinstance(information, Entries) else []
    if ("little_endian", True) not in pairs:
        raise UnsupportedModel("its numbers are not little-endian")
    legacy = _Legacy()
    root = unpickle(stream, legacy.persistent)
    legacy.locate(stream)
    return root


def read_zipped(content: bytes) -> Any:
    """The root of a torch zip that lay in another file, as records. Raises UnsupportedModel as read_archive does."""
    return _Zip(Members(content)).root()


def read_nested(content: bytes, depth: int) -> Any:
    """What `torch.storage._load_from_bytes` would give; depth: how many files it lies in already."""
    if depth > MAX_NESTED:
        raise UnsupportedModel("files within files within files")
    return _plain(io.BytesIO(content), depth)


class _Legacy:
    """The storages of torch's older stream, which lie behind its pickles: bytes are found once all is named."""

    def __init__(self) -> None:
        self.storages: dict[str, tuple[Storage, int]] = {}

    def persistent(self, identity: Any) -> Any:
        if isinstance(identity, tuple) and len(identity) == 4 and identity[0] == "module" and isinstance(identity[1], Global):
            return identity[1]  # a class, with its source behind it, which nobody reads
        dtype, width, key, count = _identity(identity, 6)
        if identity[5] is not None:
            raise UnsupportedModel(f"storage {key[:50]!a} is a view of another, as torch before 0.4 wrote it")
        if key not in self.storages:
            self.storages[key] = Storage(dtype, count, lambda: b""), width
        known = self.storages[key][0]
        if (known.dtype, known.count) != (dtype, count):
            raise UnsupportedModel(f"storage {key[:50]!a} is {known.count} of {known.dtype} here and {count} of {dtype} there")
        return known

    def locate(self, stream: BinaryIO) -> None:
        keys = unpickle(stream, _refused)
        if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(self.storages):
            raise UnsupportedModel("a torch stream whose list of storages is not that of its pickle")
        for key in keys:
            storage, width = self.storages[key]
            header = stream.read(8)
            if len(header) < 8 or struct.unpack("<q", header)[0] != storage.count:
                raise UnsupportedModel(f"storage {key[:50]!a}: another number of elements than its {storage.count}, or none")
            content = stream.read(storage.count * width)
            if len(content) < storage.count * width:
                raise UnsupportedModel(f"storage {key[:50]!a}: the file ends within it")
            storage.content = lambda content=content: content  # type: ignore[misc]


def _identity(identity: Any, length: int) -> tuple[str, int, str, int]:
    """dtype, bytes an element, key and elements of a persistent id ("storage", type, key, location, elements[, view])."""
    if not isinstance(identity, tuple) or len(identity) != length or identity[0] != "storage":
        raise UnsupportedModel("a persistent id that names no storage")
    kind, key, count = identity[1], identity[2], identity[4]
    known = isinstance(kind, Global) and kind.module in ("torch", "torch.cuda", "torch.storage") and kind.name in _STORAGES
    if not known or not isinstance(key, str) or type(count) is not int or count < 0:
        raise UnsupportedModel(f"a storage of a kind that is not known: {kind.path[:100] if isinstance(kind, Global) else '?'}")
    return *_STORAGES[kind.name], key, count


def _refused(_: Any) -> Any:
    raise UnsupportedModel("a persistent id, where none belongs")
