"""What a proof tries, always the same rows for the same signature: photographs, pieces of them, the saved example, noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from tensign.config import MAX_PIXELS
from tensign.conversion import CROPS
from tensign.decode import decode
from tensign.errors import UndecodableImage
from tensign.preprocess import PreprocessSpec
from tensign.signature import Signature
from tensign.specs import ColumnSpec, Spec, TensorSpec

_NOISE = 2
_ANY_SIZES = ((224, 224), (160, 256))  # height and width, where the signature leaves them open
_ANY_LENGTHS = (16, 32)  # of other open axes
_SUFFIXES = (".jpg", ".png", ".webp", ".bmp")
_PHOTOGRAPHS = Path(__file__).resolve().parents[1] / "_demo" / "pictures"

Sample = Mapping[str, Any]
"""One row: input name -> array without the row axis, Path of a picture where a preprocessing is declared, a column's scalar."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Rows, made when they are asked for; told: what they are, in words."""

    makers: tuple[tuple[str, Callable[[], Sample]], ...]
    told: str

    def __len__(self) -> int:
        return len(self.makers)

    def __getitem__(self, row: int) -> Sample:
        return self.makers[row][1]()

    def name(self, row: int) -> str:
        """What that row is."""
        return self.makers[row][0]

    def chunks(self, sizes: Sequence[int]) -> Iterator[list[Sample]]:
        """All of them in order, as many at a time as `sizes` say in turn; rows of a chunk have equal forms."""
        chunk: list[Sample] = []
        chunks = 0
        for sample in self:
            if chunk and (len(chunk) == sizes[chunks % len(sizes)] or _form(sample) != _form(chunk[0])):
                yield chunk
                chunk, chunks = [], chunks + 1
            chunk.append(sample)
        if chunk:
            yield chunk

    def __iter__(self) -> Iterator[Sample]:
        return (make() for _, make in self.makers)


def _form(sample: Sample) -> list[Any]:
    """Of rows that can be stacked; files may differ in size, and go one by one."""
    return [
        value.shape if isinstance(value, np.ndarray) else value if isinstance(value, Path) else type(value)
        for value in sample.values()
    ]


def photographs() -> list[Path]:
    """The bundled ones, of several sizes and formats."""
    return sorted(file for file in _PHOTOGRAPHS.iterdir() if file.suffix in _SUFFIXES)


def samples(
    signature: Signature,
    preprocess: PreprocessSpec | None = None,
    example: Mapping[str, npt.NDArray[Any]] | None = None,
    crops: int = CROPS,
) -> Samples:
    """Rows of tensors for a signature.

    preprocess: of a model that takes encoded pictures; example: the input example saved with the model, {input: [n,...]}.
    """
    makers: list[tuple[str, Callable[[], Sample]]] = []
    kinds: list[str] = []

    def add(kind: str, made: Sequence[tuple[str, Callable[[], Sample]]]) -> None:
        if made:
            makers.extend(made)
            kinds.append(f"{len(made)} {kind if len(made) > 1 else kind.replace('s', '', 1)}")

    specs = signature.inputs
    if example:
        rows = min(map(len, example.values()))
        add("rows of the saved input example", [(f"example {row}", partial(_taken, example, row)) for row in range(rows)])
    pictured = len(specs) == 1 and (preprocess is not None or _pixels(specs[0]) is not None)
    if pictured and preprocess:
        files = [file for file in photographs() if _suits(preprocess, specs[0], file)]
        add("photographs as files", [(file.name, partial(_named, specs[0], file)) for file in files])
    if pictured:
        names = [file.name for file in photographs()]
        whole = zip(names, _halves(len(names)), strict=True)
        add("photographs as arrays", [(f"{name}, whole", partial(_picture, specs[0], n, h, -1)) for name, (n, h) in whole])
        made = [(f"crop {n} of {names[n % len(names)]}", partial(_picture, specs[0], n, h, n)) for n, h in _halves(crops)]
        add("crops", made)
    count = _NOISE if pictured else crops
    add("rows of noise", [(f"noise {n}", partial(_noise, specs, n, half)) for n, half in _halves(count)])
    return Samples(tuple(makers), ", ".join(kinds))


