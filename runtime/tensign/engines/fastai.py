"""A fastai Learner as it was exported, with its own transforms: model.fastai, natively. In the worker only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tensign.engines import Engine
from tensign.engines.code import add_code
from tensign.engines.torch import torch_device
from tensign.errors import EngineError, UnsupportedModel
from tensign.form import Form

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tensign.signature import Arrays


class FastaiEngine(Engine):
    """file: model.fastai; the one input is pixels, uint8 [B,H,W,3], or an object array [B] of uint8 [H,W,3] of any sizes."""

    def __init__(
        self, path: str, file: str, device: str, flavor: dict[str, Any], outputs: list[dict[str, Any]], **_: Any
    ) -> None:
        self._path, self._file, self._flavor = Path(path), Path(file), flavor
        self._output = str(outputs[0]["name"]) if outputs else "output-0"
        self._learner: Any = None
        self.device = device
        self.form = Form("dataframe", ("predictions",))  # as MLflow's fastai flavor had it: an array in each cell

    def load(self) -> None:
        try:
            import fastai
            from fastai.learner import load_learner
        except ImportError as error:
            raise UnsupportedModel(
                f"the worker's Python cannot import fastai ({error}): pip install 'tensign[convert]', or --python PATH of one"
                " that can"
            ) from None
        self.device = torch_device(self.device)
        add_code(self._path, self._flavor)
        written = self._flavor.get("fastai_version", "of an unknown version")
        try:
            learner = load_learner(self._file, cpu=self.device == "cpu")
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise UnsupportedModel(
                f"{self._file.name}: written by fastai {written}, and fastai {fastai.__version__} cannot load it:"
                f" {type(error).__name__}: {reason}; a Python that has fastai {written} may: --python PATH"
            ) from error
        learner.model.eval().to(self.device)
        learner.dls.to(self.device)
        self.labels = tuple(map(str, getattr(learner.dls, "vocab", None) or ()))
        threshold = getattr(learner.loss_func, "thresh", None)
        self.threshold = None if threshold is None else float(threshold)
        self._learner = learner

    def warmup(self, batch: Arrays, params: Mapping[str, Any] | None = None) -> None:
        self.run(batch, params)

    def run(self, batch: Arrays, params: Mapping[str, Any] | None = None, deadline: float | None = None) -> dict[str, Any]:
        """As MLflow's fastai flavor did it. A DataLoader a call costs 1 ms or less beside transforms and network, on a CPU."""
        pictures = _pictures(batch)
        with self._learner.no_bar(), self._learner.no_logging():
            loader = self._learner.dls.test_dl(pictures, num_workers=0, bs=len(pictures))
            scores, _ = self._learner.get_preds(dl=loader)
        if not hasattr(scores, "detach"):
            raise EngineError(f"the Learner answered with a {type(scores).__name__}, not with one tensor")
        return {self._output: scores.detach().cpu().numpy()}

    def close(self) -> None:
        self._learner = None


def _pictures(batch: Arrays) -> list[Any]:
    (pixels,) = batch.values()
    return [np.array(picture) for picture in pixels]
