"""Declared preprocessing: data that is read, hashed and run, with the pixels that fastai would make."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from tensign.errors import UndecodableImage, UnsupportedModel
from tensign.preprocess import CropPad, PreprocessSpec, Resize

LIMIT = 1_000_000
SPEC = PreprocessSpec((Resize(256, 224, "pad", "border", "bicubic"), CropPad(200, 210)), "apply", ("divide by 255",))


def pixels(width: int, height: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(width * 10_000 + height).integers(0, 256, (height, width, 3), np.uint8)


def png(image: npt.NDArray[np.uint8], **options: Any) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "PNG", **options)
    return buffer.getvalue()


# the document


@pytest.mark.parametrize("spec", [PreprocessSpec(), SPEC, PreprocessSpec((CropPad(3, 4, "reflection"),))])
def test_document_reads_back(spec: PreprocessSpec) -> None:
    assert PreprocessSpec.parse(spec.document()) == spec
    assert PreprocessSpec.parse(json.loads(json.dumps(spec.document()))) == spec


def test_document_is_written_out_in_full() -> None:
    assert PreprocessSpec((Resize(8, 9),)).document() == {
        "version": 1,
        "exif_orientation": "ignore",
        "steps": [
            {"op": "resize", "height": 8, "width": 9, "method": "crop", "pad_mode": "reflection", "interpolation": "bilinear"}
        ],
        "graph": [],
        "sha256": "953e8cc011527c7b0b13d52e2ce778fa73f329c371202f06d860f07ee7597d21",
    }


def test_what_a_person_declares_may_leave_out_the_defaults() -> None:
    declared = {"version": 1, "steps": [{"op": "resize", "height": 8, "width": 9}]}
    assert PreprocessSpec.parse(declared) == PreprocessSpec((Resize(8, 9),))


def test_digest_is_stable_from_release_to_release() -> None:
    assert SPEC.digest == PreprocessSpec(SPEC.steps, SPEC.exif_orientation, SPEC.graph).digest
    assert SPEC.digest == "02e454df44dbca292d05a172157238f5e3c6d7cfd9bedb6e1346e3c2233f7b5e"


@pytest.mark.parametrize(
    "other",
    [
        PreprocessSpec(SPEC.steps[::-1], SPEC.exif_orientation, SPEC.graph),
        PreprocessSpec(SPEC.steps[:1], SPEC.exif_orientation, SPEC.graph),
        PreprocessSpec(SPEC.steps, "ignore", SPEC.graph),
        PreprocessSpec(SPEC.steps, SPEC.exif_orientation, ()),
        PreprocessSpec((Resize(256, 224, "pad", "border", "bilinear"), CropPad(200, 210)), "apply", SPEC.graph),
    ],
)
def test_digest_tells_of_every_change(other: PreprocessSpec) -> None:
    assert other.digest != SPEC.digest


def test_tampered_document_is_refused() -> None:
    document = SPEC.document()
    document["steps"][0]["interpolation"] = "nearest"
    with pytest.raises(UnsupportedModel, match=f"changed since it was hashed: {SPEC.digest} became "):
        PreprocessSpec.parse(document)


RESIZE = {"op": "resize", "height": 8, "width": 9}


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({}, "KeyError: 'version'"),
        (None, "preprocess: TypeError"),
        ({"version": 2}, "version 2 is unknown; this tensign knows 1"),
        (
            {"version": 1, "exif_orientation": "sometimes"},
            'exif_orientation "sometimes" is unknown; wanted one of ignore, apply',
        ),
        ({"version": 1, "steps": None}, "preprocess: TypeError"),
        ({"version": 1, "steps": ["resize"]}, "preprocess: AttributeError"),
        ({"version": 1, "steps": [{}]}, "KeyError: 'op'"),
        (
            {"version": 1, "steps": [{"op": "flip"}]},
            'step "flip" is unknown; this tensign knows resize, crop_pad, ratio_resize',
        ),
        ({"version": 1, "steps": [{"op": "resize"}]}, "missing 2 required positional arguments: 'height' and 'width'"),
        ({"version": 1, "steps": [{**RESIZE, "antialias": True}]}, "unexpected keyword argument 'antialias'"),
        ({"version": 1, "steps": [{**RESIZE, "method": "zoom"}]}, 'resize: method "zoom" is unknown; wanted one of crop, pad'),
        ({"version": 1, "steps": [{**RESIZE, "pad_mode": "wrap"}]}, 'pad_mode "wrap" is unknown; wanted one of zeros, border'),
        ({"version": 1, "steps": [{**RESIZE, "interpolation": 2}]}, 'interpolation "2" is unknown; wanted one of nearest'),
        ({"version": 1, "steps": [{**RESIZE, "op": "crop_pad", "pad_mode": "?"}]}, 'crop_pad: pad_mode "?" is unknown'),
        ({"version": 1, "graph": 7}, "preprocess: TypeError"),
    ],
)
def test_document_that_this_version_cannot_follow(document: Any, text: str) -> None:
    with pytest.raises(UnsupportedModel, match=re.escape(text)):
        PreprocessSpec.parse(document)


@pytest.mark.parametrize("side", [0, -1, 2.5, "64", None, True])
@pytest.mark.parametrize("op", ["resize", "crop_pad"])
def test_size_must_be_a_positive_integer(side: Any, op: str) -> None:
    with pytest.raises(UnsupportedModel, match=f"preprocess: {op}: wanted positive height and width, got"):
        PreprocessSpec.parse({"version": 1, "steps": [{"op": op, "height": 64, "width": side}]})


# what it does


def test_size_is_that_of_the_last_step() -> None:
    assert SPEC.size(-1, -1) == (200, 210)
    assert PreprocessSpec().size(300, -1) == (300, -1)


@pytest.mark.parametrize(
    "spec", [PreprocessSpec(), PreprocessSpec((Resize(30, 40),)), PreprocessSpec((Resize(30, 40), CropPad(30, 40)))]
)
def test_arrays_that_nothing_changes_are_not_copied(spec: PreprocessSpec) -> None:
    images = np.stack([pixels(40, 30)] * 2)
    assert spec.keeps(30, 40)
    assert spec.arrays(images) is images


def test_arrays_are_transformed_row_by_row() -> None:
    spec = PreprocessSpec((Resize(8, 9),))
    images = np.stack([pixels(40, 30), pixels(40, 30)[::-1]])
    assert not spec.keeps(30, 40)
    got = spec.arrays(images)
    assert got.shape == (2, 8, 9, 3)
    for row, image in enumerate(images):
        np.testing.assert_array_equal(got[row], spec.arrays(image[None])[0])


def test_encoded_pictures_of_any_size_become_one_array() -> None:
    spec = PreprocessSpec((Resize(8, 9),))
    images = [pixels(40, 30), pixels(9, 8), pixels(3, 50)]
    got = spec.encoded([png(image) for image in images], height=8, width=9, max_pixels=LIMIT)
    assert got.shape == (3, 8, 9, 3)
    assert got.dtype == np.uint8
    for row, image in enumerate(images):
        np.testing.assert_array_equal(got[row], spec.arrays(image[None])[0])


def test_pictures_of_the_right_size_need_no_steps() -> None:
    got = PreprocessSpec().encoded([png(pixels(40, 30))] * 2, height=30, width=40, max_pixels=LIMIT)
    np.testing.assert_array_equal(got, [pixels(40, 30)] * 2)


def test_one_picture_is_not_copied_but_a_part_of_it_is() -> None:
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels(40, 30)).save(buffer, "JPEG")
    whole = PreprocessSpec().encoded([buffer.getvalue()], height=30, width=40, max_pixels=LIMIT)
    assert whole.base is not None and whole.base.nbytes == whole.nbytes
    part = PreprocessSpec((CropPad(10, 40),)).encoded([buffer.getvalue()], height=10, width=40, max_pixels=LIMIT)
    assert part.base is None  # else the rest of the picture would wait with it
    np.testing.assert_array_equal(part[0], whole[0, 10:20])


def test_any_size_is_the_first_pictures_size() -> None:
    got = PreprocessSpec().encoded([png(pixels(40, 30))], height=-1, width=-1, max_pixels=LIMIT)
    assert got.shape == (1, 30, 40, 3)


@pytest.mark.parametrize(("orientation", "shape"), [("ignore", (30, 40)), ("apply", (40, 30))])
def test_orientation_is_applied_where_declared(orientation: str, shape: tuple[int, int]) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    spec = PreprocessSpec(exif_orientation=orientation)
    got = spec.encoded([png(pixels(40, 30), exif=exif)], height=-1, width=-1, max_pixels=LIMIT)
    assert got.shape[1:3] == shape


def test_bad_picture_is_named_by_its_row() -> None:
    with pytest.raises(UndecodableImage, match="row 2: 4 bytes are no JPEG"):
        PreprocessSpec().encoded([png(pixels(4, 3))] * 2 + [b"junk"], height=3, width=4, max_pixels=LIMIT)


def test_picture_over_the_pixel_limit_is_named_by_its_row() -> None:
    with pytest.raises(UndecodableImage, match="row 0: 40x30 pixels are more than the limit of 1199"):
        PreprocessSpec((Resize(8, 8),)).encoded([png(pixels(40, 30))], height=8, width=8, max_pixels=1199)


def test_picture_of_another_size_without_steps_is_refused_with_both_sizes() -> None:
    with pytest.raises(UndecodableImage, match="row 1: the model resizes nothing and wants 30x40 pixels, got 8x9"):
        PreprocessSpec().encoded([png(pixels(40, 30)), png(pixels(9, 8))], height=30, width=40, max_pixels=LIMIT)


def test_pictures_that_differ_where_any_size_goes_are_refused_with_both_sizes() -> None:
    with pytest.raises(UndecodableImage, match=r"row 1: .*30x40.*8x9"):
        PreprocessSpec().encoded([png(pixels(40, 30)), png(pixels(9, 8))], height=-1, width=-1, max_pixels=LIMIT)


def test_thin_picture_is_not_padded_beyond_the_pixel_limit() -> None:
    spec = PreprocessSpec((Resize(8, 8, "pad"),))
    with pytest.raises(UndecodableImage, match=r"row 0: .*limit of 10000"):
        spec.encoded([png(pixels(2000, 1))], height=8, width=8, max_pixels=10_000)  # 2000x2000 once it is padded


# the oracle: fastai itself


RESAMPLES = {"nearest": 0, "lanczos": 1, "bicubic": 3, "box": 4, "hamming": 5}  # fastai passes them on to Pillow
TRANSFORMS: list[tuple[str, dict[str, Any]]] = [
    *(
        ("Resize", {"size": size, "method": method, "pad_mode": pad_mode})
        for size in (64, (48, 80), (81, 47))
        for method, pad_mode in (
            ("crop", "reflection"),
            ("pad", "zeros"),
            ("pad", "border"),
            ("pad", "reflection"),
            ("squish", "reflection"),
        )
    ),
    *(
        ("Resize", {"size": 50, "method": method, "resamples": (PIL.Image.Resampling(number), 0)})
        for method in ("crop", "pad", "squish")
        for number in RESAMPLES.values()
    ),
    *(
        ("CropPad", {"size": size, "pad_mode": pad_mode})
        for size in (64, (48, 80))
        for pad_mode in ("zeros", "border", "reflection")
    ),
    *(("RandomCrop", {"size": size}) for size in (64, (48, 80), (37, 31))),
    ("RandomResizedCrop", {"size": 64}),
    ("RandomResizedCrop", {"size": (48, 80)}),
    ("RandomResizedCrop", {"size": 64, "min_scale": 0.5, "val_xtra": 0.3}),
    ("RandomResizedCrop", {"size": 64, "val_xtra": 0}),
    ("RandomResizedCrop", {"size": 64, "resamples": (PIL.Image.Resampling.BICUBIC, 0)}),
]
SIZES = [(64, 64), (40, 30), (31, 57), (101, 64), (64, 151), (7, 5), (301, 199), (80, 48), (1, 200), (200, 1), (1, 1)]


@pytest.mark.parametrize(("kind", "options"), TRANSFORMS, ids=lambda part: str(part))
def test_pixels_are_fastais(kind: str, options: dict[str, Any]) -> None:
    vision = pytest.importorskip("fastai.vision.all")  # whose warnings on import it swallows
    from tensign_converters.learners.learner import _transform
    from tensign_converters.learners.transforms import preprocessing

    transform = getattr(vision, kind)(**options)
    spec = preprocessing("PILImage", [_transform(transform)], [], (64, 64)).spec()
    for width, height in SIZES:
        image = pixels(width, height)
        wanted = np.asarray(transform(vision.PILImage.create(image), split_idx=1))
        assert wanted.shape[:2] == spec.size(height, width)
        np.testing.assert_array_equal(spec.arrays(image[None])[0], wanted, f"array of {width}x{height}")
        encoded = spec.encoded([png(image)], height=-1, width=-1, max_pixels=LIMIT)
        np.testing.assert_array_equal(encoded[0], wanted, f"file of {width}x{height}")
