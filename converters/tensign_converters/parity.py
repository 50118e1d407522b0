"""The proof: the converted model and the original on the same real pictures."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from tensign.demo import pictures
from tensign.errors import ParityFailed, UndecodableImage, UnsupportedModel
from tensign.preprocess import PreprocessSpec
from tensign_converters.graph import INPUT, LOGITS, OUTPUT, with_inner_outputs
from tensign_converters.heads import Head
from tensign_converters.learned import Learned

# By how the weights are stored: the greatest difference of a probability, and of a logit relative to the row's largest.
# Probabilities saturate, and a wrong preprocessing hides behind 1.000; logits do not.
TOLERANCE = {"fp32": 1e-4, "fp16": 5e-3}
LOGIT_TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2}
BATCHES = (1, 3, 16)  # rows at a time, in turn

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Parity:
    """Greatest and mean absolute differences of outputs and logits, original to converted.

    relative_logit_difference: row by row, to the row's largest logit; where that is less, to what is usual for rows, or 1.
    logit_spread: the greatest difference of a logit between two rows; where that is next to nothing nothing is proved.
    top1_agreement: of the best class of each row or pixel, 0 to 1; None where there are no classes.
    """

    inputs: str
    rows: int
    batches: tuple[int, ...]
    tolerance: float
    max_difference: float
    mean_difference: float
    max_logit_difference: float
    relative_logit_difference: float
    logit_spread: float
    top1_agreement: float | None

    def document(self) -> dict[str, Any]:
        return {**asdict(self), "batches": list(self.batches)}

    def __str__(self) -> str:
        agreement = "" if self.top1_agreement is None else f", top-1 agreement {self.top1_agreement:.0%}"
        return (
            f"greatest difference {self.max_difference:.1e} (tolerance {self.tolerance:g}),"
            f" logits {self.max_logit_difference:.1e}{agreement}, on {self.inputs}"
        )


def prove(learned: Learned, model: Path, signature_size: tuple[int, int], weights: str, *, crops: int = 0) -> Parity:
    """Compares on real photographs, encoded and as raw arrays, on `crops` pieces of them, and on noise.

    signature_size: height and width. Raises ParityFailed beyond the tolerance.
    """
    spec, head = learned.preprocessing.spec(), learned.head
    photographs = pictures()
    raw = list(arrays(photographs, signature_size, spec.mode, crops))
    files = [picture for picture in photographs if _suits(spec, picture, learned.preprocessing.size)]
    with tempfile.TemporaryDirectory() as folder:
        copies = [Path(folder, f"{number}{file.suffix}") for number, file in enumerate(files)]
        for copy, file in zip(copies, files, strict=True):
            copy.write_bytes(file.read_bytes())
        original = np.concatenate([learned.logits(side) for side in (raw, copies) if side])
    pixels = [*(spec.arrays(array[None])[0] for array in raw), *(_one(spec, file.read_bytes()) for file in files)]
    output, logits = converted(model, pixels)
    expected = head.activated(original)
    said = f"{len(photographs)} photographs as arrays, {len(files)} of them as files"
    said += f", {crops} crops" * bool(crops) + ", 2 arrays of noise"
    parity = Parity(
        said,
        len(pixels),
        BATCHES,
        TOLERANCE[weights],
        float(np.abs(output - expected).max()),
        float(np.abs(output - expected).mean()),
        float(np.abs(logits - original).max()),
        _relative(logits, original),
        float(np.ptp(original, axis=0).max()),
        _agreement(head, output, expected),
    )
    alike = parity.relative_logit_difference <= LOGIT_TOLERANCE[weights]  # NaN is not alike
    if not alike or (head.activation != "none" and not parity.max_difference <= parity.tolerance):
        raise ParityFailed(f"the converted model does not predict as the original: {parity}")
    return parity


def converted(model: Path, pixels: Sequence[Pixels]) -> tuple[Floats, Floats]:
    """Outputs and logits of the ONNX file for rows as they reach the graph, in batches of several sizes."""
    try:
        import onnxruntime
    except ImportError:
        raise UnsupportedModel("proving the conversion needs onnxruntime: pip install 'tensign[cpu,convert]'") from None
    session = onnxruntime.InferenceSession(with_inner_outputs(model), providers=["CPUExecutionProvider"])
    parts: list[list[Floats]] = []
    at = 0
    while at < len(pixels):
        rows = BATCHES[len(parts) % len(BATCHES)]
        parts.append(session.run([OUTPUT, LOGITS], {INPUT: np.stack(pixels[at : at + rows])}))
        at += rows
    output, logits = (np.concatenate(side) for side in zip(*parts, strict=True))
    return output, logits


def _relative(logits: Floats, original: Floats) -> float:
    rows = len(original)
    largest = np.abs(original.reshape(rows, -1)).max(axis=1)
    scale = np.maximum(largest, max(1.0, float(np.median(largest))))
    return float((np.abs(logits - original).reshape(rows, -1).max(axis=1) / scale).max())


def _agreement(head: Head, output: Floats, expected: Floats) -> float | None:
    if head.task == "regression":
        return None
    return float((output.argmax(1) == expected.argmax(1)).mean())


def arrays(photographs: Sequence[Path], size: tuple[int, int], mode: str, crops: int) -> Iterator[Pixels]:
    """The photographs at that height and width, pieces of them cut anywhere in several sizes, and noise."""
    random, (height, width) = np.random.default_rng(0), size
    opened: list[PIL.Image.Image] = []
    for photograph in photographs:
        with PIL.Image.open(io.BytesIO(photograph.read_bytes())) as image:
            opened.append(image.convert("RGB").convert(mode))
    for whole in opened:
        yield np.asarray(whole.resize((width, height)))
    for number in range(crops):
        whole = opened[number % len(opened)]
        wide, high = (int(side * random.uniform(0.3, 0.9)) for side in whole.size)
        left, top = int(random.integers(whole.width - wide)), int(random.integers(whole.height - high))
        yield np.asarray(whole.resize((width, height), box=(left, top, left + wide, top + high)))
    channels = (3,) if mode == "RGB" else ()
    yield from random.integers(0, 256, (2, height, width, *channels), dtype=np.uint8)


def _suits(spec: PreprocessSpec, photograph: Path, size: tuple[int, int]) -> bool:
    """Whether it leaves the host steps with the graph's height and width; where nothing resizes it, it need not."""
    try:
        return _one(spec, photograph.read_bytes()).shape[:2] == size
    except UndecodableImage:
        return False


def _one(spec: PreprocessSpec, image: bytes) -> Pixels:
    pixels: Pixels = spec.encoded([image], height=-1, width=-1)[0]
    return pixels
