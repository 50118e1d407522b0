"""The header of a plain JPEG, read in a few microseconds; of any other, Pillow tells more."""

from __future__ import annotations

_START = b"\xff\xd8\xff"
_FRAMES = {b"\xff\xc0", b"\xff\xc1", b"\xff\xc2"}  # baseline, extended, progressive: of 8 bits, as looked at below
_SCAN = b"\xff\xda"
# What a header may hold besides, how it then begins and its least length: shorter ones are read in more than one way.
_OTHERS = {
    b"\xff\xc4": (b"", 2),  # Huffman tables
    b"\xff\xdb": (b"", 2),  # quantization tables
    b"\xff\xdd": (b"", 2),  # restart interval
    b"\xff\xe0": (b"", 16),  # JFIF
    b"\xff\xe1": (b"", 2),  # EXIF, XMP
    b"\xff\xe2": (b"ICC_PROFILE\0", 16),  # not MPF: several pictures in one file
    b"\xff\xee": (b"", 14),  # Adobe's colour transform
    b"\xff\xfe": (b"", 2),  # comment
}


def jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG of one or three components; None where anything in its header is out of the ordinary."""
    if not encoded.startswith(_START):
        return None
    size, at = None, 2
    while marker := encoded[at : at + 2]:
        length = int.from_bytes(encoded[at + 2 : at + 4])
        if marker in _FRAMES:
            bits, components = encoded[at + 4 : at + 5], encoded[at + 9 : at + 10]
            if size or bits != b"\x08" or components not in (b"\x01", b"\x03") or length != 8 + 3 * components[0]:
                return None
            size = int.from_bytes(encoded[at + 7 : at + 9]), int.from_bytes(encoded[at + 5 : at + 7])
        elif marker == _SCAN:
            return size
        else:
            begins, least = _OTHERS.get(marker, (b"", 1 << 16))
            if length < least or not encoded.startswith(begins, at + 4):
                return None
        at += 2 + length
    return None
