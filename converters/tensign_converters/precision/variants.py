"""Which variants a model is written in, and the writing of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from tensign.config import VARIANTS
from tensign.errors import InvalidConfig, UnsupportedModel
from tensign.proof.samples import Samples
from tensign.specs import tensor_specs
from tensign_converters.precision.asked import NO_PICTURES, check_variants
from tensign_converters.precision.calibration import Calibration, example_rows, pictures
from tensign_converters.precision.halves import halve
from tensign_converters.precision.quantized import quantize
from tensign_converters.precision.seen import Feed
from tensign_converters.prove import Converted
from tensign_converters.subject import Subject

_MEASURED = 32  # rows of the proof, where halves are measured on no pictures of one's own


@dataclass(frozen=True, slots=True)
class Variants:
    """files: of each variant; calibrated: on what, in words, "" where on nothing; held: what they are judged on, None where on
    what fp32 is."""

    files: Mapping[str, Path]
    calibrated: str = ""
    held: Samples | None = None


def write_variants(
    subject: Subject,
    model: Path,
    names: Sequence[str],
    calibrate: Path | None,
    example: Mapping[str, npt.NDArray[Any]] | None,
    rows: Samples,
) -> Variants:
    """Writes each beside `model`, the graph in single precision; example: that is saved with the model; rows: of its proof.

    Raises UnsupportedModel where a variant makes no sense, InvalidConfig where there is nothing to calibrate on.
    """
    check_variants(names, calibrate)
    if names and subject.unvaried:
        raise UnsupportedModel(f"--variant {names[0]}: {subject.unvaried}")
    files = {name: model.with_suffix(f".{name}.onnx") for name in VARIANTS if name in names}
    if not files:
        return Variants(files)
    graph, calibrated = onnx.load(model), ""
    own = _own(subject, calibrate)
    held = own.held if own else None
    given = [value.name for value in graph.graph.input]
    if "fp16" in files:
        one = Converted(model, subject)
        spread = range(0, len(rows), -(-len(rows) // _MEASURED))
        halve(graph, files["fp16"], _of(own, given) if own else [one.feeds([rows[row]]) for row in spread])
    if "int8" in files:
        feeds, calibrated, held = (_of(own, given), own.told, own.held) if own else _example(subject, given, example)
        quantize(graph, files["int8"], feeds)
    return Variants(files, calibrated, held)


def _own(subject: Subject, calibrate: Path | None) -> Calibration | None:
    if calibrate is None:
        return None
    if subject.preprocess is None:
        raise InvalidConfig("--calibrate: the model takes tensors, which no folder of pictures becomes; see --preprocess")
    taken = tensor_specs(subject.signature.inputs)[0]
    return pictures(calibrate, subject.preprocess, taken.name, subject.preprocess.size(taken.shape[1], taken.shape[2]))


def _of(own: Calibration, inputs: Sequence[str]) -> list[Feed]:
    """By the names of the graph's inputs, as below."""
    return [{inputs[0]: row} for row in own.rows]


def _example(
    subject: Subject, inputs: Sequence[str], example: Mapping[str, npt.NDArray[Any]] | None
) -> tuple[list[Feed], str, Samples]:
    if subject.preprocess is not None:
        raise InvalidConfig(NO_PICTURES)
    rows, told, held = example_rows(example)
    return [dict(zip(inputs, row.values(), strict=True)) if len(inputs) == 1 else row for row in rows], told, held
