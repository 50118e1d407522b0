"""The float steps between uint8 pixels and the network, as torch modules that export to ONNX.

fastai runs them in `after_batch`; here they are part of the graph, so that every border before it carries one byte a channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Scale(nn.Module):
    """fastai's IntToFloatTensor: x / div."""

    def __init__(self, div: float) -> None:
        super().__init__()
        self.div = div

    def forward(self, x: Tensor) -> Tensor:
        return x / self.div

    def describe(self) -> str:
        return f"divide by {self.div:g}"


class Normalize(nn.Module):
    """(x - mean) / std, channel by channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def describe(self) -> str:
        mean, std = (", ".join(f"{value:.4g}" for value in side.flatten().tolist()) for side in (self.mean, self.std))
        return f"normalise: mean {mean}; std {std}"


class CentreCrop(nn.Module):
    """The centre of the picture, height x width."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, x: Tensor) -> Tensor:
        top, left = (x.shape[-2] - self.height) // 2, (x.shape[-1] - self.width) // 2
        return x[..., top : top + self.height, left : left + self.width]

    def describe(self) -> str:
        return f"crop the centre {self.height}x{self.width}"


class IdentityWarp(nn.Module):
    """What fastai's affine augmentations come to at inference: `grid_sample` on an identity grid.

    It resizes where the target differs, averaging first where that shrinks by more than two; and where it does not, it
    still moves values in the fifth digit, so that leaving it out would not be the same model.
    """

    def __init__(
        self, source: tuple[int, int], target: tuple[int, int], *, mode: str, pad_mode: str, align_corners: bool
    ) -> None:
        super().__init__()
        self.target, self.mode, self.pad_mode, self.align_corners = target, mode, pad_mode, align_corners
        identity = torch.eye(3)[None, :2]
        grid = F.affine_grid(identity, [1, 3, *target], align_corners=align_corners)
        self.grid: Tensor
        self.register_buffer("grid", grid)
        self.rows: Tensor | None
        self.columns: Tensor | None
        zoom = 2 / (grid.max() - grid.min()).item()
        shrink = min(source[0] / target[0], source[1] / target[1]) / 2
        averaged = mode == "bilinear" and shrink > 1 and shrink > zoom
        if averaged:
            probe = F.interpolate(torch.zeros(1, 1, *source), scale_factor=1 / shrink, mode="area", recompute_scale_factor=True)
        self.register_buffer("rows", _averaging(source[0], probe.shape[-2]) if averaged else None)
        self.register_buffer("columns", _averaging(source[1], probe.shape[-1]).T.contiguous() if averaged else None)

    def forward(self, x: Tensor) -> Tensor:
        if self.rows is not None and self.columns is not None:
            x = self.rows @ x @ self.columns  # area interpolation of a fixed size; ONNX has no operator for it
        grid = self.grid.expand(x.shape[0], -1, -1, -1)
        return F.grid_sample(x, grid, mode=self.mode, padding_mode=self.pad_mode, align_corners=self.align_corners)

    def describe(self) -> str:
        return f"sample on a {self.target[0]}x{self.target[1]} grid, {self.mode}, {self.pad_mode}"


def _averaging(source: int, target: int) -> Tensor:
    """[target,source]: row i averages the cells that adaptive average pooling gives to output i."""
    matrix = torch.zeros(target, source)
    for row in range(target):
        start, stop = row * source // target, -(-(row + 1) * source // target)
        matrix[row, start:stop] = 1 / (stop - start)
    return matrix


Step = Scale | Normalize | CentreCrop | IdentityWarp
