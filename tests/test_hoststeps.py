"""The steps that are named after torchvision's, against torchvision and timm themselves."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from tensign.errors import UndecodableImage, UnsupportedModel
from tensign.hoststeps import CentreCrop, HostStep, ResizeShorter, parse_step
from tensign.preprocess import PreprocessSpec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")
    transforms = pytest.importorskip("torchvision.transforms")
    models = pytest.importorskip("torchvision.models")
    create_transform = pytest.importorskip("timm.data").create_transform

    from tensign_converters.pictures.steps import Normalize, Scale

MODES = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
SIZES = [(64, 64), (40, 30), (31, 57), (101, 64), (64, 151), (7, 5), (301, 199), (80, 48), (1, 40), (40, 1), (1, 1), (225, 224)]
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
INCEPTION = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def picture(width: int, height: int, mode: str = "RGB") -> PIL.Image.Image:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return PIL.Image.fromarray(np.random.default_rng(width * 10_000 + height).integers(0, 256, shape, np.uint8))


def applied(steps: tuple[HostStep, ...], image: PIL.Image.Image) -> npt.NDArray[np.uint8]:
    """What leaves the steps for the same picture as an array and as a file, which must be the same."""
    spec, buffer = PreprocessSpec(steps, mode=image.mode), io.BytesIO()
    image.save(buffer, "PNG")
    pixels = spec.arrays(np.asarray(image)[None])
    assert pixels.shape[1:3] == spec.size(image.height, image.width)
    np.testing.assert_array_equal(pixels, spec.encoded([buffer.getvalue()], height=-1, width=-1))
    return pixels


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [1, 17, 64, 100])
def test_resize_shorter_is_torchvisions_resize(size: int, mode: str) -> None:
    theirs = transforms.Resize(size, interpolation=transforms.InterpolationMode(mode))
    for width, height in SIZES:
        for image in (picture(width, height), picture(width, height, "L")):
            ours = applied((ResizeShorter(size, mode),), image)[0]
            np.testing.assert_array_equal(ours, np.asarray(theirs(image)), f"{width}x{height}, {image.mode}")


@pytest.mark.parametrize("size", [(64, 64), (33, 64), (64, 33), (1, 1), (200, 40), (41, 200), (2, 3)])
def test_centre_crop_is_torchvisions_centercrop(size: tuple[int, int]) -> None:
    theirs = transforms.CenterCrop(size)
    for width, height in SIZES:
        for image in (picture(width, height), picture(width, height, "L")):
            ours = applied((CentreCrop(*size),), image)[0]
            np.testing.assert_array_equal(ours, np.asarray(theirs(image)), f"{width}x{height}, {image.mode}")


PRESETS: list[tuple[str, tuple[HostStep, ...], dict[str, Any], Any]] = [
    (
        "resnet18",
        (ResizeShorter(256), CentreCrop(224, 224)),
        IMAGENET,
        models.ResNet18_Weights.IMAGENET1K_V1.transforms(),
    ),
    (
        "resnet50",
        (ResizeShorter(232), CentreCrop(224, 224)),
        IMAGENET,
        models.ResNet50_Weights.IMAGENET1K_V2.transforms(),
    ),
    (
        "efficientnet_b1",
        (ResizeShorter(255), CentreCrop(240, 240)),
        IMAGENET,
        models.EfficientNet_B1_Weights.IMAGENET1K_V2.transforms(),
    ),
    (
        "efficientnet_b0",
        (ResizeShorter(256, "bicubic"), CentreCrop(224, 224)),
        IMAGENET,
        models.EfficientNet_B0_Weights.IMAGENET1K_V1.transforms(),
    ),
    (
        "timm crop_pct 0.875",
        (ResizeShorter(256, "bicubic"), CentreCrop(224, 224)),
        IMAGENET,
        create_transform((3, 224, 224), interpolation="bicubic", crop_pct=0.875, **IMAGENET),
    ),
    (
        "timm crop_pct 0.9",
        (ResizeShorter(248, "bicubic"), CentreCrop(224, 224)),
        INCEPTION,
        create_transform((3, 224, 224), interpolation="bicubic", crop_pct=0.9, **INCEPTION),
    ),
    (
        "timm crop_pct 1",
        (ResizeShorter(96), CentreCrop(96, 96)),
        INCEPTION,
        create_transform((3, 96, 96), interpolation="bilinear", crop_pct=1.0, **INCEPTION),
    ),
]


@pytest.mark.parametrize(("steps", "statistics", "theirs"), [each[1:] for each in PRESETS], ids=[each[0] for each in PRESETS])
def test_with_the_float_steps_it_is_what_torchvision_and_timm_feed_their_networks(
    steps: tuple[HostStep, ...], statistics: dict[str, Any], theirs: Any
) -> None:
    normalize = Normalize(**statistics)
    for width, height in [(300, 260), (260, 301), (224, 224), (640, 427), (427, 640), (100, 90), (31, 57), (999, 225)]:
        image = picture(width, height)
        ours = normalize(Scale(255)(torch.from_numpy(applied(steps, image)).permute(0, 3, 1, 2).float()))[0]
        assert float((ours - theirs(image)).abs().max()) <= 1e-6


@pytest.mark.parametrize(
    ("steps", "image", "text"),
    [
        ((ResizeShorter(64),), (2000, 1), "resized to 128000x64 pixels it is more than the limit of 10000"),
        ((CentreCrop(101, 100),), (9, 9), "cropped to 100x101 pixels it is more than the limit of 10000"),
    ],
)
def test_no_picture_grows_beyond_the_pixel_limit(steps: tuple[HostStep, ...], image: tuple[int, int], text: str) -> None:
    with pytest.raises(UndecodableImage, match=text):
        PreprocessSpec(steps).arrays(np.asarray(picture(*image))[None], max_pixels=10_000)


@pytest.mark.parametrize("step", [ResizeShorter(256, "bicubic"), CentreCrop(224, 192)])
def test_a_step_reads_back(step: HostStep) -> None:
    spec = PreprocessSpec((step,))
    assert PreprocessSpec.parse(spec.document()) == spec


def test_size_of_any_picture_is_known_only_where_it_is_cropped() -> None:
    assert PreprocessSpec((ResizeShorter(256),)).size(-1, -1) == (-1, -1)
    assert PreprocessSpec((ResizeShorter(256), CentreCrop(224, 192))).size(-1, -1) == (224, 192)
    assert PreprocessSpec((ResizeShorter(256),)).size(300, 400) == (256, 341)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"op": "resize_shorter", "size": 0}, "resize_shorter: wanted positive height and width"),
        ({"op": "resize_shorter", "size": 9000}, "9000x9000 pixels are more than the limit"),
        ({"op": "resize_shorter", "size": True}, "wanted positive height and width, got True"),
        ({"op": "resize_shorter", "size": 8, "interpolation": "cubic"}, 'interpolation "cubic" is unknown; wanted one of'),
        ({"op": "centre_crop", "height": 8, "width": -1}, "centre_crop: wanted positive height and width, got 8 and -1"),
        ({"op": "center_crop", "height": 8, "width": 8}, "this tensign knows resize, crop_pad, ratio_resize, resize_shorter, "),
    ],
)
def test_a_step_that_no_picture_could_pass_is_refused(document: dict[str, Any], text: str) -> None:
    with pytest.raises(UnsupportedModel, match=re.escape(text)):
        parse_step(document)
