"""Rows that an 8-bit variant is calibrated on: the pictures of a folder, pieces of them where they are few, a saved example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from tensign.config import MAX_PIXELS
from tensign.decode import decode
from tensign.errors import InvalidConfig, UndecodableImage, UnsupportedModel
from tensign.preprocess import PreprocessSpec

_FEW, _ROWS = 20, 100  # of fewer pictures, pieces are cut, so many in all
_MOST = 200  # more rows widen hardly any range
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_NAMED = 5
_LEAST = 0.5  # of a picture's sides is the smallest piece

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Calibration:
    """rows: each [1,...]; told: what they are, in words."""

    rows: tuple[Pixels, ...]
    told: str


def pictures(folder: Path, spec: PreprocessSpec) -> Calibration:
    """Those below a folder as they reach the graph, at most 200, evenly chosen.

    Of fewer than 20, pieces are cut, 100 rows in all. Raises InvalidConfig where there is none.
    """
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
    files = [files[int(at)] for at in np.linspace(0, len(files) - 1, min(len(files), _MOST))] if files else []
    rows: list[Pixels] = []
    opened: list[PIL.Image.Image] = []
    broken: list[str] = []
    for file in files:
        try:
            image = _opened(file, spec)
            rows.append(spec.encoded([file.read_bytes()], height=-1, width=-1))
            opened = [*opened, image][:_FEW]
        except (OSError, UndecodableImage):
            broken.append(file.name)
    unread = (
        f"; {len(broken)} could not be read: {', '.join(broken[:_NAMED])}{', ...' * (len(broken) > _NAMED)}" if broken else ""
    )
    if not rows:
        raise InvalidConfig(f"--calibrate {folder}: wanted a folder of pictures, found none that can be read{unread}")
    told = f"{len(rows)} pictures"
    if len(rows) < _FEW:
        pieces = [_piece(opened[number % len(opened)], number, spec) for number in range(_ROWS - len(rows))]
        rows, told = [*rows, *pieces], f"{told} and {len(pieces)} pieces of them"
    return Calibration(tuple(rows), f"{told}{unread}")


def _opened(file: Path, spec: PreprocessSpec) -> PIL.Image.Image:
    upright = spec.exif_orientation == "apply"
    return decode(file.read_bytes(), max_pixels=MAX_PIXELS, apply_exif_orientation=upright, mode=spec.mode)


def _piece(whole: PIL.Image.Image, number: int, spec: PreprocessSpec) -> Pixels:
    """Cut anywhere and enlarged to the size of the whole, for which the steps are known to do."""
    random = np.random.default_rng([19, number])
    wide, high = (max(1, int(side * random.uniform(_LEAST, 1))) for side in whole.size)
    left, top = (int(random.integers(side - cut + 1)) for side, cut in zip(whole.size, (wide, high), strict=True))
    return spec.arrays(np.asarray(whole.resize(whole.size, box=(left, top, left + wide, top + high)))[None])


def example_rows(example: Mapping[str, npt.NDArray[Any]] | None) -> tuple[list[dict[str, npt.NDArray[Any]]], str]:
    """Rows of a saved input example, {input: [1,...]}, and what they are. Raises UnsupportedModel for fewer than 20."""
    count = min(map(len, example.values()), default=0) if example else 0
    if example is None or count < _FEW:
        raise UnsupportedModel(
            "variant int8: the model takes tensors, which no folder of pictures becomes, and its saved input example has"
            f" {count} rows; wanted {_FEW} to calibrate on, or pictures declared by --preprocess"
        )
    return [{name: column[row : row + 1] for name, column in example.items()} for row in range(min(count, _MOST))], (
        f"{min(count, _MOST)} rows of the saved input example"
    )
