"""A Learner of a small network over noise: what is tested of it is never how well it predicts."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    fastai = pytest.importorskip("fastai.vision.all")
    import torch
    from torch import nn

LABELS = ("bird", "cat")
SIZE = 32


def noise(count: int, height: int = SIZE, width: int = SIZE, *, seed: int = 0) -> npt.NDArray[np.uint8]:
    """uint8 [count,height,width,3], each picture of a brightness of its own."""
    random = np.random.default_rng(seed)
    brightest = random.integers(40, 256, (count, 1, 1, 1))
    return np.asarray(random.integers(0, brightest, (count, height, width, 3)), np.uint8)


def small_learner(*, resize: bool = True, channels: int = 3, **options: Any) -> Any:
    """Pictures of 40x48, resized to SIZE, or of SIZE as they are. options: of fastai's Learner."""
    torch.manual_seed(0)
    held = noise(12, 40, 48) if resize else noise(12)
    held = held if channels == 3 else held[..., 0]
    opened = fastai.PILImage if channels == 3 else fastai.PILImageBW
    block = fastai.DataBlock(
        (fastai.ImageBlock(opened), fastai.CategoryBlock(list(LABELS))),
        get_x=fastai.ItemGetter(0),
        get_y=fastai.ItemGetter(1),
        splitter=fastai.RandomSplitter(seed=0),
        item_tfms=[fastai.Resize(SIZE)] if resize else [],
        batch_tfms=[*fastai.aug_transforms(size=SIZE), fastai.Normalize.from_stats([0.5] * channels, [0.25] * channels)],
    )
    network = nn.Sequential(
        nn.Conv2d(channels, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(4, len(LABELS)),
    )
    loaders = block.dataloaders(list(zip(held, LABELS * len(held), strict=False)), bs=4, num_workers=0)
    return fastai.Learner(loaders, network, **{"loss_func": fastai.CrossEntropyLossFlat(), **options})


def predictions(learner: Any, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """What the Learner itself says of them, activation included: [n,labels]."""
    with warnings.catch_warnings(), learner.no_bar():
        warnings.simplefilter("ignore")
        scores, _ = learner.get_preds(dl=learner.dls.test_dl(list(pictures)))
    return np.asarray(scores, np.float32)
