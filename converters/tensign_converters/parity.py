"""The proof: the converted model and the original on the same real pictures."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from tensign.demo import pictures
from tensign.errors import ParityFailed, UnsupportedModel
from tensign.preprocess import PreprocessSpec
from tensign_converters.graph import INPUT, LOGITS, OUTPUT, with_inner_outputs
from tensign_converters.learned import Learned

# By how the weights are stored: the greatest difference of a probability, and of a logit relative to the largest one.
# Probabilities saturate, and a wrong preprocessing hides behind 1.000; logits do not.
TOLERANCE = {"fp32": 1e-4, "fp16": 5e-3}
LOGIT_TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2}


@dataclass(frozen=True, slots=True)
class Parity:
    """Greatest absolute differences of outputs and logits, original to converted; agreement of the best class, 0 to 1."""

    inputs: str
    rows: int
    tolerance: float
    max_difference: float
    max_logit_difference: float
    top1_agreement: float

    def document(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"greatest difference {self.max_difference:.1e} (tolerance {self.tolerance:g}),"
            f" logits {self.max_logit_difference:.1e}, top-1 agreement {self.top1_agreement:.0%}, on {self.inputs}"
        )


def prove(learned: Learned, spec: PreprocessSpec, model: Path, signature_size: tuple[int, int], weights: str) -> Parity:
    """Compares on real photographs, encoded and as raw arrays, and on noise. Raises ParityFailed beyond the tolerance."""
    photographs = pictures()
    height, width = signature_size
    noise = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    arrays = np.concatenate([np.stack([_resized(picture, width, height) for picture in photographs]), noise])
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{number}{picture.suffix}") for number, picture in enumerate(photographs)]
        for file, picture in zip(files, photographs, strict=True):
            file.write_bytes(picture.read_bytes())
        original = learned.logits([*arrays, *files])
    encoded = [picture.read_bytes() for picture in photographs]
    pixels = [*spec.arrays(arrays), *(_one(spec, image, learned.size) for image in encoded)]
    output, logits = _converted(model, pixels)
    expected = learned.activate(original)
    parity = Parity(
        f"{len(photographs)} photographs as files and as arrays, {len(noise)} arrays of noise",
        len(pixels),
        TOLERANCE[weights],
        float(np.abs(output - expected).max()),
        float(np.abs(logits - original).max()),
        float((output.argmax(-1) == expected.argmax(-1)).mean()),
    )
    scale = max(1.0, float(np.abs(original).max()))
    alike = parity.max_logit_difference <= LOGIT_TOLERANCE[weights] * scale  # NaN is not alike
    if not alike or (learned.activation != "none" and not parity.max_difference <= parity.tolerance):
        raise ParityFailed(f"the converted model does not predict as the original: {parity}")
    return parity


def _resized(picture: Path, width: int, height: int) -> npt.NDArray[np.uint8]:
    with PIL.Image.open(io.BytesIO(picture.read_bytes())) as image:
        return np.asarray(image.convert("RGB").resize((width, height)))


def _one(spec: PreprocessSpec, image: bytes, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    pixels: npt.NDArray[np.uint8] = spec.encoded([image], height=size[0], width=size[1])[0]
    return pixels


def _converted(model: Path, pixels: Sequence[npt.NDArray[np.uint8]]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    try:
        import onnxruntime
    except ImportError:
        raise UnsupportedModel("proving the conversion needs onnxruntime: pip install 'tensign[cpu,convert]'") from None
    session = onnxruntime.InferenceSession(with_inner_outputs(model), providers=["CPUExecutionProvider"])
    parts = [session.run([OUTPUT, LOGITS], {INPUT: np.stack(pixels[at : at + 16])}) for at in range(0, len(pixels), 16)]
    output, logits = (np.concatenate(side) for side in zip(*parts, strict=True))
    return output, logits
