"""One picture, and what an original says to several."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8] | Path


class Answered(NamedTuple):
    """To n pictures (uint8 [H,W,3] or [H,W] of one size, or files): logits [n,...], and what the network was given, [n,...]."""

    logits: npt.NDArray[np.float32]
    network_input: npt.NDArray[Any]
