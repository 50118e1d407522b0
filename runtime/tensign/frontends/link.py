"""What crosses between a front end and the server: JSON through a socket, large arrays in shared memory.

Any number of messages may be on their way at once, in both directions. Neither side unpickles anything, or believes a length.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

from tensign.engines.arena import Arena, BrokenFrame
from tensign.engines.packing import fill, from_json, laid_out, put_together, to_json
from tensign.errors import TooLarge
from tensign.frontends.places import Places
from tensign.signature import Arrays

_FRAME = struct.Struct("<II16s")  # bytes of the JSON, bytes of arrays right behind it, the mark of packing.py
_INLINE = 16 << 10  # arrays of fewer bytes than this cross with the JSON: cheaper than giving a place back
_MAX_TEXT = 16 << 20
_MAX_BYTES = 4 << 30  # of the memory in one direction
_READ = 256 << 10
_MANY, _LARGE = 64, 1 << 20  # so many places, or one of so many bytes, are given back at once and not by the next message
Place = tuple[int, int]  # start and bytes
Received = tuple[dict[str, Any], Arrays, Place | None]


class Link:
    """One side. Any thread may send, one receives.

    A message's arrays that lie in shared memory lie there until whoever received it releases their place.
    """

    def __init__(self, connection: socket.socket, writes: int, reads: int, limit: int = _MAX_BYTES) -> None:
        """writes, reads: file descriptors of the shared memory; closed with the link, as the connection is."""
        self._connection = connection
        self._reader = connection.makefile("rb", _READ)
        self._ours, self._theirs = Arena(writes), Arena(reads)
        self.places = Places(limit)
        self._growing = threading.Lock()
        self._changed = threading.Condition()
        self._unsent: deque[bytes] = deque()
        self._released: deque[int] = deque()
        self._writer: threading.Thread | None = None
        self._closed = False

    def send(self, header: Mapping[str, Any], arrays: Arrays | None = None, *, done: Place | None = None) -> None:
        """Never waits for the other side. Where that is gone nobody is told: whoever receives finds out.

        done: a place to release with it.
        Raises TooLarge, QueueFull, and TypeError, ValueError or RecursionError for what cannot cross; then nothing is sent.
        """
        drawn = os.urandom(16)
        mark = drawn.hex()
        table, pieces, size = laid_out(arrays or {}, mark)
        at, payload = None, bytearray()
        if done is not None:
            self._released.append(done[0])
        if size < _INLINE:
            payload = bytearray(size)
            fill(payload, pieces)
        else:
            at = self.places.take(size)
        freed = [self._released.popleft() for _ in range(len(self._released))]
        try:
            text = to_json([header, table, size, at, freed], mark)
            if len(text) > _MAX_TEXT:
                raise TooLarge(f"params and shapes of {len(text)} bytes, {_MAX_TEXT} may cross between processes")
            if at is not None:
                with self._growing:
                    if self._closed:
                        return
                    memory = self._ours.room(at + size)
                fill(memory, pieces, at)
        except BaseException:
            if at is not None:
                self.places.give_back(at)
            self._released.extend(freed)
            raise
        self._transmit(b"".join((_FRAME.pack(len(text), len(payload), drawn), text, payload)))

    def receive(self) -> Received:
        """The next message: what it says, its arrays, and the place to release once nobody reads them any more, if any.

        Raises EOFError where the other side is gone, BrokenFrame for what is no message, behind which nothing is read.
        """
        length, beside, drawn = _FRAME.unpack(self._exactly(_FRAME.size))
        if length > _MAX_TEXT or beside >= _INLINE:
            raise BrokenFrame(f"a message of {length} and {beside} bytes")
        text, payload, mark = self._exactly(length), self._exactly(beside), drawn.hex()
        try:
            header, table, size, at, freed = from_json(text, mark)
            memory: Any = payload
            if at is not None:
                if type(at) is not int or type(size) is not int or not 0 <= at <= at + size <= _MAX_BYTES:
                    raise BrokenFrame("arrays outside the shared memory")
                memory = memoryview(self._theirs.filled(at + size))[at : at + size]
            arrays = {str(name): put_together(memory, len(memory), mark, *rest) for name, *rest in table}
            for start in freed:
                self.places.give_back(start)
            return dict(header), arrays, None if at is None else (at, size)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError, OSError) as error:
            raise BrokenFrame(f"{type(error).__name__}: {str(error)[:200]}") from None

    def release(self, place: Place | None) -> None:
        """The other side may use a message's place again; it learns so with the next message, or one that this sends."""
        if place is None:
            return
        if place[1] < _LARGE and len(self._released) < _MANY:
            self._released.append(place[0])
        else:
            self.send({}, done=place)

    def end(self) -> None:
        """Wakes whoever receives, on both sides: there is nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Once nobody receives or sends any more."""
        self.end()
        if self._writer is not None:
            self._writer.join()
        self._reader.close()
        self._connection.close()
        with self._growing:
            self._ours.close()
            self._theirs.close()

    def _exactly(self, size: int) -> bytes:
        try:
            got: bytes = self._reader.read(size)
        except OSError:
            got = b""
        if len(got) < size:
            raise EOFError
        return got

    def _transmit(self, frame: bytes) -> None:
        """At once, as far as the socket has room; the rest on a thread of its own, for this one may be an event loop's."""
        with self._changed:
            if self._closed:
                return
            if not self._unsent:
                try:
                    frame = frame[self._connection.send(frame, socket.MSG_DONTWAIT) :]
                except BlockingIOError:
                    pass
                except OSError:
                    return
                if not frame:
                    return
            self._unsent.append(frame)
            if self._writer is None:
                self._writer = threading.Thread(target=self._write, name="tensign-link", daemon=True)
                self._writer.start()
            self._changed.notify_all()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._unsent or self._closed)
                if self._closed:
                    return
                frame = self._unsent[0]
            try:
                self._connection.sendall(frame)
            except OSError:
                return
            with self._changed:
                self._unsent.popleft()
