"""What stands for fastai's own layers and knowledge, held against the fastai that is installed."""

from __future__ import annotations

import inspect
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # fastai's own
    pytest.importorskip("fastai.vision.all")

import fastai.data.transforms
import fastai.layers
import fastai.vision.augment
import fastai.vision.core
import torch
from torch import nn

from tensign_converters.learners import exported
from tensign_converters.pickles import stock


def standing(layer: nn.Module) -> nn.Module:
    """What is rebuilt for a layer of fastai, with its state."""
    path = f"{type(layer).__module__}.{type(layer).__name__}"
    made = stock.CLASSES[path].__new__(stock.CLASSES[path])
    nn.Module.__init__(made)
    made.__dict__.update(layer.__dict__)
    return made


@pytest.mark.parametrize(
    "make",
    [
        lambda layers: layers.AdaptiveConcatPool2d(),
        lambda layers: layers.AdaptiveConcatPool2d(2),
        lambda layers: layers.Flatten(),
        lambda layers: layers.Flatten(full=True),
        lambda layers: layers.SigmoidRange(-3, 7.5),
        lambda layers: layers.ConvLayer(5, 4).eval(),
        lambda layers: layers.PoolFlatten(),
        lambda layers: layers.LinBnDrop(7, 4, bn=False).eval(),
    ],
)
def test_it_computes_what_fastai_computes(make: Callable[[Any], nn.Module]) -> None:
    layer, x = make(fastai.layers), torch.randn(3, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(standing(layer)(x).detach().numpy(), np.asarray(layer(x).detach()))


def test_transforms_of_training_alone_are_those_that_fastai_says() -> None:
    homes = (fastai.vision.augment, fastai.vision.core, fastai.data.transforms)
    found = {
        f"{home.__name__}.{name}"
        for home in homes
        for name, value in inspect.getmembers(home, inspect.isclass)
        if value.__module__ == home.__name__ and inspect.getattr_static(value, "split_idx", None) == 0
    }
    assert found == exported._TRAIN_ONLY


def test_a_stock_learner_is_read_without_fastai(fixture_dir: Callable[[str], Path]) -> None:
    """Which takes seconds to import; a process of its own, since here it is imported."""
    file = fixture_dir("digits-multilabel-fastai-2.8") / "model.fastai"
    code = (
        "import sys; from pathlib import Path; from tensign_converters.learners.exported import read_export\n"
        f"read_export(Path({str(file)!r}), {{}})\n"
        "assert not {'fastai', 'pandas', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
