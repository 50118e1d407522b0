"""What crosses between server and worker: a JSON header through a socket, arrays in shared memory. Never a pickle.

Both sides import this, the worker's Python may be 3.8 with numpy 1.21. What comes from a worker is believed no more than what
comes from the network: its model may have written it.
"""

from __future__ import annotations

import datetime
import json
import mmap
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Array = npt.NDArray[Any]

MAX_HEADER = 16 << 20
_MAX_BYTES = 4 << 30  # of one message's arrays
_ALIGNED = 64
_SEND_S = 60.0  # the other side reads at once, or not at all
_KINDS = "biufcM"  # numpy's: numbers, truth values, times
_NONE = -1  # in place of a length
_BYTES, _TIME = "\0bytes", "\0datetime"  # keys of values that JSON has no words for


class BrokenFrame(Exception):
    """What the other side sent is no message of ours."""


class Arena:
    """Shared memory behind a file descriptor, which grows and never shrinks."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._map: Any = b""

    def room(self, size: int) -> Any:
        """A writable map of at least `size` bytes."""
        if len(self._map) < size:
            wanted = max(1 << size.bit_length(), mmap.PAGESIZE)
            if os.fstat(self._fd).st_size < wanted:
                os.ftruncate(self._fd, wanted)
            self._map = mmap.mmap(self._fd, wanted)
        return self._map

    def filled(self, size: int) -> Any:
        """A map of the `size` bytes that the other side wrote. Raises BrokenFrame."""
        if len(self._map) < size:
            there = os.fstat(self._fd).st_size
            if size > there:
                raise BrokenFrame(f"arrays of {size} bytes in a memory of {there}")
            self._map = mmap.mmap(self._fd, there)
        return self._map

    def close(self) -> None:
        self._map = b""
        os.close(self._fd)


class Channel:
    """Messages both ways: {"any": "JSON"} and arrays by name. One at a time: the next one overwrites the arrays."""

    def __init__(self, connection: socket.socket, writes: int, reads: int) -> None:
        """writes, reads: file descriptors of the shared memory; closed with the channel."""
        self._connection = connection
        self._writes, self._reads = Arena(writes), Arena(reads)

    def send(self, header: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> None:
        """Raises OSError where the other side is gone."""
        table, end = [], 0
        pieces = []
        for name, array in (arrays or {}).items():
            kind, blobs, array = _taken_apart(array)
            places = []
            for blob in blobs:
                start = -(-end // _ALIGNED) * _ALIGNED
                end = start + blob.nbytes
                pieces.append((start, blob))
                places.append([start, blob.dtype.str, list(blob.shape)])
            table.append([name, kind, list(array.shape), places])
        memory = self._writes.room(end) if pieces else b""
        for start, blob in pieces:
            if blob.size:
                np.frombuffer(memory, blob.dtype, blob.size, start).reshape(blob.shape)[...] = blob
        text = json.dumps({"header": header, "arrays": table, "bytes": end}, default=_plain).encode()
        self._connection.settimeout(_SEND_S)
        self._connection.sendall(struct.pack("<I", len(text)) + text)

    def receive(self, deadline: float | None = None) -> tuple[dict[str, Any], dict[str, Array]]:
        """The next message; its arrays are views that the message after it overwrites.

        deadline: on time.monotonic(). Raises EOFError where the other side is gone, TimeoutError, BrokenFrame.
        """
        (length,) = struct.unpack("<I", self._exactly(4, deadline))
        if length > MAX_HEADER:
            raise BrokenFrame(f"a header of {length} bytes")
        try:
            message = json.loads(self._exactly(length, deadline))
            size = int(message["bytes"])
            if not 0 <= size <= _MAX_BYTES:
                raise BrokenFrame(f"arrays of {size} bytes")
            memory = self._reads.filled(size) if size else b""
            arrays = {str(name): _put_together(memory, size, *rest) for name, *rest in message["arrays"]}
            return dict(message["header"]), arrays
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
            raise BrokenFrame(f"{type(error).__name__}: {str(error)[:200]}") from None

    def close(self) -> None:
        self._connection.close()
        self._writes.close()
        self._reads.close()

    def _exactly(self, size: int, deadline: float | None) -> bytes:
        got = bytearray()
        while len(got) < size:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            self._connection.settimeout(left)
            try:
                piece = self._connection.recv(min(size - len(got), 1 << 20))
            except socket.timeout:  # until Python 3.10 no TimeoutError
                raise TimeoutError from None
            except ConnectionError:
                piece = b""
            if not piece:
                raise EOFError
            got += piece
        return bytes(got)


def _taken_apart(array: Array) -> tuple[str, list[Array], Array]:
    """Kind, plain buffers that hold it, and the array whose shape counts."""
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
    return "json", [_bytes(json.dumps(items, default=_plain).encode())], array


def _put_together(memory: Any, size: int, kind: str, shape: list[int], places: list[Any]) -> Array:
    blobs = [_view(memory, size, *place) for place in places]
    if kind == "plain":
        return blobs[0].reshape(shape)
    if kind == "arrays":
        items: list[Any] = blobs
    elif kind == "json":
        items = json.loads(blobs[0].tobytes(), object_hook=_unplain)
    else:
        items, at, joined = [], 0, blobs[1].tobytes()
        for length in blobs[0].tolist():
            piece = joined[at : at + length] if length != _NONE else None
            items.append(piece.decode("utf-8", "surrogatepass") if piece is not None and kind == "text" else piece)
            at += max(length, 0)
    array = np.empty(len(items), object)
    for index, item in enumerate(items):  # at once it would become one array of more axes where lengths agree
        array[index] = item
    return array.reshape(shape)


def _view(memory: Any, size: int, start: int, dtype: str, shape: list[int]) -> Array:
    wanted = np.dtype(dtype)
    count = 1
    for axis in shape:
        if axis < 0:
            raise BrokenFrame("a negative axis")
        count *= axis
    if wanted.kind not in _KINDS or not wanted.itemsize or start < 0 or start + count * wanted.itemsize > size:
        raise BrokenFrame("an array outside its memory")
    return np.frombuffer(memory, wanted, count, start).reshape(shape) if count else np.empty(shape, wanted)


def _joined(items: list[bytes | None]) -> list[Array]:
    lengths = np.array([_NONE if item is None else len(item) for item in items], "<i8")
    return [lengths, _bytes(b"".join(item for item in items if item))]


def _bytes(text: bytes) -> Array:
    return np.frombuffer(text, np.uint8)


def _plain(value: Any) -> Any:
    """What JSON has no word for. Raises TypeError where we have none either."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.datetime64):
        return {_TIME: str(value)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bytes):
        return {_BYTES: value.decode("latin-1")}
    if isinstance(value, (datetime.datetime, datetime.date)):
        return {_TIME: value.isoformat()}
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    raise TypeError(f"a {type(value).__name__} cannot cross to another process")


def _unplain(found: dict[str, Any]) -> Any:
    if len(found) == 1:
        if _BYTES in found:
            return str(found[_BYTES]).encode("latin-1")
        if _TIME in found:
            return np.datetime64(found[_TIME])
    return found
