"""An engine runs one network on one device. Four verbs, nothing else: load, warmup, run, close."""

from __future__ import annotations

from typing import Any, Protocol

import numpy.typing as npt

from tensign.signature import Arrays, TensorSpec


class Engine(Protocol):
    """inputs and outputs are the network's own, known once it is loaded; device is where it really runs."""

    device: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def load(self) -> None:
        """Reads the network. Raises UnsupportedModel, ProviderUnavailable."""

    def warmup(self, batch: Arrays) -> None:
        """Runs a made-up batch once, so that no request of its shape pays for what the first run costs."""

    def run(self, batch: Arrays) -> dict[str, npt.NDArray[Any]]:
        """{input: [B,...]} -> {output: [B,...]}; anything it raises fails the batch."""

    def close(self) -> None:
        """Gives the device's memory back."""
