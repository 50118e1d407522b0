"""What crosses between server and worker: a JSON header through a socket, arrays in shared memory.

Both sides import this; see packing.py for what is believed of it.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

from tensign.engines.arena import Arena, BrokenFrame
from tensign.engines.packing import fill, from_json, laid_out, put_together, to_json
from tensign.errors import TooLarge

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Array = npt.NDArray[Any]

MAX_HEADER = 16 << 20
_MAX_BYTES = 4 << 30  # of one message's arrays
_SEND_S = 60.0  # the other side reads at once, or not at all
_FRAME = struct.Struct("<I16s")  # bytes of the header, its mark


class LostFrame(BrokenFrame):
    """What the other side sent is no message, and nobody knows where the next one begins."""


class Channel:
    """Messages both ways: {"any": "JSON"} and arrays by name. One at a time: the next one overwrites the arrays."""

    def __init__(self, connection: socket.socket, writes: int, reads: int) -> None:
        """writes, reads: file descriptors of the shared memory; closed with the channel."""
        self._connection = connection
        self._writes, self._reads = Arena(writes), Arena(reads)

    def pack(self, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> bytes:
        """Puts the arrays into the shared memory; gives what is to be transmitted.

        Raises TooLarge, and TypeError, ValueError or RecursionError for values that cannot cross; OSError where there is no
        memory.
        """
        drawn = os.urandom(16)
        mark = drawn.hex()
        table, pieces, end = laid_out(arrays, mark)
        if end > _MAX_BYTES:
            raise TooLarge(f"arrays of {end} bytes, {_MAX_BYTES} may cross between server and worker")
        text = to_json({"header": header, "arrays": table, "bytes": end}, mark)
        if len(text) > MAX_HEADER:
            raise TooLarge(f"params and shapes of {len(text)} bytes, {MAX_HEADER} may cross between server and worker")
        fill(self._writes.room(end) if end else b"", pieces)
        return _FRAME.pack(len(text), drawn) + text

    def transmit(self, packed: bytes) -> None:
        """Raises OSError where the other side is gone."""
        self._connection.settimeout(_SEND_S)
        self._connection.sendall(packed)

    def send(self, header: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> None:
        """Raises what `pack` raises, before anything is sent, and what `transmit` raises."""
        self.transmit(self.pack(header, arrays or {}))

    def receive(self, deadline: float | None = None) -> tuple[dict[str, Any], dict[str, Array]]:
        """The next message; its arrays of numbers are views that the message after it overwrites.

        deadline: on time.monotonic(). Raises EOFError where the other side is gone, TimeoutError, BrokenFrame.
        """
        length, drawn = _FRAME.unpack(self._exactly(_FRAME.size, deadline))
        if length > MAX_HEADER:
            raise LostFrame(f"a header of {length} bytes")
        text, mark = self._exactly(length, deadline), drawn.hex()
        try:
            message = from_json(text, mark)
            size = int(message["bytes"])
            if not 0 <= size <= _MAX_BYTES:
                raise BrokenFrame(f"arrays of {size} bytes")
            memory = self._reads.filled(size) if size else b""
            arrays = {str(name): put_together(memory, size, mark, *rest) for name, *rest in message["arrays"]}
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
