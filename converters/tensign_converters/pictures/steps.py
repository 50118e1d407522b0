"""The float steps between uint8 pixels and the network, as torch modules that export to ONNX.

fastai runs them in `after_batch`; here they are part of the graph, so that every border before it carries one byte a channel.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tensign_converters.pictures.taps import Taps, averaging, sampling


class Scale(nn.Module):
    """fastai's IntToFloatTensor: x / div."""

    def __init__(self, div: float) -> None:
        super().__init__()
        self.div = div

    def forward(self, x: Tensor) -> Tensor:
        return x / self.div

    def describe(self) -> str:
        return f"divide by {self.div:g}"


class Codes(Scale):
    """IntToFloatTensor on a mask: whole numbers, divided towards zero."""

    def forward(self, x: Tensor) -> Tensor:
        return (x / self.div).trunc()

    def describe(self) -> str:
        return f"divide by {self.div:g}, towards zero"


class Normalize(nn.Module):
    """(x - mean) / std, channel by channel; mean and std have one value, or one a channel."""

    def __init__(self, mean: Any, std: Any) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).reshape(1, -1, 1, 1).clone())
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32).reshape(1, -1, 1, 1).clone())

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
    still moves values in the fifth digit, so that leaving it out would not be the same model. Such a grid samples rows
    and columns independently, so that a few gathered and weighted lines an axis do it: exact on every device, and on a
    CPU faster than ONNX's GridSample.
    """

    def __init__(
        self, source: tuple[int, int], target: tuple[int, int], *, mode: str, pad_mode: str, align_corners: bool
    ) -> None:
        super().__init__()
        self.target, self.mode, self.pad_mode = target, mode, pad_mode
        grid = F.affine_grid(torch.eye(3)[None, :2], [1, 1, *target], align_corners=align_corners)
        middle = source
        zoom = (2 / (grid.max() - grid.min())).item()
        shrink = min(source[0] / target[1], source[1] / 2) / 2  # fastai's own: it takes the grid's last axes for its sides
        averaged = mode == "bilinear" and shrink > 1 and shrink > zoom
        if averaged:
            probe = F.interpolate(torch.zeros(1, 1, *source), scale_factor=1 / shrink, mode="area", recompute_scale_factor=True)
            middle = probe.shape[-2], probe.shape[-1]
        axes = []
        for axis, coordinates in enumerate((grid[0, :, 0, 1], grid[0, 0, :, 0])):
            taps = sampling(coordinates, middle[axis], mode, pad_mode, align_corners)
            axes.append(averaging(source[axis], middle[axis]).then(taps) if averaged else taps)
        self.rows, self.columns = _Gathered(axes[0], source[0], axis=2), _Gathered(axes[1], source[1], axis=3)

    def forward(self, x: Tensor) -> Tensor:
        columns: Tensor = self.columns(self.rows(x))
        return columns

    def describe(self) -> str:
        return f"sample on a {self.target[0]}x{self.target[1]} grid, {self.mode}, {self.pad_mode}"


class _Gathered(nn.Module):
    """[B,C,h,w] -> the same with another length along `axis`: weighted sums of its lines."""

    def __init__(self, taps: Taps, source: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.count = 0 if taps.is_identity(source) else len(taps.lines)
        shape = (-1, 1) if axis == 2 else (-1,)
        for number, (lines, weights) in enumerate(zip(taps.lines, taps.weights, strict=True)):
            if self.count:
                self.register_buffer(f"lines_{number}", lines)
                self.register_buffer(f"weights_{number}", weights.reshape(shape))

    def forward(self, x: Tensor) -> Tensor:
        if not self.count:
            return x
        parts = [
            x.index_select(self.axis, getattr(self, f"lines_{number}")) * getattr(self, f"weights_{number}")
            for number in range(self.count)
        ]
        total: Tensor = parts[0]
        for part in parts[1:]:
            total = total + part
        return total


Step = Scale | Normalize | CentreCrop | IdentityWarp
