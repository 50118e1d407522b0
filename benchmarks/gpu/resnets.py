"""torchvision's ResNets for torch, and as an MLmodel of the pytorch flavor, which tensign's torch engine opens.

Their weights are drawn from a fixed seed, their batch norms know photographs, and their heads are fitted to tell from which
photograph a piece is: as sure of it as trained ones, and as little moved by half precision.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from gpu.step import Absent, Task

NAMES = ("resnet18", "resnet50")
SIDE, CLASSES = 300, 1000
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MOST_ROWS = 1024
_RIDGE, _SURE = 1.0, 8.0  # of the mean square of the features; a logit


def network(task: Task, name: str) -> Any:
    """For torch, float32 [B,3,300,300], normalised -> logits [B,1000]; on the CPU. Raises Absent where it is not made."""
    torch, torchvision = _libraries()
    weights = _weights(task, name)
    if name not in NAMES or not weights.exists():
        raise Absent(f"{name}: there are no weights of it for torch here")
    network = getattr(torchvision.models, name)(weights=None)
    network.load_state_dict(torch.load(weights, weights_only=True))
    return network.eval()


def made(task: Task, name: str, pixels: Any, photographs: int) -> Any:
    """The same, made where it is not. pixels: pieces of so many photographs in turn, uint8 [n,300,300,3]."""
    if _weights(task, name).exists():
        return network(task, name)
    torch, torchvision = _libraries()
    torch.manual_seed(0)
    made = getattr(torchvision.models, name)(weights=None).eval()
    with torch.no_grad():
        given = _normalised(torch, torch.from_numpy(pixels))
        for norm in (module for module in made.modules() if isinstance(module, torch.nn.BatchNorm2d)):
            norm.train()
            norm.momentum = None
        made(given)
        made.eval()
        head, made.fc = made.fc, torch.nn.Identity()
        _fit(torch, head, made(given), photographs)
        made.fc = head
    torch.save(made.state_dict(), _weights(task, name))
    return made


def archive(network: Any, path: Path) -> int:
    """Writes an MLmodel as MLflow's pytorch flavor does: uint8 [-1,300,300,3] -> probabilities [-1,1000]; bytes of its file."""
    import torch

    class Pictures(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: Any) -> Any:
            return self.network(_normalised(torch, pixels)).softmax(-1)

    file = path / "data" / "model.pt2"
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = {0: torch.export.Dim("rows", max=_MOST_ROWS)}
    example = torch.zeros((2, SIDE, SIDE, 3), dtype=torch.uint8)
    torch.export.save(torch.export.export(Pictures().eval(), (example,), dynamic_shapes=(rows,)), file)
    signature = {
        "inputs": [{"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, SIDE, SIDE, 3]}}],
        "outputs": [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, CLASSES]}}],
    }
    document = {
        "artifact_path": path.name,
        "flavors": {"pytorch": {"model_data": "data", "pytorch_version": str(torch.__version__)}},
        "signature": {part: json.dumps(specs) for part, specs in signature.items()},
    }
    (path / "MLmodel").write_text(yaml.safe_dump(document))
    return file.stat().st_size


def _weights(task: Task, name: str) -> Path:
    return task.models / f"{name}.pt"


def _libraries() -> tuple[Any, Any]:
    try:
        import torch
        import torchvision
    except ImportError as error:
        raise Absent(f"{error.name} is not installed: pip install torch torchvision") from None
    return torch, torchvision


def _normalised(torch: Any, pixels: Any) -> Any:
    mean, deviation = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / deviation


def _fit(torch: Any, head: Any, features: Any, count: int) -> None:
    """Makes a linear layer tell from which of so many photographs the pieces with these features [n,f] are: ridge
    regression."""
    wanted = _SURE * torch.nn.functional.one_hot(torch.arange(len(features)) % count).float()
    mean = features.mean(0)
    centred, target = features - mean, wanted - wanted.mean(0)
    products = centred @ centred.T
    ridge = _RIDGE * products.diagonal().mean() * torch.eye(len(features))
    head.weight.zero_()
    head.bias.fill_(-_SURE)  # of classes that no photograph is
    head.weight[:count] = (centred.T @ torch.linalg.solve(products + ridge, target)).T
    head.bias[:count] = wanted.mean(0) - head.weight[:count] @ mean
