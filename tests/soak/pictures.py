"""Pictures, good and bad, as the files that a client would send."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import PIL.Image


def good_pictures() -> list[bytes]:
    """JPEG, PNG and WebP of 160x120 to 320x240, in colour and grey."""
    random = np.random.default_rng(0)
    found = []
    for kind, (width, height) in {"JPEG": (320, 240), "PNG": (160, 120), "WEBP": (200, 150)}.items():
        pixels = random.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        found += [_encoded(PIL.Image.fromarray(pixels).convert(mode), kind) for mode in ("RGB", "L")]
    return found


def bad_pictures() -> dict[str, bytes]:
    """{what is wrong: file}."""
    jpeg, png, *_ = good_pictures()[::2]
    return {
        "empty": b"",
        "noise": np.random.default_rng(1).bytes(5000),
        "text": b"<html>not found</html>",
        "animation": _encoded(PIL.Image.new("P", (8, 8)), "GIF"),
        "cut JPEG": jpeg[: len(jpeg) // 2],
        "cut PNG": png[: len(png) // 2],
        "bomb": _bomb(),
        "header alone": jpeg[:100],
    }


def _encoded(picture: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _bomb() -> bytes:
    """A PNG of a few hundred bytes that claims 50,000 x 50,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10_000)) + chunk(b"IEND", b"")
