"""One axis of `grid_sample` and of area interpolation, as weighted lines: output i = sum of weights[k][i] * x[lines[k][i]].

The arithmetic is that of torch's kernels for the CPU, single operations in single precision, to the last bit: a coordinate
that is off by one unit in the last place moves a pixel of a sharp picture by 1e-4 once it is normalised.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_CUBIC = -0.75  # torch's coefficient of bicubic interpolation


@dataclass(frozen=True, slots=True)
class Taps:
    """lines: int64 [k,target], within the source; weights: float32 [k,target]."""

    lines: Tensor
    weights: Tensor

    def is_identity(self, source: int) -> bool:
        """True where every output is the line of its own number."""
        return torch.equal(self._matrix(source), torch.eye(source)) if self.lines.shape[1] == source else False

    def then(self, after: Taps) -> Taps:
        """This one first, `after` on what comes of it."""
        size = int(self.lines.max()) + 1
        return _from_matrix(after._matrix(self.lines.shape[1]) @ self._matrix(size))

    def _matrix(self, source: int) -> Tensor:
        """float32 [target,source]."""
        matrix = torch.zeros(self.lines.shape[1], source)
        rows = torch.arange(self.lines.shape[1])
        for lines, weights in zip(self.lines, self.weights, strict=True):
            matrix.index_put_((rows, lines), weights, accumulate=True)
        return matrix


def averaging(source: int, target: int) -> Taps:
    """Adaptive average pooling: each output averages the lines that it covers, whole or in part."""
    matrix = torch.zeros(target, source)
    for row in range(target):
        start, stop = row * source // target, -(-(row + 1) * source // target)
        matrix[row, start:stop] = 1 / (stop - start)
    return _from_matrix(matrix)


def sampling(coordinates: Tensor, source: int, mode: str, pad_mode: str, align_corners: bool) -> Taps:
    """`grid_sample` at float32 `coordinates`, [target], -1 to 1 across the source. mode: bilinear, bicubic or nearest."""
    at = _unnormalized(coordinates, source, align_corners)
    if mode != "bicubic":  # which pads each of its lines
        at = _padded(at, source, pad_mode, align_corners)
    if mode == "nearest":
        places, weights = [at.round()], [torch.ones_like(at)]
    else:
        first = at.floor()
        part = at - first
        if mode == "bilinear":
            places, weights = [first, first + 1], [1 - part, part]
        else:
            places = [_padded(first + step, source, pad_mode, align_corners) for step in (-1, 0, 1, 2)]
            weights = _cubic(part)
    stacked = torch.stack(places)
    inside = (stacked >= 0) & (stacked <= source - 1)  # else zeros, as a pad mode or as the weight of nothing
    lines = stacked.clamp(0, source - 1).long()
    return Taps(lines, torch.where(inside, torch.stack(weights), torch.zeros(())))


def _unnormalized(coordinates: Tensor, source: int, align_corners: bool) -> Tensor:
    if align_corners:
        return (coordinates + 1) * ((source - 1) / 2)
    return ((coordinates + 1).double() * (source / 2) - 0.5).float()  # rounded once: a fused multiply-add


def _padded(at: Tensor, source: int, pad_mode: str, align_corners: bool) -> Tensor:
    if pad_mode == "zeros":
        return at
    if pad_mode == "reflection":
        low, span = (0.0, source - 1) if align_corners else (-0.5, source)
        if span == 0:
            return torch.zeros_like(at)
        beyond = (at - low).abs()
        beyond = beyond - (beyond / (2 * span)).trunc() * (2 * span)
        at = torch.minimum(beyond, 2 * span - beyond) + low
    return at.clamp(0, source - 1)


def _cubic(part: Tensor) -> list[Tensor]:
    """Weights of the four lines around a place; part: its distance from the second, 0 to 1."""

    def near(x: Tensor) -> Tensor:
        return ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1

    def far(x: Tensor) -> Tensor:
        return ((_CUBIC * x - 5 * _CUBIC) * x + 8 * _CUBIC) * x - 4 * _CUBIC

    return [far(part + 1), near(part), near(1 - part), far(2 - part)]


def _from_matrix(matrix: Tensor) -> Taps:
    """As few lines as the busiest row of float32 [target,source] needs."""
    count = int((matrix != 0).sum(1).max().clamp(min=1))
    lines = (matrix != 0).to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]
    return Taps(lines.T.contiguous(), matrix.gather(1, lines).T.contiguous())
