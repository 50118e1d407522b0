"""Which pictures another decoder gets and whose pixels come out. The decoders are libjpeg-turbo's, marked or broken on purpose:
they prove choices and faults, not CUDA."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import simplejpeg

from tensign.admission import Admission
from tensign.config import ModelConfig
from tensign.crossover import Difference, grid
from tensign.decode import Pixels, decode
from tensign.demo import MODEL
from tensign.errors import ProviderUnavailable, UndecodableImage
from tensign.gpudecoding import GpuDecoding, gpu_decoding
from tensign.http.metrics import exposition
from tensign.model import Model
from tensign.preprocess import PreprocessSpec, Resize
from tensign.repository import Repository

TILE = 640 * 427
LIMIT = 10 * TILE


class Marked:
    """libjpeg-turbo, whose pixels are one level off, so that they tell who decoded; keeps what it was given."""

    def __init__(self) -> None:
        self.given: list[list[bytes]] = []

    def decode(self, encoded: Sequence[bytes]) -> list[Pixels | None]:
        self.given.append(list(encoded))
        return [simplejpeg.decode_jpeg(each, "RGB") ^ 1 for each in encoded]


class Failing(Marked):
    """Decodes no picture."""

    def decode(self, encoded: Sequence[bytes]) -> list[Pixels | None]:
        self.given.append(list(encoded))
        return [None] * len(encoded)


class Lost(Marked):
    """A device that fell away."""

    def decode(self, encoded: Sequence[bytes]) -> list[Pixels | None]:
        super().decode(encoded)
        raise RuntimeError("CUDA error 719")


class Short(Marked):
    """Gives fewer pictures than it was asked for."""

    def decode(self, encoded: Sequence[bytes]) -> list[Pixels | None]:
        return super().decode(encoded)[1:]


def decoding(decoder: Any, pixels: int | None = TILE) -> GpuDecoding:
    return GpuDecoding(decoder, "cuda:0", pixels, Difference(1, 1.0))


def image(width: int = 640, height: int = 427) -> PIL.Image.Image:
    return decode(grid(1), max_pixels=LIMIT).resize((width, height))


def jpeg(picture: PIL.Image.Image | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (picture or image()).save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()


def through(decoder: Any, *images: bytes, pixels: int | None = TILE, **options: Any) -> list[np.ndarray[Any, Any]]:
    found = decoding(decoder, pixels).pictures(images, **{"max_pixels": LIMIT, **options})
    return [np.asarray(picture) for picture in found]


def on_cpu(encoded: bytes, **options: Any) -> np.ndarray[Any, Any]:
    return np.asarray(decode(encoded, max_pixels=LIMIT, **options))


# which pictures it gets


def test_pictures_from_the_crossover_on_are_decoded_there_others_are_not() -> None:
    large, small = jpeg(), jpeg(image(639, 427))
    decoder = Marked()
    first, second, third = through(decoder, large, small, large)
    np.testing.assert_array_equal(first ^ 1, on_cpu(large))
    np.testing.assert_array_equal(second, on_cpu(small))
    np.testing.assert_array_equal(third, first)
    assert decoder.given == [[large], [large]]


def test_where_it_never_pays_it_gets_nothing() -> None:
    decoder = Marked()
    np.testing.assert_array_equal(through(decoder, jpeg(), pixels=None)[0], on_cpu(jpeg()))
    assert decoder.given == []


KINDS = {
    "4:4:4": (jpeg(subsampling="4:4:4"), True),
    "4:2:2": (jpeg(subsampling="4:2:2"), True),
    "4:2:0": (jpeg(subsampling="4:2:0"), True),
    "progressive": (jpeg(progressive=True), True),
    "4:4:0": (simplejpeg.encode_jpeg(np.asarray(image()), colorsubsampling="440"), False),
    "Adobe's RGB": (jpeg(keep_rgb=True), False),
    "grey": (jpeg(image().convert("L")), False),
    "CMYK": (jpeg(image().convert("CMYK")), False),
    "trailer": (jpeg() + b"\0trailer", False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_only_kinds_whose_difference_was_measured_are_decoded_there(kind: str) -> None:
    encoded, there = KINDS[kind]
    decoder = Marked()
    pixels = through(decoder, encoded)[0]
    assert bool(decoder.given) is there
    np.testing.assert_array_equal(pixels ^ there, on_cpu(encoded))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_other_formats_stay_on_the_cpu(kind: str) -> None:
    buffer, decoder = io.BytesIO(), Marked()
    image().save(buffer, kind)
    np.testing.assert_array_equal(through(decoder, buffer.getvalue())[0], on_cpu(buffer.getvalue()))
    assert decoder.given == []


# together, within the limit


def test_pictures_that_follow_each_other_are_given_together() -> None:
    large, decoder = jpeg(), Marked()
    assert len(through(decoder, *[large] * 12)) == 12
    assert [len(together) for together in decoder.given] == [8, 4]


def test_together_they_have_no_more_pixels_than_one_may_have() -> None:
    large, decoder = jpeg(), Marked()
    through(decoder, *[large] * 5, max_pixels=2 * TILE)
    assert [len(together) for together in decoder.given] == [2, 2, 1]


# faults, and who tells them


def told(encoded: bytes, **options: Any) -> str:
    with pytest.raises(UndecodableImage) as caught:
        decode(encoded, **{"max_pixels": LIMIT, **options})
    return str(caught.value)


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(jpeg()[:30_000], id="cut off"),
        pytest.param(b"\xff\xd8\xff" + bytes(100) + b"\xff\xd9", id="no header"),
        pytest.param(jpeg() + b"\xff\xda" * 101 + b"\xff\xd9", id="many scans"),
        pytest.param(b"", id="empty"),
    ],
)
def test_errors_are_those_of_the_cpu(encoded: bytes) -> None:
    good, decoder = jpeg(), Failing()
    found = decoding(decoder).pictures([good, encoded, good], max_pixels=LIMIT)
    np.testing.assert_array_equal(np.asarray(next(found)), on_cpu(good))
    with pytest.raises(UndecodableImage) as caught:
        next(found)
    assert str(caught.value) == told(encoded)


def test_a_flaw_that_only_the_cpu_passes_over_has_its_pixels() -> None:
    flawed, decoder = jpeg()[:30_000] + b"\xff\xd9", Failing()
    np.testing.assert_array_equal(through(decoder, flawed)[0], on_cpu(flawed))
    assert decoder.given == [[flawed]]


def test_a_picture_over_the_limit_is_refused_before_it_is_decoded() -> None:
    decoder = Marked()
    with pytest.raises(UndecodableImage) as caught:
        through(decoder, jpeg(), max_pixels=TILE - 1, pixels=1)
    assert str(caught.value) == told(jpeg(), max_pixels=TILE - 1)
    assert decoder.given == []


def test_pixels_of_another_size_are_not_taken() -> None:
    class Turned(Marked):
        def decode(self, encoded: Sequence[bytes]) -> list[Pixels | None]:
            return [None if pixels is None else np.rot90(pixels) for pixels in super().decode(encoded)]

    np.testing.assert_array_equal(through(Turned(), jpeg())[0], on_cpu(jpeg()))


@pytest.mark.parametrize(
    ("decoder", "why"), [(Lost(), "CUDA error 719"), (Short(), "zip() argument 2 is longer than argument 1")]
)
def test_a_device_that_fails_is_asked_no_more(decoder: Marked, why: str, caplog: pytest.LogCaptureFixture) -> None:
    large = jpeg()
    found = decoding(decoder)
    for _ in range(3):
        for picture in found.pictures([large, large], max_pixels=LIMIT):
            np.testing.assert_array_equal(np.asarray(picture), on_cpu(large))
    assert (len(decoder.given), found.pixels) == (1, None)
    assert [record.getMessage() for record in caplog.records] == [
        f"cuda:0 decodes no more: {why}; pictures are decoded on the CPU from now on"
    ]


# what follows decoding is the same


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_when_asked_for(orientation: int, mode: str) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    encoded = jpeg(exif=exif)
    raw = PIL.Image.fromarray(on_cpu(encoded) ^ 1).convert(mode)
    raw.info["exif"] = exif.tobytes()
    pixels = through(Marked(), encoded, apply_exif_orientation=True, mode=mode)[0]
    np.testing.assert_array_equal(pixels, np.asarray(PIL.ImageOps.exif_transpose(raw)))
    np.testing.assert_array_equal(through(Marked(), encoded)[0] ^ 1, on_cpu(encoded))


def test_steps_follow_and_an_error_names_its_row() -> None:
    spec, found = PreprocessSpec((Resize(30, 40),)), decoding(Marked())
    options: dict[str, Any] = {"height": 30, "width": 40, "max_pixels": LIMIT, "decoder": found.pictures}
    pixels = spec.encoded([jpeg(), jpeg()], **options)
    wanted = PIL.Image.fromarray(on_cpu(jpeg()) ^ 1)
    np.testing.assert_array_equal(pixels, [np.asarray(spec.steps[0].apply(wanted, LIMIT))] * 2)
    with pytest.raises(UndecodableImage, match="row 1: 4 bytes are no JPEG"):
        spec.encoded([jpeg(), b"junk"], **options)


# at load


class Exact:
    """libjpeg-turbo itself, eight times over: near enough, and no faster on a machine that does other things too."""

    def decode(self, encoded: Sequence[bytes]) -> list[Pixels | None]:
        return [simplejpeg.decode_jpeg(each, "RGB") for each in encoded for _ in range(8)][::8]


def test_a_decoder_that_is_not_faster_is_told_and_not_used(caplog: pytest.LogCaptureFixture) -> None:
    found = gpu_decoding("cuda:1,0", threads=1, max_pixels=TILE, decoder=Exact())
    assert (found.pixels, found.difference) == (None, Difference(0, 0.0))
    assert [record.getMessage() for record in caplog.records] == [
        "cuda:1 decodes JPEGs of no size faster than 1 threads here: all are decoded on the CPU"
    ]


class Quick:
    """Remembers what it decoded once."""

    def __init__(self) -> None:
        self.seen: dict[bytes, Pixels] = {}

    def decode(self, encoded: Sequence[bytes]) -> list[Pixels | None]:
        for each in encoded:
            if each not in self.seen:
                self.seen[each] = simplejpeg.decode_jpeg(each, "RGB")
        return [self.seen[each] for each in encoded]


def test_a_decoder_that_is_faster_is_used_and_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found = gpu_decoding("cuda", threads=2, max_pixels=TILE, decoder=Quick())
    assert found.pixels == TILE
    figures = "0 levels of 255 at most and 0.00 in the mean"
    assert caplog.messages == [f"JPEGs of {TILE} pixels or more are decoded on cuda:0; they differ from the CPU's by {figures}"]


def test_pixels_that_are_too_far_off_are_refused_with_both_figures() -> None:
    class Blocky:
        def decode(self, encoded: Sequence[bytes]) -> list[Pixels | None]:
            return [simplejpeg.decode_jpeg(each, "RGB", fastupsample=True) for each in encoded]

    with pytest.raises(
        ProviderUnavailable, match=r"off by \d\d levels of 255 at most and \d\.\d\d in the mean, allowed are 8 and 0\.50"
    ):
        gpu_decoding("cuda", threads=1, max_pixels=TILE, decoder=Blocky())


def test_a_mean_that_is_too_far_off_is_refused() -> None:
    with pytest.raises(ProviderUnavailable, match=r"off by 1 levels of 255 at most and 1\.00 in the mean"):
        gpu_decoding("cuda", threads=1, max_pixels=TILE, decoder=Marked())


def test_a_model_on_the_cpu_is_refused() -> None:
    with pytest.raises(ProviderUnavailable, match="the model runs on cpu; choose --device cuda, or leave it out"):
        Model.load(MODEL, ModelConfig(device="cpu", max_batch_size=1, gpu_decoding=True))


def test_a_model_without_pictures_has_nothing_to_decode(mean_model: Path) -> None:
    model = Model.load(mean_model, ModelConfig(device="cpu", max_batch_size=1, gpu_decoding=True))
    assert model.gpu_decoding is None
    model.close()


# served


def test_a_model_answers_from_its_pixels_and_metrics_tell() -> None:
    model = Model.load(MODEL, ModelConfig(device="cpu", max_batch_size=1))
    large, decoder = jpeg(), Marked()
    plain = model.infer({"image": np.array([large], object)})["probabilities"]
    model.gpu_decoding = decoding(decoder)
    marked = model.infer({"image": np.array([large], object)})["probabilities"]
    assert decoder.given == [[large]]
    assert 0 < np.abs(marked - plain).max() < 0.05
    page = exposition(Repository([model]), Admission(1), "")[0].decode()
    labels = '{model="efficientnet-lite0",version="1"}'
    assert f"tensign_gpu_decoding_pixels{labels} {float(TILE)}" in page
    assert f"tensign_gpu_decoding_levels{labels} 1.0" in page
    model.close()
