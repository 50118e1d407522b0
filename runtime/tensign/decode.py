"""Encoded image -> pixels, as the training libraries decode it, under a pixel limit checked before any decoding."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps
import simplejpeg

from tensign.errors import UndecodableImage
from tensign.jpegheader import jpeg_size

Pixels = npt.NDArray[np.uint8]
Picture = Pixels | PIL.Image.Image  # whichever there is without a copy
Pictures = Callable[..., Iterator[Picture]]  # as `pictures` below

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_MAX_SCANS = 100  # of a JPEG, each a pass over all pixels for as little as 17 bytes; what libraries write has 10 or so
_PLAIN_PIXELS = 1 << 26  # above, Pillow has a limit of its own


def decode(encoded: bytes, *, max_pixels: int, apply_exif_orientation: bool = False, mode: str = "RGB") -> PIL.Image.Image:
    """Decodes one JPEG, PNG, WebP or BMP to mode RGB or L, by Pillow's own `convert` for every other mode.

    EXIF orientation is ignored unless asked for, as fastai and torchvision ignore it. Raises UndecodableImage.
    """
    return as_image(read(encoded, max_pixels=max_pixels, apply_exif_orientation=apply_exif_orientation, mode=mode))


def pictures(
    images: Sequence[bytes], *, max_pixels: int, apply_exif_orientation: bool = False, mode: str = "RGB"
) -> Iterator[Picture]:
    """What `read` gives for each, one at a time."""
    for encoded in images:
        yield read(encoded, max_pixels=max_pixels, apply_exif_orientation=apply_exif_orientation, mode=mode)


def read(
    encoded: bytes, *, max_pixels: int, apply_exif_orientation: bool = False, mode: str = "RGB", pixels: Pixels | None = None
) -> Picture:
    """The same as `decode`, [H,W,3] where a JPEG's pixels need nothing more.

    pixels: what another decoder made of it, RGB, not turned; the file is checked all the same.
    """
    try:
        plain = None if pixels is not None or mode != "RGB" or apply_exif_orientation else _plain_size(encoded, max_pixels)
        if plain and (decoded := _fast_rgb(encoded, plain)) is not None:
            return decoded
        image = opened(encoded, max_pixels)
        if not plain and pixels is None and image.format == "JPEG" and image.mode in ("RGB", "L"):
            pixels = _fast_rgb(encoded, image.size)
        if pixels is not None and mode == "RGB" and not apply_exif_orientation:
            return pixels
        converted = _converted(image, mode) if pixels is None else PIL.Image.fromarray(pixels).convert(mode)
        return PIL.ImageOps.exif_transpose(_with_exif(converted, image)) if apply_exif_orientation else converted
    except UndecodableImage:
        raise
    except PIL.Image.DecompressionBombError:  # Pillow's own limit, far above ours, strikes in open()
        raise UndecodableImage(f"its pixels are more than the limit of {max_pixels}") from None
    except PIL.UnidentifiedImageError:
        raise UndecodableImage(f"{len(encoded)} bytes are no {', '.join(FORMATS)} picture") from None
    except Exception as error:  # decoders raise whatever a broken file makes them trip over
        raise UndecodableImage(f"broken picture: {type(error).__name__}: {str(error)[:120]}") from None


def opened(encoded: bytes, max_pixels: int) -> PIL.Image.Image:
    """Reads the header alone. Raises UndecodableImage for a picture beyond a limit, else what Pillow raises."""
    image = PIL.Image.open(io.BytesIO(encoded), formats=FORMATS)
    if image.width * image.height > max_pixels:
        raise UndecodableImage(f"{image.width}x{image.height} pixels are more than the limit of {max_pixels}")
    if image.format in ("JPEG", "MPO") and _scans(encoded) > _MAX_SCANS:
        raise UndecodableImage(f"more than {_MAX_SCANS} scans")
    return image


def as_image(picture: Picture) -> PIL.Image.Image:
    """A picture as Pillow has it."""
    return picture if isinstance(picture, PIL.Image.Image) else PIL.Image.fromarray(picture)


def _plain_size(encoded: bytes, max_pixels: int) -> tuple[int, int] | None:
    """Width and height of a JPEG within the limits that needs no Pillow, or else None."""
    size = jpeg_size(encoded)
    within = size and size[0] * size[1] <= min(max_pixels, _PLAIN_PIXELS) and _scans(encoded) <= _MAX_SCANS
    return size if within else None


def _scans(encoded: bytes) -> int:
    """How often FF DA stands there, at even places and at odd: five times as fast as bytes.count."""
    halves = (np.frombuffer(encoded, "<u2", (len(encoded) - at) // 2, at) for at in (0, 1))
    return sum(int(np.count_nonzero(half == 0xDAFF)) for half in halves)


def _fast_rgb(encoded: bytes, size: tuple[int, int]) -> Pixels | None:
    """libjpeg-turbo without Pillow's detours: the same pixels, 1.5 times as fast (tests compare them)."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(encoded)
        if (width, height) == size:  # else it would decode a header that nobody has checked
            decoded: Pixels = simplejpeg.decode_jpeg(encoded, "RGB")
            return decoded
    except ValueError:  # also what libjpeg only warns of, as many cameras write; Pillow has the last word
        pass
    return None


def _converted(image: PIL.Image.Image, mode: str) -> PIL.Image.Image:
    """Pillow's own conversion; transparency does not change it, Pillow only warns that there is no place for it."""
    image.load()
    image.info.pop("transparency", None)
    return image.convert(mode)


def _with_exif(pixels: PIL.Image.Image, original: PIL.Image.Image) -> PIL.Image.Image:
    pixels.info["exif"] = original.getexif().tobytes()
    return pixels
