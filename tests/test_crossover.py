"""How near and how fast another decoder is: differences by libjpeg-turbo's own shortcuts, times by a clock that is told."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import PIL.Image
import pytest
import simplejpeg

from tensign.config import MAX_PIXELS
from tensign.crossover import crossover, difference, grid
from tensign.decode import Pixels
from tensign.errors import ProviderUnavailable

TILE = 640 * 427


class Shortcut:
    """A real second decoder: libjpeg-turbo with a shortcut that makes other pixels."""

    def __init__(self, **shortcut: Any) -> None:
        self.shortcut = shortcut

    def decode(self, encoded: Sequence[bytes]) -> list[Pixels | None]:
        return [simplejpeg.decode_jpeg(each, "RGB", **self.shortcut) for each in encoded]


def timed(per_pixel: tuple[float, float], start: float = 0.0, **options: Any) -> int | None:
    """The crossover of a CPU and a GPU of those seconds a pixel; start: seconds that each call of the GPU costs besides."""
    now = [0.0]

    def spend(seconds: float) -> Callable[[bytes], None]:
        def work(encoded: bytes) -> None:
            width, height = PIL.Image.open(io.BytesIO(encoded)).size
            now[0] += seconds * width * height

        return work

    class Fake:
        """Decodes nothing: proves what is chosen for which time, not that anything is fast."""

        def decode(self, encoded: Sequence[bytes]) -> list[Pixels | None]:
            now[0] += start
            spend(per_pixel[1])(encoded[0])
            return [None]

    return crossover(
        Fake(),
        **{"threads": 1, "max_pixels": MAX_PIXELS, "on_cpu": spend(per_pixel[0]), "clock": lambda: now[0], **options},
    )


def test_a_gpu_that_starts_slowly_pays_from_where_it_has_caught_up() -> None:
    start = 3 * TILE * 1e-8
    assert timed((1e-8, 1e-9), start) == 4 * TILE
    assert timed((1e-8, 1e-9)) == TILE


def test_a_gpu_that_is_never_faster_is_never_used() -> None:
    assert timed((1e-8, 1e-8)) is None
    assert timed((1e-8, 0.95e-8)) is None  # by so little nobody should have other pixels
    assert timed((1e-8, 0.89e-8)) == TILE


def test_what_is_over_the_limit_is_not_timed() -> None:
    start = 3 * TILE * 1e-8
    assert timed((1e-8, 1e-9), start, max_pixels=9 * TILE - 1) == 4 * TILE
    assert timed((1e-8, 1e-9), start, max_pixels=4 * TILE - 1) is None
    assert timed((1e-8, 1e-9), max_pixels=TILE - 1) is None


def test_real_decoders_are_timed_on_several_threads() -> None:
    class Idle:
        def decode(self, encoded: Sequence[bytes]) -> list[Pixels | None]:
            return [None]

    class Thrice(Shortcut):
        def decode(self, encoded: Sequence[bytes]) -> list[Pixels | None]:
            return [super(Thrice, self).decode(encoded)[0] for _ in range(3)]

    assert crossover(Idle(), threads=2, max_pixels=TILE) == TILE
    assert crossover(Thrice(), threads=2, max_pixels=TILE) is None


def test_grids_are_of_photographs_side_by_side() -> None:
    image = PIL.Image.open(io.BytesIO(grid(2)))
    assert image.size == (1280, 854)
    tiles = [np.asarray(image)[427 * down :, 640 * across :][:427, :640].astype(int) for down in (0, 1) for across in (0, 1)]
    assert np.abs(tiles[1] - tiles[2]).mean() < 3 < np.abs(tiles[0] - tiles[1]).mean()


def test_the_same_decoder_has_no_difference() -> None:
    assert difference(Shortcut()) == difference(Shortcut())
    assert (difference(Shortcut()).most, difference(Shortcut()).mean) == (0, 0.0)


def test_a_coarse_transform_differs_and_coarse_chroma_more() -> None:
    coarse, blocky = difference(Shortcut(fastdct=True)), difference(Shortcut(fastupsample=True))
    assert 8 < coarse.most < 40 < blocky.most
    assert min(coarse.mean, blocky.mean) > 0.5


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "makes nothing of astronaut"),
        (np.zeros((300, 300), np.uint8), r"makes pixels of shape \(300, 300\) of astronaut"),
    ],
)
def test_a_decoder_that_does_not_decode_is_told(answer: Pixels | None, said: str) -> None:
    class Broken:
        def decode(self, encoded: Sequence[bytes]) -> list[Pixels | None]:
            return [answer]

    with pytest.raises(ProviderUnavailable, match=said):
        difference(Broken())
