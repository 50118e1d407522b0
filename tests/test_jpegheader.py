"""A plain JPEG's header is read without Pillow, and never otherwise than Pillow reads it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest

from tensign.decode import decode, read
from tensign.errors import UndecodableImage
from tensign.jpegheader import jpeg_size

LIMIT = 1_000_000
PICTURE = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)).resize((61, 43))
EXIF = PIL.Image.Exif()
EXIF[0x0112] = 6
ICC = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()


def jpeg(image: PIL.Image.Image = PICTURE, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return bytes((255, marker)) + (2 + len(body)).to_bytes(2, "big") + body


PLAIN = jpeg()
FRAME = PLAIN.index(b"\xff\xc0")
AFTER_FRAME = FRAME + 19


def with_first(inserted: bytes) -> bytes:
    return PLAIN[:2] + inserted + PLAIN[2:]


def claiming(width: int, height: int) -> bytes:
    return PLAIN[: FRAME + 5] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + PLAIN[FRAME + 9 :]


READ = {
    "plain": PLAIN,
    "grey": jpeg(PICTURE.convert("L")),
    "progressive": jpeg(progressive=True),
    "Adobe RGB": jpeg(keep_rgb=True),
    "EXIF, ICC profile, comment": jpeg(exif=EXIF, icc_profile=ICC, comment=b"of a camera", dpi=(300, 300)),
    "restart markers": jpeg(restart_marker_rows=1),
    "trailing bytes": PLAIN + b"\0trailer",
    "followed by another": PLAIN + jpeg(PICTURE.resize((99, 99))),
    "a JPEG in its comment": with_first(segment(0xFE, jpeg(PICTURE.resize((99, 99))))),
}
LEFT_TO_PILLOW = {
    "CMYK": jpeg(PICTURE.convert("CMYK")),
    "several pictures": jpeg(kind="MPO", save_all=True, append_images=[PICTURE]),
    "no JPEG": jpeg(kind="PNG"),
    "12 bits": PLAIN[: FRAME + 4] + b"\x0c" + PLAIN[FRAME + 5 :],
    "two components": PLAIN[: FRAME + 9] + b"\x02" + PLAIN[FRAME + 10 :],
    "arithmetic coding": PLAIN[:FRAME] + b"\xff\xc9" + PLAIN[FRAME + 2 :],
    "two frames": PLAIN[:AFTER_FRAME] + PLAIN[FRAME:],
    "two frames, the second larger": PLAIN[:AFTER_FRAME] + claiming(900, 900)[FRAME:],
    "no frame before the scan": PLAIN[:FRAME] + PLAIN[AFTER_FRAME:],
    "another start": with_first(PLAIN[:2]),
    "stray bytes": with_first(b"\0\0"),
    "padding": with_first(b"\xff\xff"),
    "a marker that libjpeg knows alone": with_first(b"\xff\x01"),
    "JFIF cut short": with_first(segment(0xE0, b"JFIF")),
    "Adobe cut short": with_first(segment(0xEE, b"Adobe")),
    "ICC profile cut short": with_first(segment(0xE2, b"ICC_PROFILE\0")),
    "Photoshop's resources cut short": with_first(segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed")),
    "MPF without entries": with_first(segment(0xE2, b"MPF\0")),
    "a length of 0": with_first(b"\xff\xfe\0\0"),
    "nothing": b"",
}


@pytest.mark.parametrize("kind", READ)
def test_size_of_a_plain_jpeg(kind: str) -> None:
    assert jpeg_size(READ[kind]) == PICTURE.size
    assert isinstance(read(READ[kind], max_pixels=LIMIT), np.ndarray)


@pytest.mark.parametrize("kind", LEFT_TO_PILLOW)
def test_what_is_out_of_the_ordinary_is_left_to_pillow(kind: str) -> None:
    assert jpeg_size(LEFT_TO_PILLOW[kind]) is None


@pytest.mark.parametrize("kind", READ | LEFT_TO_PILLOW)
def test_it_is_decoded_or_refused_as_pillow_does(kind: str) -> None:
    encoded = (READ | LEFT_TO_PILLOW)[kind]
    try:
        wanted = np.asarray(PIL.Image.open(io.BytesIO(encoded)).convert("RGB"))
    except Exception:
        with pytest.raises(UndecodableImage):
            decode(encoded, max_pixels=LIMIT)
    else:
        np.testing.assert_array_equal(decode(encoded, max_pixels=LIMIT), wanted)


@pytest.mark.parametrize("kind", ["plain", "EXIF, ICC profile, comment", "progressive"])
def test_every_place_where_it_may_be_cut_off(kind: str) -> None:
    encoded = READ[kind]
    scan = encoded.index(b"\xff\xda\0")
    for length in range(scan):
        assert jpeg_size(encoded[:length]) is None
        with pytest.raises(UndecodableImage, match=r"bytes are no JPEG|broken picture: "):
            decode(encoded[:length], max_pixels=LIMIT)


@pytest.mark.parametrize(("width", "height"), [(0, 43), (61, 0), (0, 0)])
def test_a_size_of_zero(width: int, height: int) -> None:
    with pytest.raises(UndecodableImage, match=r"bytes are no JPEG|broken picture: "):
        decode(claiming(width, height), max_pixels=LIMIT)


@pytest.mark.parametrize(("width", "height"), [(61, 430), (610, 43), (999, 999)])
def test_a_header_that_claims_more_than_there_is(width: int, height: int) -> None:
    encoded = claiming(width, height)
    assert jpeg_size(encoded) == (width, height)
    wanted = PIL.Image.open(io.BytesIO(encoded)).convert("RGB")
    np.testing.assert_array_equal(decode(encoded, max_pixels=LIMIT), wanted)
    with pytest.raises(UndecodableImage, match=f"^{width}x{height} pixels are more than the limit of {width * height - 1}$"):
        decode(encoded, max_pixels=width * height - 1)


def test_pixels_beyond_any_limit_are_refused_as_pillow_refuses_them() -> None:
    with pytest.raises(UndecodableImage, match=f"its pixels are more than the limit of {LIMIT}$"):
        decode(claiming(60_000, 60_000), max_pixels=LIMIT)
    with pytest.raises(UndecodableImage, match=r"its pixels are more than the limit of 10000000000$"):
        decode(claiming(60_000, 60_000), max_pixels=10**10)


@pytest.mark.parametrize("shift", [0, 1])
def test_scans_are_counted_wherever_they_lie(shift: int) -> None:
    assert decode(PLAIN + bytes(shift) + b"\xff\xda" * 99, max_pixels=LIMIT)
    with pytest.raises(UndecodableImage, match=r"^more than 100 scans$"):
        decode(PLAIN + bytes(shift) + b"\xff\xda" * 100, max_pixels=LIMIT)
