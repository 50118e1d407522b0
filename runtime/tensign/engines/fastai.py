"""A fastai Learner as it was exported, with its own transforms: model.fastai, natively. In the worker only."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tensign.engines import Engine
from tensign.engines.code import add_code
from tensign.engines.torchdevice import halved, laid_out, opened, translated
from tensign.engines.ways import Ways
from tensign.errors import EngineError, UnsupportedModel
from tensign.form import Form

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tensign.signature import Arrays


class FastaiEngine(Engine):
    """file: model.fastai; the one input is pixels, uint8 [B,H,W,3], or an object array [B] of uint8 [H,W,3] of any sizes.

    variant: as of TorchEngine, for the network; what is done to pictures stays as exact as it is.
    """

    def __init__(
        self,
        path: str,
        file: str,
        device: str,
        flavor: dict[str, Any],
        outputs: list[dict[str, Any]],
        variant: str = "fp32",
        **_: Any,
    ) -> None:
        self._path, self._file, self._flavor = Path(path), Path(file), flavor
        self._output = str(outputs[0]["name"]) if outputs else "output-0"
        self._learner: Any = None
        self._network: Any = None  # as it was loaded
        self._variant = variant
        self._tried: list[Any] = []  # networks that may be run, in the variant
        self._place: Any = None
        self._ways: Any = None
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
        self.device, self._place = opened(self.device, self._variant)
        add_code(self._path, self._flavor)
        written = self._flavor.get("fastai_version", "of an unknown version")
        try:
            learner = load_learner(self._file, cpu=True)  # wherever it was trained
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise UnsupportedModel(
                f"{self._file.name}: written by fastai {written}, and fastai {fastai.__version__} cannot load it:"
                f" {type(error).__name__}: {reason}; a Python that has fastai {written} may: --python PATH"
            ) from error
        with translated(self._place):
            learner.model.eval().to(self._place.device)
            learner.dls.to(self._place.device)
        self.labels = tuple(map(str, getattr(learner.dls, "vocab", None) or ()))
        threshold = getattr(learner.loss_func, "thresh", None)
        self.threshold = None if threshold is None else float(threshold)
        self._learner, self._network = learner, learner.model
        self._place.use_tf32(self._variant == "tf32")
        self._tried = [halved(network, self._place, self._variant) for network in laid_out(learner.model, self._place)]
        self._ways = Ways(self._place, self._variant, "")

    def warmup(self, batch: Arrays, params: Mapping[str, Any] | None = None) -> None:
        if self._place.lays_out or self._variant != "fp32":
            with translated(self._place):
                makers = [partial(partial, self._predicted, network) for network in self._tried]
                self._ways.warm(batch, params, partial(self._predicted, self._network), makers)
                self.apart = self._ways.apart
        self.run(batch, params)

    def run(self, batch: Arrays, params: Mapping[str, Any] | None = None, deadline: float | None = None) -> dict[str, Any]:
        with translated(self._place):
            way = self._ways.of(batch, params) or partial(self._predicted, self._tried[0])
            answers: dict[str, Any] = way(batch)
            return answers

    def _predicted(self, network: Any, batch: Arrays) -> dict[str, Any]:
        """As MLflow's fastai flavor did it. A DataLoader a call costs 1 ms or less beside transforms and network, on a CPU."""
        pictures = _pictures(batch)
        self._learner.model = network
        with self._learner.no_bar(), self._learner.no_logging():
            loader = self._learner.dls.test_dl(pictures, num_workers=0, bs=len(pictures))
            scores, _ = self._learner.get_preds(dl=loader)
        if not hasattr(scores, "detach"):
            raise EngineError(f"the Learner answered with a {type(scores).__name__}, not with one tensor")
        return {self._output: scores.detach().cpu().numpy()}

    def close(self) -> None:
        self._learner = self._network = self._ways = None
        self._tried = []


def _pictures(batch: Arrays) -> list[Any]:
    (pixels,) = batch.values()
    return [np.array(picture) for picture in pixels]
