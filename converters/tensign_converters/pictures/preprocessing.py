"""Preprocessing: what happens to a picture before the network, the host's part and the graph's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tensign.preprocess import HostStep, PreprocessSpec
from tensign_converters.pictures.steps import Step

COLOUR, GREY, MASK = "PILImage", "PILImageBW", "PILMask"
MODES = {COLOUR: "RGB", GREY: "L", MASK: "L"}  # of Pillow, by what fastai calls such pictures
_OPEN_SIDE = 64  # of an example picture whose signature leaves height and width open


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """item_steps act on uint8 pixels, graph_steps on float [B,C,h,w] before the network; kind: COLOUR, GREY or MASK.

    size: height and width of what reaches the graph; network_size: of what reaches the network.
    """

    kind: str
    item_steps: tuple[HostStep, ...]
    graph_steps: tuple[Step, ...]
    size: tuple[int, int]
    network_size: tuple[int, int]
    exif_orientation: str = "ignore"

    def spec(self) -> PreprocessSpec:
        """The part that the host does, with the rest in words."""
        layout = "NHWC to NCHW" if self.kind == COLOUR else "NHW to N1HW"
        words = [f"cast to float32, {layout}", *(step.describe() for step in self.graph_steps)]
        words += ["cast to int64, N1HW to NHW"] * (self.kind == MASK)
        return PreprocessSpec(self.item_steps, self.exif_orientation, tuple(words), MODES[self.kind])


def example(steps: Preprocessing, rows: int) -> Tensor:
    """uint8 zeros as they reach the graph: [rows,h,w,3] or [rows,h,w]; a side that is open has some length."""
    height, width = (side if side != -1 else some for side, some in zip(steps.size, (_OPEN_SIDE, 2 * _OPEN_SIDE), strict=True))
    return torch.zeros(rows, height, width, *([3] if steps.kind == COLOUR else []), dtype=torch.uint8)


def network_input(steps: Preprocessing, pixels: Tensor) -> Tensor:
    """uint8 pixels as they reach the graph -> what the network gets."""
    x = (pixels.permute(0, 3, 1, 2) if steps.kind == COLOUR else pixels.unsqueeze(1)).float()
    for step in steps.graph_steps:
        x = step(x)
    return x.squeeze(1).long() if steps.kind == MASK else x
