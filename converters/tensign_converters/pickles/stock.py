"""What stands for the commonest layers of fastai, so that most networks need none of it.

To import it, with pandas and scikit-learn behind it, takes a fifth of a conversion's time. The attributes are fastai's, a
pickle's state fills them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Concatenated(nn.Module):
    """float32 [n,C,H,W] -> [n,2C,h,w]: maxima, then means."""

    mp: nn.Module
    ap: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.mp(x), self.ap(x)], 1)


class Flattened(nn.Module):
    """[n,...] -> [n,m], or [m] where it is `full`."""

    full: bool

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1) if self.full else x.reshape(x.shape[0], -1)


class Ranged(nn.Module):
    """What a regression answers, between `low` and `high`."""

    low: float
    high: float

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x) * (self.high - self.low) + self.low


CLASSES: dict[str, type[nn.Module]] = {
    "fastai.layers.AdaptiveConcatPool2d": Concatenated,
    "fastai.layers.ConvLayer": nn.Sequential,  # whose constructors alone differ
    "fastai.layers.LinBnDrop": nn.Sequential,
    "fastai.layers.PoolFlatten": nn.Sequential,
    "fastai.layers.Flatten": Flattened,
    "fastai.layers.SigmoidRange": Ranged,
}
