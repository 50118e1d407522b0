"""PyTorch, from what MLflow's pytorch flavor saved: a torch.export archive or a pickled module. In the worker only."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tensign.engines import Engine
from tensign.engines.answers import named
from tensign.engines.code import add_code
from tensign.errors import ProviderUnavailable, UnsupportedModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tensign.signature import Arrays


class TorchEngine(Engine):
    """file: model.pt2, or model.pth, beside which pickle_module_info.txt names what pickled it; outputs: as declared."""

    def __init__(
        self, path: str, file: str, device: str, flavor: dict[str, Any], outputs: list[dict[str, Any]], **_: Any
    ) -> None:
        self._path, self._file, self._flavor = Path(path), Path(file), flavor
        self._declared = outputs
        self._network: Any = None
        self.device = device

    def load(self) -> None:
        import torch

        self.device = torch_device(self.device)
        add_code(self._path, self._flavor)
        try:
            if self._file.suffix == ".pt2":
                program = torch.export.load(str(self._file))
                if self.device != "cpu":
                    from torch.export.passes import move_to_device_pass

                    program = move_to_device_pass(program, self.device)
                self._network = program.module()
            else:
                self._network = _unpickled(self._file).eval().to(self.device)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise UnsupportedModel(
                f"{self._file.name}: torch {torch.__version__} cannot load it: {type(error).__name__}: {reason}"
            ) from error

    def warmup(self, batch: Arrays, params: Mapping[str, Any] | None = None) -> None:
        self.run(batch, params)

    def run(self, batch: Arrays, params: Mapping[str, Any] | None = None, deadline: float | None = None) -> dict[str, Any]:
        import torch

        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)).to(self.device) for name, array in batch.items()}
        with torch.no_grad():
            if len(tensors) == 1:
                answer = self._network(*tensors.values(), **(params or {}))
            else:
                answer = self._network(**tensors, **(params or {}))
        outputs, self.form = named(_on_host(answer), self._declared)
        return outputs

    def close(self) -> None:
        self._network = None


def torch_device(wanted: str) -> str:
    """Where it will run: "auto" is CUDA where torch has it. Raises ProviderUnavailable."""
    import torch

    if wanted == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if wanted != "cpu" and not torch.cuda.is_available():
        raise ProviderUnavailable(f"{wanted}: the torch {torch.__version__} of the worker's Python sees no GPU")
    return "cuda:0" if wanted == "cuda" else wanted


def _unpickled(file: Path) -> Any:
    import torch

    info = file.with_name("pickle_module_info.txt")
    name = info.read_text().strip() if info.is_file() else "pickle"
    try:
        module = importlib.import_module(name)
    except ImportError:  # MLflow's own, where there is no MLflow; what it pickles with is cloudpickle, which pickle reads
        module = pickle
    options = {"weights_only": False} if _knows_weights_only() else {}
    return torch.load(str(file), map_location="cpu", pickle_module=module, **options)


def _knows_weights_only() -> bool:
    import inspect

    import torch

    return "weights_only" in inspect.signature(torch.load).parameters


def _on_host(answer: Any) -> Any:
    """The same, with every tensor as a numpy array."""
    if hasattr(answer, "detach"):
        return answer.detach().cpu().numpy()
    if isinstance(answer, dict):
        return {name: _on_host(value) for name, value in answer.items()}
    if isinstance(answer, (tuple, list)):
        return tuple(_on_host(value) for value in answer)
    return answer