def _halves(count: int) -> list[tuple[int, int]]:
    """Each number and its half, 0 or 1: open axes are of one length in each, so that rows of it make whole batches."""
    return [(number, 2 * number // count) for number in range(count)]


def _named(spec: Spec, value: Any) -> Sample:
    return {spec.name: value}


def _taken(example: Mapping[str, npt.NDArray[Any]], row: int) -> Sample:
    return {name: column[row] for name, column in example.items()}


def _pixels(spec: Spec) -> tuple[str, int] | None:
    """("NHWC" or "NCHW", channels) of a tensor that holds pictures, 0 channels without such an axis; None for others."""
    if not isinstance(spec, TensorSpec) or spec.dtype.kind not in "uf":
        return None
    if len(spec.shape) == 4 and spec.shape[3] in (1, 3):
        return "NHWC", spec.shape[3]
    if len(spec.shape) == 4 and spec.shape[1] in (1, 3):
        return "NCHW", spec.shape[1]
    return ("NHWC", 0) if len(spec.shape) == 3 and spec.dtype == np.uint8 else None


def _size(spec: Spec, half: int) -> tuple[int, int]:
    """Height and width of a picture; open ones differ from half to half."""
    layout, _ = _pixels(spec) or ("NHWC", 0)
    sides = spec.shape[1:3] if layout == "NHWC" else spec.shape[2:4]
    height, width = (side if side != -1 else open_ for side, open_ in zip(sides, _ANY_SIZES[half], strict=True))
    return height, width


def _picture(spec: Spec, number: int, half: int, crop: int) -> Sample:
    """Photograph `number`, or, where `crop` is not negative, a piece of it cut anywhere, as the tensor wants it.

    Floats are between 0 and 1, of every other crop centred and scaled as networks are often trained.
    """
    found = _pixels(spec)
    layout, channels = found or ("NHWC", 0)
    height, width = _size(spec, half)
    files = photographs()
    whole = _opened(files[number % len(files)]).convert("RGB" if channels == 3 else "L")
    box: tuple[int, int, int, int] | None = None
    if crop >= 0:
        random = np.random.default_rng([17, crop])
        wide, high = (max(1, int(side * random.uniform(0.3, 0.9))) for side in whole.size)
        left, top = int(random.integers(whole.width - wide)), int(random.integers(whole.height - high))
        box = (left, top, left + wide, top + high)
    pixels = np.asarray(whole.resize((width, height), box=box))
    if isinstance(spec, TensorSpec) and spec.dtype.kind == "f":
        scaled = pixels / np.float32(255)
        pixels = ((scaled - np.float32(0.45)) / np.float32(0.22) if crop % 2 == 1 else scaled).astype(spec.dtype)
    pixels = pixels[..., None] if channels == 1 else pixels
    return {spec.name: np.ascontiguousarray(pixels.transpose(2, 0, 1)) if layout == "NCHW" else pixels}


@cache
def _opened(file: Path) -> PIL.Image.Image:
    return decode(file.read_bytes(), max_pixels=MAX_PIXELS)


def _noise(specs: Sequence[Spec], number: int, half: int) -> Sample:
    random = np.random.default_rng([18, number])
    return {spec.name: _random(spec, random, half) for spec in specs}


def _random(spec: Spec, random: np.random.Generator, half: int) -> Any:
    assert isinstance(spec, TensorSpec)
    sides = iter(_size(spec, half)) if _pixels(spec) else iter(())
    shape = [axis if axis != -1 else next(sides, _ANY_LENGTHS[half]) for axis in spec.shape[1:]]
    if spec.dtype.kind == "f":
        return random.standard_normal(shape).astype(spec.dtype)
    if spec.dtype.kind == "b":
        return random.random(shape) < 0.5
    if spec.dtype.kind in "iu":
        return random.integers(0, 256 if spec.dtype == np.uint8 else 10, shape).astype(spec.dtype)
    words = np.empty(shape, object)
    for index in np.ndindex(*shape):
        words[index] = f"word {random.integers(10)}"
    return words


def _suits(preprocess: PreprocessSpec, spec: Spec, file: Path) -> bool:
    """Whether it leaves the host steps in a size that the graph takes; where nothing resizes it, it need not."""
    if isinstance(spec, ColumnSpec):
        return False
    height, width = preprocess.size(spec.shape[1], spec.shape[2])
    try:
        preprocess.encoded([file.read_bytes()], height=height, width=width)
    except UndecodableImage:
        return False
    return True
