"""Arrays as plain buffers, cells of objects too, and JSON with words for times and bytes. Never a pickle.

Both sides import this, the worker's Python may be 3.8 with numpy 1.21. What comes from a worker is believed no more than what
comes from the network: its model may have written it.

mark: of one message, drawn by its sender. A value that JSON has no words for is {mark: [kind, text]}: whoever wrote a cell or a
param before the mark was drawn cannot have meant it.
"""

from __future__ import annotations

import datetime
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from tensign.engines.arena import BrokenFrame
from tensign.errors import TooLarge

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Array = npt.NDArray[Any]

_ALIGNED = 64
MAX_JSON = 64 << 20  # bytes of one array's cells
_MAX_CELLS = 1 << 24  # of text or bytes in one array
_MAX_RANK = 32  # numpy's own, until 2.0
_KINDS = "biufcM"  # numpy's: numbers, truth values, times
_DTYPE = re.compile(r"[<>|][biufcM]\d{1,2}(\[\d{0,9}[A-Za-z]{1,2}\])?")
_NONE = -1  # in place of a length


def laid_out(arrays: Mapping[str, Array], mark: str) -> tuple[list[Any], list[tuple[int, Array]], int]:
    """The table that tells of arrays, the buffers that hold them, each with its place, and the bytes of all.

    Raises TooLarge, TypeError, ValueError.
    """
    table, pieces, end = [], [], 0
    for name, array in arrays.items():
        kind, blobs, array = taken_apart(array, mark)
        if kind == "json" and blobs[0].nbytes > MAX_JSON:
            raise TooLarge(f'"{name}": {blobs[0].nbytes} bytes of values, {MAX_JSON} may cross between processes')
        places = []
        for blob in blobs:
            start = -(-end // _ALIGNED) * _ALIGNED
            end = start + blob.nbytes
            pieces.append((start, blob))
            places.append([start, blob.dtype.str, list(blob.shape)])
        table.append([name, kind, list(array.shape), places])
    return table, pieces, end


def fill(memory: Any, pieces: list[tuple[int, Array]], at: int = 0) -> None:
    """Writes each buffer at its place, counted from `at`."""
    for start, blob in pieces:
        if blob.size:
            np.frombuffer(memory, blob.dtype, blob.size, at + start).reshape(blob.shape)[...] = blob


def taken_apart(array: Array, mark: str) -> tuple[str, list[Array], Array]:
    """Kind, plain buffers that hold it, and the array whose shape counts. Raises TypeError, ValueError."""
    array = np.asarray(array)
    if array.dtype.kind in "SU":
        array = array.astype(object)
    if array.dtype.kind in _KINDS:
        return "plain", [array], array
    if array.dtype.kind != "O":
        raise TypeError(f"dtype {array.dtype} cannot cross to another process")
    items = array.ravel().tolist() if array.ndim else [array.item()]
    if all(isinstance(item, np.ndarray) and item.dtype.kind in _KINDS for item in items):
        return "arrays", items, array
    if all(item is None or isinstance(item, str) for item in items):
        return "text", _joined([item if item is None else item.encode("utf-8", "surrogatepass") for item in items]), array
    if all(item is None or isinstance(item, bytes) for item in items):
        return "bytes", _joined(items), array
    return "json", [_bytes(to_json(items, mark))], array


def put_together(memory: Any, size: int, mark: str, kind: str, shape: list[int], places: list[Any]) -> Array:
    """Numbers are a view of the memory, everything else is a copy. Raises BrokenFrame, and what numpy and JSON raise."""
    _check_shape(shape)
    blobs = [_view(memory, size, *place) for place in places]
    if kind == "plain":
        return blobs[0].reshape(shape)
    if kind == "arrays":
        items: list[Any] = [blob.copy() for blob in blobs]
    elif kind == "json":
        if blobs[0].nbytes > MAX_JSON:
            raise BrokenFrame(f"{blobs[0].nbytes} bytes of JSON")
        items = from_json(blobs[0].tobytes(), mark)
    else:
        items = _parted(blobs[0], blobs[1].tobytes(), kind)
    array = np.empty(len(items), object)
    for index, item in enumerate(items):  # at once it would become one array of more axes where lengths agree
        array[index] = item
    return array.reshape(shape)


def to_json(value: Any, mark: str) -> bytes:
    """Raises TypeError, ValueError, RecursionError for what cannot cross."""
    return json.dumps(value, default=lambda item: _plain(item, mark)).encode()


def from_json(text: bytes, mark: str) -> Any:
    if mark.encode() not in text:  # without a hook, which costs more than all the rest of a short text
        return json.loads(text)
    return json.loads(text, object_hook=lambda found: _unplain(found[mark]) if mark in found else found)


def _view(memory: Any, size: int, start: int, dtype: str, shape: list[int]) -> Array:
    if not _DTYPE.fullmatch(dtype):
        raise BrokenFrame("no dtype of ours")
    _check_shape(shape)
    wanted = np.dtype(dtype)
    if 0 in shape:
        return np.empty(shape, wanted)
    end = wanted.itemsize
    for axis in shape:
        end *= axis
        if end > size:  # at once: the product of many long axes takes seconds
            break
    if not wanted.itemsize or start < 0 or start + end > size:
        raise BrokenFrame("an array outside its memory")
    return np.frombuffer(memory, wanted, end // wanted.itemsize, start).reshape(shape)


def _check_shape(shape: Any) -> None:
    if len(shape) > _MAX_RANK or not all(type(axis) is int and axis >= 0 for axis in shape):
        raise BrokenFrame("no shape")


def _joined(items: list[bytes | None]) -> list[Array]:
    lengths = np.array([_NONE if item is None else len(item) for item in items], "<i8")
    return [lengths, _bytes(b"".join(item for item in items if item))]


def _parted(lengths: Array, joined: bytes, kind: str) -> list[Any]:
    if lengths.dtype != np.dtype("<i8") or lengths.ndim != 1 or lengths.size > _MAX_CELLS:
        raise BrokenFrame("no lengths of cells")
    if lengths.size and not (_NONE <= lengths.min() and lengths.max() <= len(joined) == lengths.clip(0).sum()):
        raise BrokenFrame("cells outside their memory")
    items: list[Any] = []
    at = 0
    for length in lengths.tolist():
        piece = joined[at : at + length] if length != _NONE else None
        items.append(piece.decode("utf-8", "surrogatepass") if piece is not None and kind == "text" else piece)
        at += max(length, 0)
    return items


def _bytes(text: bytes) -> Array:
    return np.frombuffer(text, np.uint8)


def _plain(value: Any, mark: str) -> Any:
    """What JSON has no word for. Raises TypeError where we have none either."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if hasattr(value, "to_datetime64"):  # of pandas, whose times are Python's too, but finer
        value = value.to_datetime64()
    if isinstance(value, np.datetime64):
        return {mark: ["datetime64", str(value)]}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bytes):
        return {mark: ["bytes", value.decode("latin-1")]}
    if isinstance(value, datetime.datetime):
        return {mark: ["datetime", value.isoformat()]}
    if isinstance(value, datetime.date):
        return {mark: ["date", value.isoformat()]}
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    raise TypeError(f"a {type(value).__name__} cannot cross to another process")


def _unplain(marked: Any) -> Any:
    kind, text = marked
    if kind == "bytes":
        return text.encode("latin-1")
    if kind == "datetime64":
        return np.datetime64(text)
    if kind == "datetime":
        return datetime.datetime.fromisoformat(text)
    if kind == "date":
        return datetime.date.fromisoformat(text)
    raise BrokenFrame("no kind of value")
