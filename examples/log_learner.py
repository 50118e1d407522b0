"""Trains a small fastai Learner, logs it to MLflow, takes it out of the registry and predicts with it, without fastai.

    pip install 'tensign[cpu,convert]' mlflow
    MLFLOW_TRACKING_URI=sqlite:///shapes.db python examples/log_learner.py

What is in the registry then, `mlflow models serve -m models:/shapes/1` serves too, and, downloaded, `tensign serve`.
"""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
from fastai.vision import all as fastai
from torch import nn

import tensign
from tensign.classification import named

SHAPES = ("disc", "square")


def drawn(shape: str, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """uint8 [32,32,3]: a light shape, anywhere on something darker."""
    y, x = np.mgrid[:32, :32] - random.integers(10, 22, (2, 1, 1))
    inside = np.hypot(x, y) < 9 if shape == "disc" else np.maximum(abs(x), abs(y)) < 8
    picture = np.where(inside[..., None], random.integers(150, 256, 3), random.integers(0, 110, 3))
    return np.asarray((picture + random.integers(-20, 20, picture.shape)).clip(0, 255), np.uint8)


def trained(pictures: int = 160, epochs: int = 6) -> Any:
    """A Learner that tells the shapes apart."""
    fastai.set_seed(0)
    random = np.random.default_rng(0)
    block = fastai.DataBlock(
        (fastai.ImageBlock, fastai.CategoryBlock),
        get_x=fastai.ItemGetter(0),
        get_y=fastai.ItemGetter(1),
        splitter=fastai.RandomSplitter(seed=0),
        batch_tfms=fastai.Normalize.from_stats([0.5] * 3, [0.25] * 3),
    )
    items = [(drawn(shape, random), shape) for _ in range(pictures // 2) for shape in SHAPES]
    first = [nn.Conv2d(3, 16, 5, stride=2), nn.BatchNorm2d(16), nn.ReLU()]
    second = [nn.Conv2d(16, 16, 5, stride=2), nn.BatchNorm2d(16), nn.ReLU()]
    network = nn.Sequential(*first, *second, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, len(SHAPES)))
    loaders = block.dataloaders(items, bs=16, num_workers=0)
    learner = fastai.Learner(loaders, network, loss_func=fastai.CrossEntropyLossFlat(), metrics=fastai.accuracy)
    with learner.no_bar():
        learner.fit_one_cycle(epochs, 2e-2)
    return learner


def main() -> None:
    with mlflow.start_run():
        info = tensign.mlflow.log_learner(trained(), "shapes", registered_model_name="shapes")
    registered = f"models:/shapes/{info.registered_model_version}"
    model = tensign.Model.load(mlflow.artifacts.download_artifacts(registered))
    print(f"{registered}: {model.signature}")
    random = np.random.default_rng(1)
    scores = model.infer(np.stack([drawn(shape, random) for shape in SHAPES]))["output-0"]
    for shape, (best,) in zip(SHAPES, named(scores, 1, labels=model.plan.labels), strict=True):
        print(f"a {shape} is taken for a {best.label}, with probability {best.score:.2f}")
    model.close()


if __name__ == "__main__":
    main()
