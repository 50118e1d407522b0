"""Random numbers: what is converted in a user's own process draws none of theirs."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """What draws from the generators of Python, NumPy and torch inside leaves them as they were."""
    python, arrays, tensors = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
        torch.set_rng_state(tensors)
