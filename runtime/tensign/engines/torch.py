"""PyTorch, from what MLflow's pytorch flavor saved: a torch.export archive or a pickled module. In the worker only."""

from __future__ import annotations

import importlib
import os
import pickle
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensign.engines import Engine
from tensign.engines.answers import named
from tensign.engines.code import add_code
from tensign.engines.torchdevice import compiled, halved, inference, laid_out, opened, tensors_of, translated
from tensign.engines.ways import Ways
from tensign.errors import TensignError, UnsupportedModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tensign.signature import Arrays


class TorchEngine(Engine):
    """file: model.pt2, or model.pth, beside which pickle_module_info.txt names what pickled it; outputs: as declared.

    variant: "fp32", on CUDA "tf32" or "fp16", or "bf16", which is of native engines alone since ONNX Runtime has no bf16
    convolution for a CPU that could prove a conversion; its answers are held against fp32 at warm-up, or the load is refused.
    accelerator: "", "compile", or on CUDA "cuda-graphs"; both are made at warm-up, and batches of no warmed kind run without.
    cache: a folder for what is compiled.
    """

    def __init__(
        self,
        path: str,
        file: str,
        device: str,
        flavor: dict[str, Any],
        outputs: list[dict[str, Any]],
        variant: str = "fp32",
        accelerator: str = "",
        cache: str = "",
        **_: Any,
    ) -> None:
        self._path, self._file, self._flavor = Path(path), Path(file), flavor
        self._declared = outputs
        self._variant, self._accelerator, self._cache = variant, accelerator, cache
        self._network: Any = None
        self._tried: list[Any] = []  # networks that may be run, in the variant; those of them that are compiled
        self._accelerated: list[Any] = []
        self._place: Any = None
        self._ways: Any = None
        self.device = device

    def load(self) -> None:
        import torch

        self.device, self._place = opened(self.device, self._variant, self._accelerator)
        if self._cache:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = self._cache
        add_code(self._path, self._flavor)
        try:
            with translated(self._place):
                self._network = self._loaded()
        except TensignError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise UnsupportedModel(
                f"{self._file.name}: torch {torch.__version__} cannot load it: {type(error).__name__}: {reason}"
            ) from error
        self._place.use_tf32(self._variant == "tf32")  # after the model's own code has said what it likes
        compiles = self._accelerator == "compile"  # which lays out by itself
        networks = [self._network] if compiles else laid_out(self._network, self._place)
        self._tried = [halved(network, self._place, self._variant) for network in networks]
        self._accelerated = list(map(compiled, self._tried)) if compiles else self._tried
        self._ways = Ways(self._place, self._variant, self._accelerator)

    def warmup(self, batch: Arrays, params: Mapping[str, Any] | None = None) -> None:
        if self._place.lays_out or self._variant != "fp32" or self._accelerator:
            with translated(self._place), inference():
                makers = [partial(self._made, network, batch, params) for network in self._accelerated]
                self._ways.warm(batch, params, partial(self._plain, self._network, params), makers)
                self.apart = self._ways.apart
        self.run(batch, params)

    def run(self, batch: Arrays, params: Mapping[str, Any] | None = None, deadline: float | None = None) -> dict[str, Any]:
        with translated(self._place), inference():
            way = self._ways.of(batch, params) or partial(self._plain, self._tried[0], params)
            answers: dict[str, Any] = way(batch)
            return answers

    def close(self) -> None:
        self._network = self._ways = None
        self._tried = self._accelerated = []

    def _loaded(self) -> Any:
        import torch

        if self._file.suffix != ".pt2":
            return _unpickled(self._file).eval().to(self._place.device)
        program = torch.export.load(str(self._file))
        if self.device != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, self._place.device)
        return program.module()

    def _plain(self, network: Any, params: Mapping[str, Any] | None, batch: Arrays) -> dict[str, Any]:
        return self._answered(_called(network, tensors_of(self._place, batch), params))

    def _made(self, network: Any, batch: Arrays, params: Mapping[str, Any] | None) -> Any:
        """A run of such batches, through memory that stays."""
        fill = self._place.staged(batch)
        if self._accelerator != "cuda-graphs":
            return lambda given: self._answered(_called(network, fill(given), params))
        tensors = fill(batch)
        replay, answer = self._place.captured(lambda: _called(network, tensors, params))

        def replayed(given: Arrays) -> dict[str, Any]:
            fill(given)
            replay()
            return self._answered(answer)

        return replayed

    def _answered(self, answer: Any) -> dict[str, Any]:
        outputs, self.form = named(self._place.fetched(answer), self._declared)
        return outputs


def _called(network: Any, tensors: Mapping[str, Any], params: Mapping[str, Any] | None) -> Any:
    if len(tensors) == 1:
        return network(*tensors.values(), **(params or {}))
    return network(**tensors, **(params or {}))


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
