"""An engine runs one network on one device. Four verbs, nothing else: load, warmup, run, close.

Imported by the worker too, whose Python may be older and have no more than numpy: nothing heavy here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from tensign.form import Form
    from tensign.signature import Arrays, TensorSpec


class Engine(Protocol):
    """inputs and outputs are the network's own, known once it is loaded, () where it does not tell; device is where it
    really runs; ready tells whether it can run at once, lost whether it never can again under this server; form is that of
    its last answer, None before there was one. labels and threshold, above which a label counts, are () and None where it
    knows none. lanes: from so many threads at once `run` may be called; local: it computes on the thread that calls, not in a
    process or on a device of its own; device_rows: whether it takes rows that lie in its device's memory, as DeviceArrays. An
    engine that inherits from this says only what is
    otherwise. apart: how far the answers of warm-up were from plain fp32, relative to the largest value, None where it was not
    measured.
    """

    device: str = "cpu"
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    form: Form | None = None
    labels: tuple[str, ...] = ()
    threshold: float | None = None
    lanes: int = 1
    local: bool = False
    device_rows: bool = False
    lost: bool = False
    apart: float | None = None

    @property
    def ready(self) -> bool:
        return True

    def load(self) -> None:
        """Reads the network. Raises UnsupportedModel, ProviderUnavailable."""

    def warmup(self, batch: Arrays, params: Mapping[str, Any] | None = None) -> None:
        """Runs a made-up batch once, so that no request of its shape pays for what the first run costs."""

    def run(
        self, batch: Arrays, params: Mapping[str, Any] | None = None, deadline: float | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """{input: [B,...]} -> {output: [B,...]}; anything it raises fails the batch.

        params: what the signature declares beside the inputs; deadline: on time.monotonic(), after it nobody waits for the
        answer any longer, and the engine may give up.
        """

    def empty(self, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        """Memory for the rows of a batch, where the engine likes them best."""
        import numpy as np

        return np.empty(shape, dtype)

    def close(self) -> None:
        """Gives the device's memory back."""
