"""Compiled resampling: whatever Pillow's resize gives, and Pillow itself wherever that is not certain."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL.Image import Resampling

from tensign import kernels, resample
from tensign.coefficients import coefficients
from tensign.hoststeps import CentreCrop, CropPad, HostStep, RatioResize, Resize, ResizeShorter
from tensign.preprocess import PreprocessSpec
from tensign.resample import Geometry, Resampler, by_pillow

Pixels = npt.NDArray[np.uint8]
FILTERS = (Resampling.BOX, Resampling.BILINEAR, Resampling.BICUBIC)
RUNTIME = Path(resample.__file__).parents[1]


def noise(*shape: int) -> Pixels:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)


def black_and_white(*shape: int) -> Pixels:
    return np.where(noise(*shape) & 1, np.uint8(255), np.uint8(0))


def flat(*shape: int) -> Pixels:
    return np.full(shape, 255, np.uint8)


def resampler() -> Resampler:
    return Resampler(kernels, by_pillow)


def check(ours: Resampler, pixels: Pixels, height: int, width: int, filter: Resampling) -> Geometry:
    """Resizes it three times: the first is Pillow's, the second compared, the third done by the kernels."""
    geometry = Geometry(pixels.shape, height, width, filter)
    wanted = np.asarray(PIL.Image.fromarray(pixels).resize((width, height), filter))
    for _ in range(3):
        np.testing.assert_array_equal(ours.resized(pixels, geometry), wanted, str(geometry))
    return geometry


SIDES = st.integers(1, 90)


@settings(max_examples=250, deadline=None)
@given(
    st.tuples(SIDES, SIDES, SIDES, SIDES),
    st.sampled_from(FILTERS),
    st.sampled_from([(3,), ()]),
    st.sampled_from([noise, black_and_white, flat]),
)
def test_pixels_are_pillows(
    sides: tuple[int, int, int, int], filter: Resampling, channels: tuple[int, ...], content: Callable[..., Pixels]
) -> None:
    high, wide, height, width = sides
    check(resampler(), content(high, wide, *channels), height, width, filter)


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((480, 640), (300, 300)),
        ((1080, 1920), (224, 224)),
        ((375, 500), (256, 341)),
        ((640, 480), (100, 300)),  # Pillow 13 does the rows first here
        ((104, 68), (15, 29)),
        ((480, 640), (480, 300)),
        ((480, 640), (300, 640)),
        ((63, 65), (31, 33)),
        ((65, 63), (64, 62)),
        ((1, 5000), (1, 70)),
        ((5000, 1), (70, 1)),
        ((3000, 4000), (224, 224)),
        ((2, 2), (1, 2)),
    ],
)
def test_the_kernels_take_over(before: tuple[int, int], after: tuple[int, int], filter: Resampling) -> None:
    for content in (noise, black_and_white):
        ours = resampler()
        assert ours.proven(check(ours, content(*before, 3), *after, filter))
        for _ in range(2):
            check(ours, flat(*before, 3), *after, filter)


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize(("before", "after"), [((33, 33), (11, 90)), ((200, 300), (1, 1)), ((1, 1), (9, 9)), ((1, 2), (2, 1))])
def test_where_both_orders_may_make_the_same_it_is_still_pillows(
    before: tuple[int, int], after: tuple[int, int], filter: Resampling
) -> None:
    ours = resampler()
    for content in (flat, noise, black_and_white):
        check(ours, content(*before, 3), *after, filter)


@pytest.mark.parametrize(("before", "after"), [((104, 68), (15, 29)), ((68, 104), (29, 15))])
def test_a_picture_of_one_colour_does_not_hide_which_pass_is_first(before: tuple[int, int], after: tuple[int, int]) -> None:
    ours = resampler()
    assert ours.proven(check(ours, flat(*before, 3), *after, Resampling.BILINEAR))
    check(ours, noise(*before, 3), *after, Resampling.BILINEAR)


@pytest.mark.parametrize("channels", [(3,), ()])
def test_views_of_any_strides(channels: tuple[int, ...]) -> None:
    whole = noise(90, 110, *channels)
    read_only = whole.copy()
    read_only.flags.writeable = False
    views = [whole[7:80, 5:99], whole[:, 20:90], whole[30:], whole[::-1], whole[:, ::-1], whole[::2, 1::2]]
    for view in [*views, whole.swapaxes(0, 1), np.asfortranarray(whole), read_only, read_only[3:50, 4:60]]:
        ours = resampler()
        assert ours.proven(check(ours, view, 31, 29, Resampling.BILINEAR))


