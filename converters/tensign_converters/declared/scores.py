"""What a network gives by itself, held against the activation that is declared on top of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.errors import InvalidConfig

_ROUNDED = 1e-3  # what a sum of probabilities in half precision may lack


def check_logits(activation: str, given: npt.NDArray[Any]) -> None:
    """given: [n,classes,...]. Raises InvalidConfig where it is softmax's already."""
    if activation != "softmax" or given.ndim < 2:
        return
    sums = given.sum(axis=1, dtype=np.float64)
    if (given >= 0).all() and (np.abs(sums - 1) <= _ROUNDED).all():
        raise InvalidConfig("declared activation softmax, but the network's rows sum to 1 already: declare activation: none")
