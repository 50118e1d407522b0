"""Encoded pictures: the pixels are Pillow's, and whatever is no picture is refused in words."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensign.decode import decode
from tensign.errors import UndecodableImage

LIMIT = 1_000_000
Image = PIL.Image.Image


def photograph(width: int = 61, height: int = 43) -> Image:
    """Smooth colours with some noise, the same each time."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(0).integers(0, 40, (height, width, 3))
    pixels = np.stack([x * 200 // width, y * 200 // height, (x + y) * 200 // (width + height)], axis=-1) + noise
    return PIL.Image.fromarray(pixels.astype(np.uint8))


def encode(image: Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pillow(encoded: bytes) -> Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, of odd palettes and EXIF
        return PIL.Image.open(io.BytesIO(encoded)).convert("RGB")


def assert_same(got: Image, wanted: Image) -> None:
    assert got.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(got), np.asarray(wanted))


RGB = photograph()
ALPHA = photograph().convert("RGBA")
ALPHA.putalpha(RGB.convert("L"))
EXIF = PIL.Image.Exif()
EXIF[0x0112] = 6  # orientation: turn a quarter clockwise to view

ENCODED = {
    "JPEG": encode(RGB, "JPEG"),
    "JPEG grey": encode(RGB.convert("L"), "JPEG"),
    "JPEG CMYK": encode(RGB.convert("CMYK"), "JPEG"),
    "JPEG progressive": encode(RGB, "JPEG", progressive=True),
    "JPEG grey progressive": encode(RGB.convert("L"), "JPEG", progressive=True),
    "JPEG stored as RGB": encode(RGB, "JPEG", keep_rgb=True),
    "JPEG with restart markers": encode(RGB, "JPEG", restart_marker_rows=1),
    "JPEG with its own Huffman tables": encode(RGB, "JPEG", optimize=True),
    "JPEG of several pictures": encode(RGB, "MPO", save_all=True, append_images=[photograph(20, 10)]),
    "JPEG of one pixel": encode(photograph(1, 1), "JPEG"),
    "PNG": encode(RGB, "PNG"),
    "PNG grey": encode(RGB.convert("L"), "PNG"),
    "PNG RGBA": encode(ALPHA, "PNG"),
    "PNG LA": encode(ALPHA.convert("LA"), "PNG"),
    "PNG palette": encode(RGB.quantize(17), "PNG"),
    "PNG palette, one colour transparent": encode(RGB.quantize(17), "PNG", transparency=3),
    "PNG palette, alpha for each colour": encode(RGB.quantize(17), "PNG", transparency=bytes(range(0, 255, 15))),
    "PNG RGB, one colour transparent": encode(RGB, "PNG", transparency=(0, 0, 0)),
    "PNG 16 bit": encode(PIL.Image.fromarray(np.arange(61 * 43, dtype=np.uint16).reshape(43, 61) * 25), "PNG"),
    "PNG 1 bit": encode(RGB.convert("1"), "PNG"),
    "WebP": encode(RGB, "WEBP"),
    "WebP lossless": encode(RGB, "WEBP", lossless=True),
    "WebP RGBA": encode(ALPHA, "WEBP"),
    "WebP animated": encode(RGB, "WEBP", save_all=True, append_images=[RGB.rotate(90)]),
    "BMP": encode(RGB, "BMP"),
    "BMP grey": encode(RGB.convert("L"), "BMP"),
    "BMP 1 bit": encode(RGB.convert("1"), "BMP"),
    "BMP palette": encode(RGB.quantize(17), "BMP"),
}


@pytest.mark.parametrize("kind", ENCODED)
def test_pixels_are_pillows(kind: str) -> None:
    assert_same(decode(ENCODED[kind], max_pixels=LIMIT), pillow(ENCODED[kind]))


def test_bundled_pictures_are_pillows(pictures: list[Path]) -> None:
    assert pictures
    for picture in pictures:
        assert_same(decode(picture.read_bytes(), max_pixels=LIMIT), pillow(picture.read_bytes()))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("quality", [1, 30, 75, 90, 100])
def test_jpeg_of_every_quality_and_size_is_pillows(quality: int, subsampling: str) -> None:
    for size in ((61, 43), (64, 64), (8, 8), (17, 1), (1, 9), (7, 15), (301, 200)):
        encoded = encode(photograph(*size), "JPEG", quality=quality, subsampling=subsampling)
        assert_same(decode(encoded, max_pixels=LIMIT), pillow(encoded))


@pytest.mark.parametrize(
    "flaw",
    [
        pytest.param(lambda jpeg: jpeg[:-2] + b"\0\0\0\0" + jpeg[-2:], id="stray bytes before the end marker"),
        pytest.param(lambda jpeg: jpeg + b"\0trailer", id="trailer"),
        pytest.param(lambda jpeg: jpeg.replace(b"\x03\x11\x00\x3f\x00", b"\x03\x11\x00\x3f\x01"), id="odd SOS parameters"),
    ],
)
def test_jpeg_with_a_flaw_that_libjpeg_only_warns_of_is_pillows(flaw: Callable[[bytes], bytes]) -> None:
    flawed = flaw(ENCODED["JPEG"])
    assert flawed != ENCODED["JPEG"]
    assert_same(decode(flawed, max_pixels=LIMIT), pillow(flawed))


# orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_ignored_unless_asked_for(kind: str) -> None:
    encoded = encode(RGB, kind, exif=EXIF)
    assert_same(decode(encoded, max_pixels=LIMIT), pillow(encoded))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_orientation_is_applied_when_asked_for(orientation: int, kind: str, mode: str) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    encoded = encode(RGB.convert(mode), kind, exif=exif)
    wanted = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(encoded))).convert("RGB")
    assert_same(decode(encoded, max_pixels=LIMIT, apply_exif_orientation=True), wanted)
    assert wanted.size == ((43, 61) if orientation > 4 else (61, 43))