@pytest.mark.parametrize("filter", [each for each in Resampling if each not in FILTERS])
def test_other_filters_are_left_to_pillow(filter: Resampling) -> None:
    ours = resampler()
    assert not ours.proven(check(ours, noise(40, 50, 3), 20, 30, filter))


@pytest.mark.parametrize("shape", [(30, 0, 3), (0, 30, 3), (0, 0)])
def test_of_no_pixels_pillow_makes_black_ones(shape: tuple[int, ...]) -> None:
    ours = resampler()
    assert not ours.proven(check(ours, np.empty(shape, np.uint8), 8, 9, Resampling.BILINEAR))


def test_coefficients_too_many_to_be_kept_are_left_to_pillow() -> None:
    ours = resampler()
    assert not ours.proven(check(ours, noise(1, 60_000), 1, 9000, Resampling.BILINEAR))
    assert ours.known == 0


def test_of_each_geometry_the_first_is_pillows_and_few_are_remembered() -> None:
    ours, often = resampler(), noise(9, 9)
    for width in range(1, 200):
        pixels = noise(4, width + 3)
        geometry = Geometry(pixels.shape, 2, width, Resampling.BILINEAR)
        ours.resized(pixels, geometry)
        assert not ours.proven(geometry)
        assert ours.known <= 128
        frequent = check(ours, often, 5, 5, Resampling.BILINEAR)
    assert ours.proven(frequent)
    assert ours.known == 128


@pytest.mark.parametrize("bit", [0, 5])
def test_a_pillow_that_resizes_otherwise_is_believed(bit: int, caplog: pytest.LogCaptureFixture) -> None:
    def another(pixels: Pixels, geometry: Geometry) -> Pixels:
        made = by_pillow(pixels, geometry).copy()
        made[-1, -1] ^= (geometry.width == 20) << bit
        return made

    ours = Resampler(kernels, another)
    geometries = [Geometry((40, 50, 3), 20, width, Resampling.BILINEAR) for width in (30, 20, 10)]
    for turn in range(4):
        for geometry in geometries:
            pixels = np.roll(noise(40, 50, 3), turn)
            np.testing.assert_array_equal(ours.resized(pixels, geometry), another(pixels, geometry))
    assert not any(map(ours.proven, geometries))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "this Pillow resizes otherwise than expected" in record.getMessage()


def test_blank_pictures_prove_nothing_of_a_pillow_that_resizes_otherwise() -> None:
    def another(pixels: Pixels, geometry: Geometry) -> Pixels:
        return by_pillow(pixels, geometry) ^ np.uint8(pixels.any())

    ours, blank = Resampler(kernels, another), np.zeros((40, 50, 3), np.uint8)
    geometry = Geometry(blank.shape, 20, 50, Resampling.BILINEAR)  # one side: there is no order to tell
    for pixels in (blank, blank, noise(40, 50, 3)):
        np.testing.assert_array_equal(ours.resized(pixels, geometry), another(pixels, geometry))
    assert not ours.proven(geometry)


def test_what_is_forgotten_while_it_is_proven_stays_forgotten() -> None:
    seen: list[int] = []

    def evicting(pixels: Pixels, geometry: Geometry) -> Pixels:
        if geometry.width == 300 and seen:
            for width in range(1, 140):
                ours.resized(pixels, geometry._replace(width=width))
        return by_pillow(pixels, geometry)

    ours = Resampler(kernels, evicting)
    for _ in range(4):
        ours.resized(noise(4, 400), Geometry((4, 400), 2, 300, Resampling.BILINEAR))
        seen.append(ours.known)
    assert max(seen) <= 128


def test_a_picture_too_large_to_be_proven_is_pillows() -> None:
    ours, large = resampler(), np.zeros((1 << 12, (1 << 12) + 1), np.uint8)
    for _ in range(2):
        assert not ours.proven(check(ours, large, 3, 4, Resampling.BOX))
    assert ours.known == 0


