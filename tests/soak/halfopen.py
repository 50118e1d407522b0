"""Connections that never become a request: a client that is gone, or silent, before the end of what it began."""

from __future__ import annotations

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _header(name: str, value: str) -> bytes:
    """An HPACK literal, never indexed; name and value below 127 bytes."""
    return b"\x10" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


_SETTINGS = _frame(4, 0, 0, b"")
_HEADERS = _frame(
    1,
    4,
    1,
    _header(":method", "POST")
    + _header(":scheme", "http")
    + _header(":path", "/inference.GRPCInferenceService/ModelStreamInfer")
    + _header(":authority", "localhost")
    + _header("content-type", "application/grpc")
    + _header("te", "trailers"),
)
_HALF_A_MESSAGE = _frame(0, 0, 1, b"\0" + struct.pack(">I", 1000) + b"x" * 500)

BEGINNINGS = {
    "silent": b"",
    "another protocol": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "half a preface": PREFACE[:10],
    "half a frame": PREFACE + _SETTINGS + _HEADERS[:20],
    "no request": PREFACE + _SETTINGS,
    "no message": PREFACE + _SETTINGS + _HEADERS,
    "half a message": PREFACE + _SETTINGS + _HEADERS + _HALF_A_MESSAGE,
}


def half_open(address: str, beginning: str) -> socket.socket:
    """A connection on which so much was said, and no more."""
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.sendall(BEGINNINGS[beginning])
    return connection


def reset(connection: socket.socket) -> None:
    """Breaks it off, as a crashed client's machine does, without a goodbye."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
