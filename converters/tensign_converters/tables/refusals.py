"""That the graph refuses what the original refuses: such rows have no answers, so that prove.py has nothing to compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from tensign.errors import ParityFailed

Feeds = Mapping[str, npt.NDArray[Any]]


def check_refusals(model: bytes, refused: Sequence[Feeds]) -> None:
    """model: the serialized graph; refused: what it must not answer, each as it takes it. Raises ParityFailed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # silent about what is meant to fail
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    if answered := sum(_answers(session, feeds) for feeds in refused):
        raise ParityFailed(f"the original refuses {len(refused)} rows, of which the converted one answers {answered}")


def _answers(session: Any, feeds: Feeds) -> bool:
    try:
        session.run(None, feeds)
    except Exception:  # of onnxruntime, which have no base of their own
        return False
    return True