def test_threads_share_the_tables() -> None:
    ours = resampler()
    pictures = [noise(60 + each % 5, 80, 3) for each in range(20)]
    jobs = [
        (picture, Geometry(picture.shape, 30, 30 + each % 3, Resampling.BILINEAR)) for picture in pictures for each in range(6)
    ]
    wanted = [by_pillow(*job) for job in jobs]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(5):
            for got, right in zip(threads.map(lambda job: ours.resized(*job), jobs), wanted, strict=True):
                np.testing.assert_array_equal(got, right)
    assert all(ours.proven(geometry) for _, geometry in jobs)


STEPS: list[HostStep] = [
    *(
        Resize(40, 50, method, pad_mode, "bicubic")
        for method in ("crop", "pad", "squish")
        for pad_mode in ("zeros", "reflection")
    ),
    *(CropPad(40, 50, pad_mode) for pad_mode in ("zeros", "border")),
    RatioResize(50),
    ResizeShorter(24),
    CentreCrop(40, 50),
]


@pytest.mark.parametrize("step", STEPS, ids=str)
@pytest.mark.parametrize("channels", [(3,), ()])
def test_a_step_makes_the_same_of_an_array_as_of_pillows_picture(step: HostStep, channels: tuple[int, ...]) -> None:
    resample.prepare()
    for high, wide in [(90, 120), (40, 50), (120, 31), (20, 30), (41, 51), (40, 80), (7, 300), (200, 4)]:
        pixels = noise(high, wide, *channels)
        wanted = np.asarray(step.apply(PIL.Image.fromarray(pixels), 10**6))
        for _ in range(3):
            np.testing.assert_array_equal(np.asarray(step.apply(pixels, 10**6)), wanted, f"{wide}x{high}")
        np.testing.assert_array_equal(PreprocessSpec((step,)).arrays(np.stack([pixels] * 3)), np.stack([wanted] * 3))


# what is loaded when


def run(program: str, *paths: Path) -> str:
    """What a fresh interpreter prints."""
    begin = f"import sys; sys.path[:0] = {[str(path) for path in (*paths, RUNTIME)]}\n"
    done = subprocess.run([sys.executable, "-W", "error", "-c", begin + program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip() + done.stderr.strip()


RESIZED = """
import numpy as np, PIL.Image
from tensign.preprocess import CentreCrop, PreprocessSpec, Resize
spec = PreprocessSpec((Resize(20, 30),))
spec.prepare()
pixels = np.random.default_rng(0).integers(0, 256, (1, 40, 60, 3), np.uint8)
wanted = np.asarray(PIL.Image.fromarray(pixels[0]).resize((30, 20), 2))
for _ in range(3):
    np.testing.assert_array_equal(spec.arrays(pixels)[0], wanted)
"""


def test_without_numba_pillow_resizes() -> None:
    assert run('sys.modules["numba"] = None\n' + RESIZED + 'print("tensign.kernels" in sys.modules)') == "False"


def test_a_numba_that_does_not_work_is_told_of_and_pillow_resizes(tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text('raise ImportError("numba needs another numpy")')
    assert run(RESIZED, tmp_path) == "numba does not work here, so Pillow resizes all pictures: numba needs another numpy"


def test_numba_is_loaded_by_steps_that_resize_alone_and_not_before_they_are_prepared() -> None:
    program = """
from tensign.preprocess import CentreCrop, PreprocessSpec, Resize
PreprocessSpec((CentreCrop(3, 4),)).prepare()
PreprocessSpec((Resize(3, 4),))
print("numba" in sys.modules)
PreprocessSpec((Resize(3, 4),)).prepare()
print("numba" in sys.modules)
"""
    assert run(program) == "False\nTrue"


def test_kernels_that_cannot_be_kept_on_disk_are_compiled_all_the_same() -> None:
    source = Path(kernels.__file__).read_text()
    namespace: dict[str, object] = {"__name__": "nowhere"}
    exec(compile(source, "<nowhere>", "exec"), namespace)
    pixels, out = noise(40, 3), np.empty((20, 3), np.uint8)
    weights, bounds = coefficients(40, 20, Resampling.BILINEAR)
    namespace["vertical"](pixels, weights, bounds, out)  # type: ignore[operator]
    np.testing.assert_array_equal(out, np.asarray(PIL.Image.fromarray(pixels).resize((3, 20), Resampling.BILINEAR)))
