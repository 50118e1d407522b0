"""Both sides of a link between a front end and the server, in one process."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from tensign.engines.process import memory
from tensign.frontends.link import Link

MIB = 1 << 20


class Pair:
    """Both sides of a link, in this process."""

    def __init__(self, limit: int = 64 * MIB) -> None:
        ours, its = socket.socketpair()
        there, back = memory("there"), memory("back")
        self.raw = its
        self.memories = (there, back)
        self.server = Link(ours, there, back, limit)
        self.front = Link(its, os.dup(back), os.dup(there), limit)

    def write(self, text: bytes, payload: bytes = b"") -> None:
        """A frame by hand."""
        self.raw.sendall(struct.pack("<II16s", len(text), len(payload), bytes(16)) + text + payload)

    def close(self) -> None:
        self.front.close()
        self.server.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()
