"""Which variants a model is written in, what each is refused beyond, and the writing of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from tensign.config import VARIANTS
from tensign.errors import InvalidConfig, UnsupportedModel
from tensign.proof.parity import Tolerance
from tensign.proof.record import allowed
from tensign_converters.precision.asked import check_variants
from tensign_converters.precision.calibration import example_rows, pictures
from tensign_converters.precision.halves import halve
from tensign_converters.precision.quantized import quantize
from tensign_converters.subject import Subject


@dataclass(frozen=True, slots=True)
class Variants:
    """files: of each variant; calibrated: on what, in words, "" where on nothing."""

    files: Mapping[str, Path]
    calibrated: str = ""


def tolerance(subject: Subject, name: str) -> Tolerance:
    """Beyond which that precision is refused."""
    return subject.tolerance if name == "fp32" else allowed(name, subject.head.task)


def write_variants(
    subject: Subject,
    model: Path,
    names: Sequence[str],
    calibrate: Path | None,
    example: Mapping[str, npt.NDArray[Any]] | None,
) -> Variants:
    """Writes each beside `model`, the graph in single precision; example: that is saved with the model.

    Raises UnsupportedModel where a variant makes no sense, InvalidConfig where there is nothing to calibrate on.
    """
    check_variants(names, calibrate)
    if names and subject.unvaried:
        raise UnsupportedModel(f"--variant {names[0]}: {subject.unvaried}")
    graph, calibrated = onnx.load(model), ""
    files = {name: model.with_suffix(f".{name}.onnx") for name in VARIANTS if name in names}
    if "fp16" in files:
        halve(graph, files["fp16"])
    if "int8" in files:
        feeds, calibrated = _feeds(subject, [value.name for value in graph.graph.input], calibrate, example)
        quantize(graph, files["int8"], feeds)
    return Variants(files, calibrated)


def _feeds(
    subject: Subject, inputs: Sequence[str], calibrate: Path | None, example: Mapping[str, npt.NDArray[Any]] | None
) -> tuple[list[dict[str, npt.NDArray[Any]]], str]:
    """By the names of the graph's inputs."""
    if subject.preprocess is not None:
        if calibrate is None:
            raise InvalidConfig("--variant int8: is calibrated on pictures like those to come: --calibrate FOLDER")
        found = pictures(calibrate, subject.preprocess)
        return [{inputs[0]: row} for row in found.rows], found.told
    rows, told = example_rows(example)
    return [dict(zip(inputs, row.values(), strict=True)) if len(inputs) == 1 else row for row in rows], told
