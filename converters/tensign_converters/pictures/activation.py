"""What stands on the logits."""

from __future__ import annotations

import torch
from torch import Tensor

from tensign_converters.subject import Head


def activated(head: Head, logits: Tensor) -> Tensor:
    """The head's activation along its axis; a tensor of its own where there is none."""
    if head.activation == "softmax":
        return torch.softmax(logits, dim=head.axis)
    return torch.sigmoid(logits) if head.activation == "sigmoid" else logits + 0
