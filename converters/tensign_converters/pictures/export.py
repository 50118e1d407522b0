"""PictureModel -> ONNX: cast, transpose, float steps, network and activation in one graph."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from tensign.proof.parity import LOGITS, NETWORK_INPUT
from tensign_converters.graph import INPUT, OUTPUT, write
from tensign_converters.pictures.activation import activated
from tensign_converters.pictures.model import PictureModel
from tensign_converters.pictures.preprocessing import example, network_input


class Graph(nn.Module):
    """uint8 pixels [B,h,w,3] or [B,h,w] -> float32 [B,...], with the network's input and its logits besides."""

    def __init__(self, model: PictureModel) -> None:
        super().__init__()
        self.preprocessing, self.head = model.preprocessing, model.head
        self.steps = nn.ModuleList(model.preprocessing.graph_steps)
        self.network = model.network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (pixels,) = inputs
        x = network_input(self.preprocessing, pixels)
        logits = self.network(x)
        return activated(self.head, logits), x + 0, logits  # + 0: a tensor of its own name


def export(model: PictureModel, target: Path) -> None:
    """Writes one ONNX file, any number of rows; NETWORK_INPUT and LOGITS are inner tensors of it. The same model gives the
    same bytes.

    Raises UnsupportedModel for a network that the exporter cannot follow.
    """
    pixels = example(model.preprocessing, 2)
    open_axes = {axis: name for axis, name in ((1, "height"), (2, "width")) if model.preprocessing.size[axis - 1] == -1}
    write(Graph(model), {INPUT: (pixels, open_axes)}, [OUTPUT], target, (NETWORK_INPUT, LOGITS))
