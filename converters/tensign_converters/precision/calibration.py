"""Rows that int8 is calibrated on, and others to judge variants on: a folder's pictures, pieces of them, a saved example."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
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
_MOST = 300  # more widen hardly any range
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


def pictures(folder: Path, spec: PreprocessSpec, name: str, size: tuple[int, int] = (-1, -1)) -> Calibration:
    """Those below a folder, at most 300, each once; a third is held back, and never calibrated on, both drawn, always alike.

    name: of the input that takes them; size: the height and width that reach the graph, -1 any. Of fewer than 20 to calibrate
    on, pieces are cut, 100 rows in all, and so of fewer than 100 to judge on. Raises InvalidConfig where there is none.
    """
    files, unread = _readable(folder, spec, size)
    if not files:
        raise InvalidConfig(f"--calibrate {folder}: wanted a folder of pictures, found none that can be used{unread}")
    held = [files[number] for number in _third(len(files))]
    calibrated, told = rows([file for file in files if file not in held], spec)
    return Calibration(calibrated, f"{told}{unread}", _held(held, files, spec, name))


def _third(count: int) -> list[int]:
    """Numbers of what is held back of so many: of two one, of one none."""
    return _drawn(count, (count + 1) // 3)


def _drawn(count: int, most: int) -> list[int]:
    """In no period, which names in order may have."""
    return sorted(np.random.default_rng(20).permutation(count)[:most].tolist())


def rows(files: Sequence[Path], spec: PreprocessSpec) -> tuple[tuple[Pixels, ...], str]:
    """Pictures as they reach the graph, each [1,...], with pieces of them where they are few; what they are, in words."""
    made = [spec.encoded([file.read_bytes()], height=-1, width=-1) for file in files]
    if len(made) >= _FEW:
        return tuple(made), f"{len(made)} pictures"
    pieces = {number: spec.arrays(_piece(file, spec, number)[None]) for number, file in _cuts(files, _ROWS - len(made))}
    told = f"{_counted(files)} and {len(pieces)} pieces of {'it' if len(files) == 1 else 'them'}"
    return (*made, *(pieces[number] for number in sorted(pieces))), told


def _held(held: Sequence[Path], files: Sequence[Path], spec: PreprocessSpec, name: str) -> Samples:
    """Those held back of all files; where that is none, pieces of the only one."""
    makers: list[tuple[str, Callable[[], Sample]]] = [
        (f"picture {number}", partial(_whole, name, file)) for number, file in enumerate(held)
    ]
    for number, file in _cuts(held or files, _ROWS - len(held)):
        makers.append((f"piece {number}", partial(_cut, name, file, spec, _ROWS + number)))
    if not held:
        return Samples(tuple(makers), f"{len(makers)} other pieces of the only picture that it was calibrated on")
    told = f"{_counted(held)} held back from calibration"
    pieces = len(makers) - len(held)
    return Samples(tuple(makers), f"{told} and {pieces} pieces of {'it' if len(held) == 1 else 'them'}" if pieces else told)


def _counted(files: Sequence[Path]) -> str:
    return "1 picture" if len(files) == 1 else f"{len(files)} pictures"


def _whole(name: str, file: Path) -> Sample:
    return {name: file}


def _cut(name: str, file: Path, spec: PreprocessSpec, number: int) -> Sample:
    return {name: _piece(file, spec, number)}


def _cuts(files: Sequence[Path], count: int) -> list[tuple[int, Path]]:
    """So many pieces, each its number and of which file; those of one file stand together, so that one is open at a time."""
    return [(number, file) for first, file in enumerate(files) for number in range(first, count, len(files))]


def _readable(folder: Path, spec: PreprocessSpec, size: tuple[int, int]) -> tuple[list[Path], str]:
    """The pictures, each once, since a copy could be held back of what is calibrated on; and the other files, in words."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
    files = [files[number] for number in _drawn(len(files), _MOST)]
    found: dict[bytes, Path] = {}  # by their pixels
    broken: list[str] = []
    for file in files:
        try:
            pixels = spec.encoded([file.read_bytes()], height=size[0], width=size[1])
            found.setdefault(hashlib.sha256(pixels.tobytes()).digest(), file)
        except OSError as error:
            broken.append(f"{file.name!a}: {error.strerror}")
        except UndecodableImage as error:
            broken.append(f"{file.name!a}: {str(error).removeprefix('row 0: ')}")
    copies = len(files) - len(broken) - len(found)
    named = f"{'; '.join(broken[:_NAMED])}{'; ...' * (len(broken) > _NAMED)}"
    told = f"; {copies} more show the same as others" if copies else ""
    return [*found.values()], f"{told}; {len(broken)} cannot be used: {named}" if broken else told


@lru_cache(maxsize=1)
def _opened(file: Path, spec: PreprocessSpec) -> PIL.Image.Image:
    upright = spec.exif_orientation == "apply"
    return decode(file.read_bytes(), max_pixels=MAX_PIXELS, apply_exif_orientation=upright, mode=spec.mode)


def _piece(file: Path, spec: PreprocessSpec, number: int) -> Pixels:
    """Cut anywhere and enlarged to the size of the whole, for which the steps are known to do."""
    whole = _opened(file, spec)
    random = np.random.default_rng([19, number])
    wide, high = (max(1, int(side * random.uniform(_LEAST, 1))) for side in whole.size)
    left, top = (int(random.integers(side - cut + 1)) for side, cut in zip(whole.size, (wide, high), strict=True))
    return np.asarray(whole.resize(whole.size, box=(left, top, left + wide, top + high)))


def example_rows(example: Mapping[str, npt.NDArray[Any]] | None) -> tuple[list[dict[str, npt.NDArray[Any]]], str, Samples]:
    """Rows of a saved input example, {input: [1,...]}, what they are, and the third held back of them, as of pictures.

    Raises UnsupportedModel for fewer than 20 in all.
    """
    count = min(map(len, example.values()), default=0) if example else 0
    if example is None or count < _FEW:
        raise UnsupportedModel(
            "variant int8: the model takes tensors, which no folder of pictures becomes, and its saved input example has"
            f" {count} rows; wanted {_FEW} to calibrate and to judge on, or pictures declared by --preprocess"
        )
    drawn, told = _drawn(count, _MOST), "rows of the saved input example"
    held = [drawn[number] for number in _third(len(drawn))]
    own = [{name: column[row : row + 1] for name, column in example.items()} for row in drawn if row not in held]
    makers = [(f"example {row}", partial(_row, example, row)) for row in held]
    return own, f"{len(own)} {told}", Samples(tuple(makers), f"{len(held)} {told} held back from calibration")


def _row(example: Mapping[str, npt.NDArray[Any]], row: int) -> Sample:
    return {name: column[row] for name, column in example.items()}
