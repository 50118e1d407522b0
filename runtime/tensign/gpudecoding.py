"""Large JPEGs are decoded on the GPU, where that was measured to pay and to be near enough; all others on the CPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from tensign.crossover import SAMPLINGS, Difference, JpegDecoder, crossover, difference
from tensign.decode import Picture, Pixels, opened, read
from tensign.doctor.driver import find_driver
from tensign.doctor.lookup import Lookup
from tensign.errors import ProviderUnavailable
from tensign.nvimagecodec import NvImageCodec

log = logging.getLogger(__name__)

# In levels of 255. NVIDIA's own tests allow 4 for any one pixel; decoders that enlarge chroma in another way differ by 40.
MOST, MEAN = 8, 0.5
_TOGETHER = 8  # pictures of one request that the device is given at once
_END = b"\xff\xd9"  # a file without was cut off, of which the CPU tells


class GpuDecoding:
    """pixels: pictures of at least so many are decoded on the device, None where that never pays."""

    def __init__(self, decoder: JpegDecoder, device: str, pixels: int | None, apart: Difference) -> None:
        self._decoder, self._device = decoder, device
        self.pixels, self.difference = pixels, apart

    def pictures(
        self, images: Sequence[bytes], *, max_pixels: int, apply_exif_orientation: bool = False, mode: str = "RGB"
    ) -> Iterator[Picture]:
        """As `decode.pictures`, and no more decoded pixels at once than max_pixels and those of one picture."""
        ahead: list[Pixels | None] = []
        for row, encoded in enumerate(images):
            ahead = ahead or self._decoded(images[row : row + _TOGETHER], max_pixels)
            yield read(
                encoded,
                max_pixels=max_pixels,
                apply_exif_orientation=apply_exif_orientation,
                mode=mode,
                pixels=ahead.pop(0),
            )

    def _decoded(self, images: Sequence[bytes], max_pixels: int) -> list[Pixels | None]:
        """Of the first ones, as many as suit and fit; at least one entry, None for what is left to the CPU."""
        sizes: list[tuple[int, int]] = []
        room = max_pixels
        for encoded in images:
            size = self._suits(encoded, room)
            if size is None:
                break
            sizes.append(size)
            room -= size[0] * size[1]
        if not sizes:
            return [None]
        try:
            decoded = list(zip(self._decoder.decode(images[: len(sizes)]), sizes, strict=True))
        except Exception as error:  # of the device, not of a picture
            self.pixels = None
            log.error("%s decodes no more: %s; pictures are decoded on the CPU from now on", self._device, error)
            return [None]
        return [pixels if pixels is not None and pixels.shape == (high, wide, 3) else None for pixels, (wide, high) in decoded]

    def _suits(self, encoded: bytes, max_pixels: int) -> tuple[int, int] | None:
        """Width and height of a JPEG that is large enough and of a kind whose difference was measured; else None."""
        least = self.pixels
        if least is None or not encoded.endswith(_END):
            return None
        try:
            image = opened(encoded, max_pixels)
        except Exception:  # decoding it on the CPU tells what is wrong
            return None
        if image.format != "JPEG" or image.mode != "RGB" or image.width * image.height < least:
            return None
        luma, *chroma = ((number, (across, down)) for number, across, down, _ in image.layer)  # type: ignore[attr-defined]
        is_ycc = luma[0] == 1 and chroma == [(2, (1, 1)), (3, (1, 1))] and image.info.get("adobe_transform", 1) == 1
        return image.size if is_ycc and luma[1] in SAMPLINGS.values() else None


def gpu_decoding(device: str, *, threads: int, max_pixels: int, decoder: JpegDecoder | None = None) -> GpuDecoding:
    """Measures on the device "cuda:N", "cuda:N,M" is its first, with `threads` that decode at once, and logs what it found.

    Raises ProviderUnavailable where nothing can be decoded there, or the pixels are further from the CPU's than MOST and MEAN.
    """
    kind, _, index = device.partition(":")
    if kind != "cuda":
        raise ProviderUnavailable(f"--gpu-decoding: the model runs on {device}; choose --device cuda, or leave it out")
    device = f"cuda:{index.partition(',')[0] or 0}"
    decoder = decoder or NvImageCodec(_number(device))
    apart = difference(decoder)
    said = f"{apart.most} levels of 255 at most and {apart.mean:.2f} in the mean"
    if apart.most > MOST or apart.mean > MEAN:
        raise ProviderUnavailable(
            f"--gpu-decoding: pixels of {device} are off by {said}, allowed are {MOST} and {MEAN:.2f}; leave --gpu-decoding out"
        )
    pixels = crossover(decoder, threads=threads, max_pixels=max_pixels)
    if pixels is None:
        log.warning("%s decodes JPEGs of no size faster than %d threads here: all are decoded on the CPU", device, threads)
    else:
        log.info("JPEGs of %d pixels or more are decoded on %s; they differ from the CPU's by %s", pixels, device, said)
    return GpuDecoding(decoder, device, pixels, apart)


def _number(device: str) -> int:
    """By which CUDA knows the device in this process. Raises ProviderUnavailable where it does not show it."""
    if (driver := find_driver(Lookup())) and (wanted := driver.gpu(device)):
        for number, gpu in enumerate(driver.gpus):
            if gpu.uuid == wanted.uuid:
                return number
    raise ProviderUnavailable(f"--gpu-decoding: this process does not see {device}; leave it out, or name a GPU by its number")
