"""Rows that int8 is calibrated on, and others to judge variants on: a folder's pictures, pieces of them, a saved example."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from tensign.config import MAX_PIXELS
from tensign.decode import decode
from tensign.errors import InvalidConfig, UndecodableImage, UnsupportedModel
from tensign.preprocess import PreprocessSpec
from tensign.proof.samples import Sample, Samples

_FEW, _ROWS = 20, 100  # of fewer pictures, pieces are cut, so many in all
_MOST = 200  # more rows widen hardly any range
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_NAMED = 5
_LEAST = 0.5  # of a picture's sides is the smallest piece

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Calibration:
    """rows: each [1,...], to calibrate on; told: what they are, in words; held: others, to judge variants on."""

    rows: tuple[Pixels, ...]
    told: str
    held: Samples


def pictures(folder: Path, spec: PreprocessSpec, name: str) -> Calibration:
    """Those below a folder, at most 300, evenly chosen; every third is held back, and never calibrated on.

    name: of the input that takes them. Of fewer than 20 to calibrate on, pieces are cut, 100 rows in all, and so of fewer than
    100 to judge on. Raises InvalidConfig where there is none.
    """
    files, unread = _readable(folder, spec)
    if not files:
        raise InvalidConfig(f"--calibrate {folder}: wanted a folder of pictures, found none that can be read{unread}")
    held = files[1::3]
    calibrated, told = rows([file for file in files if file not in held], spec)
    return Calibration(calibrated, f"{told}{unread}", _held(held, files, spec, name))


def rows(files: Sequence[Path], spec: PreprocessSpec) -> tuple[tuple[Pixels, ...], str]:
    """Pictures as they reach the graph, each [1,...], with pieces of them where they are few; what they are, in words."""
    made = [spec.encoded([file.read_bytes()], height=-1, width=-1) for file in files]
    if len(made) >= _FEW:
        return tuple(made), f"{len(made)} pictures"
    opened = [_opened(file, spec) for file in files]
    pieces = [_piece(opened[number % len(opened)], number) for number in range(_ROWS - len(made))]
    told = f"{_counted(files)} and {len(pieces)} pieces of {'it' if len(files) == 1 else 'them'}"
    return (*made, *(spec.arrays(piece[None]) for piece in pieces)), told


def _held(held: Sequence[Path], files: Sequence[Path], spec: PreprocessSpec, name: str) -> Samples:
    """Those held back of all files; where that is none, pieces of the only one."""
    makers: list[tuple[str, Callable[[], Sample]]] = [
        (f"picture {number}", partial(_whole, name, file)) for number, file in enumerate(held)
    ]
    cut = [_opened(file, spec) for file in held or files] if len(held) < _ROWS else []
    for number in range(max(0, _ROWS - len(held))):
        makers.append((f"piece {number}", partial(_cut, name, cut[number % len(cut)], _ROWS + number)))
    if not held:
        return Samples(tuple(makers), f"{len(makers)} other pieces of the only picture that it was calibrated on")
    told = f"{_counted(held)} held back from calibration"
    pieces = len(makers) - len(held)
    return Samples(tuple(makers), f"{told} and {pieces} pieces of {'it' if len(held) == 1 else 'them'}" if pieces else told)


def _counted(files: Sequence[Path]) -> str:
    return "1 picture" if len(files) == 1 else f"{len(files)} pictures"


def _whole(name: str, file: Path) -> Sample:
    return {name: file}


def _cut(name: str, whole: PIL.Image.Image, number: int) -> Sample:
    return {name: _piece(whole, number)}


def _readable(folder: Path, spec: PreprocessSpec) -> tuple[list[Path], str]:
    """The pictures, and which files are none, in words."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
    files = [files[int(at)] for at in np.linspace(0, len(files) - 1, min(len(files), _MOST * 3 // 2))] if files else []
    found: list[Path] = []
    broken: list[str] = []
    for file in files:
        try:
            spec.encoded([file.read_bytes()], height=-1, width=-1)
            found.append(file)
        except (OSError, UndecodableImage):
            broken.append(file.name)
    named = f"{', '.join(broken[:_NAMED])}{', ...' * (len(broken) > _NAMED)}"
    return found, f"; {len(broken)} could not be read: {named}" if broken else ""


def _opened(file: Path, spec: PreprocessSpec) -> PIL.Image.Image:
    upright = spec.exif_orientation == "apply"
    return decode(file.read_bytes(), max_pixels=MAX_PIXELS, apply_exif_orientation=upright, mode=spec.mode)


def _piece(whole: PIL.Image.Image, number: int) -> Pixels:
    """Cut anywhere and enlarged to the size of the whole, for which the steps are known to do."""
    random = np.random.default_rng([19, number])
    wide, high = (max(1, int(side * random.uniform(_LEAST, 1))) for side in whole.size)
    left, top = (int(random.integers(side - cut + 1)) for side, cut in zip(whole.size, (wide, high), strict=True))
    return np.asarray(whole.resize(whole.size, box=(left, top, left + wide, top + high)))


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