def test_orientation_6_turns_the_top_left_corner_to_the_top_right() -> None:
    image = PIL.Image.new("RGB", (2, 3))
    image.putpixel((0, 0), (255, 0, 0))
    turned = decode(encode(image, "PNG", exif=EXIF), max_pixels=LIMIT, apply_exif_orientation=True)
    assert turned.size == (3, 2)
    assert turned.getpixel((2, 0)) == (255, 0, 0)


@pytest.mark.parametrize("kind", [kind for kind in ENCODED if kind != "JPEG of several pictures"])
def test_picture_without_orientation_stays_as_it_is(kind: str) -> None:
    assert_same(decode(ENCODED[kind], max_pixels=LIMIT, apply_exif_orientation=True), pillow(ENCODED[kind]))


# what is no picture


def png_claiming(width: int, height: int) -> bytes:
    """A PNG that is honest but for its size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(b"", id="empty"),
        pytest.param(random.Random(0).randbytes(5000), id="random"),
        pytest.param(b"a photograph of a cat", id="text"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", id="svg"),
        pytest.param(encode(RGB, "GIF"), id="GIF"),
        pytest.param(encode(RGB, "TIFF"), id="TIFF"),
        pytest.param(encode(RGB, "PPM"), id="PPM"),
        pytest.param(encode(RGB, "ICO", sizes=[(16, 16)]), id="ICO"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", id="EPS"),
    ],
)
def test_bytes_of_no_format_we_decode(encoded: bytes) -> None:
    with pytest.raises(UndecodableImage) as caught:
        decode(encoded, max_pixels=LIMIT)
    assert str(caught.value) == f"{len(encoded)} bytes are no JPEG, PNG, WEBP, BMP picture"


@pytest.mark.parametrize("kind", ["JPEG", "JPEG grey", "JPEG progressive", "JPEG CMYK", "PNG", "PNG RGBA", "WebP", "BMP"])
@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_truncated_picture(kind: str, part: float) -> None:
    encoded = ENCODED[kind]
    with pytest.raises(UndecodableImage, match=r"broken picture: |bytes are no JPEG"):
        decode(encoded[: int(len(encoded) * part)], max_pixels=LIMIT)


@pytest.mark.parametrize("kind", ENCODED)
def test_picture_over_the_limit_is_refused(kind: str) -> None:
    width, height = pillow(ENCODED[kind]).size
    assert decode(ENCODED[kind], max_pixels=width * height)
    with pytest.raises(UndecodableImage, match=f"{width}x{height} pixels are more than the limit of {width * height - 1}"):
        decode(ENCODED[kind], max_pixels=width * height - 1)


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (10_000, 10_000), (2**31 - 1, 1)])
def test_limit_is_checked_before_decoding_and_named(width: int, height: int) -> None:
    with pytest.raises(UndecodableImage, match=f"pixels are more than the limit of {LIMIT}"):
        decode(png_claiming(width, height), max_pixels=LIMIT)


def test_within_the_limit_the_same_header_fails_in_decoding() -> None:
    with pytest.raises(UndecodableImage, match="broken picture: "):
        decode(png_claiming(100, 100), max_pixels=LIMIT)


def test_threads_that_decode_leave_the_warning_filters_alone() -> None:
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as threads:
        for _ in threads.map(lambda _: decode(ENCODED["PNG"], max_pixels=LIMIT), range(2000)):
            pass
    assert list(warnings.filters) == before


def test_long_reason_is_cut() -> None:
    with pytest.raises(UndecodableImage) as caught:
        decode(ENCODED["JPEG"][:400], max_pixels=LIMIT)
    assert len(str(caught.value)) < 250


SMALL = [encode(photograph(9, 7), kind, exif=EXIF) for kind in ("JPEG", "PNG", "WEBP")] + [
    encode(photograph(9, 7), "JPEG", progressive=True),
    encode(photograph(9, 7).convert("CMYK"), "JPEG"),
    encode(photograph(9, 7).quantize(5), "PNG"),
    encode(photograph(9, 7), "BMP"),
]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(SMALL), st.data(), st.booleans())
def test_broken_bytes_give_a_picture_or_one_error(encoded: bytes, data: st.DataObject, apply: bool) -> None:
    broken = bytearray(encoded)
    places = st.integers(0, len(encoded) - 1)
    for place, value in data.draw(st.dictionaries(places, st.integers(0, 255), max_size=8)).items():
        broken[place] = value
    del broken[data.draw(st.one_of(st.just(len(encoded)), places)) :]
    try:
        image = decode(bytes(broken), max_pixels=10_000, apply_exif_orientation=apply)
    except UndecodableImage as error:
        assert str(error)
    else:
        assert image.width * image.height <= 10_000
        if not apply:
            assert_same(image, pillow(bytes(broken)))


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\1\0\0WEBP", b"BM"]))
def test_any_bytes_give_one_error(tail: bytes, magic: bytes) -> None:
    with pytest.raises(UndecodableImage):
        decode(magic + tail, max_pixels=10_000)
