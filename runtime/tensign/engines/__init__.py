"""An engine runs one network on one device. Four verbs, nothing else: load, warmup, run, close."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tensign.signature import Arrays, TensorSpec

_ANY_SIDE = 224  # warm-up needs some length for an axis that may have any


class Engine(Protocol):
    """inputs and outputs are the network's own, known once it is loaded; device is where it really runs."""

    device: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def load(self) -> None:
        """Reads the network. Raises UnsupportedModel, ProviderUnavailable."""

    def warmup(self, rows: int) -> None:
        """Runs once on `rows` made-up rows, so that no request pays for what the first run costs."""

    def run(self, batch: Arrays) -> dict[str, npt.NDArray[Any]]:
        """{input: [B,...]} -> {output: [B,...]}; anything it raises fails the batch."""

    def close(self) -> None:
        """Gives the device's memory back."""


def made_up_rows(spec: TensorSpec, rows: int = 1) -> npt.NDArray[Any]:
    """[rows,...] of zeros, or of empty text, that a warm-up may run on."""
    sides = [axis if axis != -1 else _ANY_SIDE for axis in spec.shape[1:]]
    empty = np.zeros((rows, *sides), spec.dtype)
    if spec.dtype == object:
        empty.fill("")
    return empty
