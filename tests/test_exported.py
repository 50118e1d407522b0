"""Exports of real Learners, read as data: the same network, transforms and labels as those that fastai loads."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch

from tensign.errors import UnsupportedModel, UntrustedModel
from tensign_converters.learners.exported import read_export
from tensign_converters.learners.learner import load
from tensign_converters.pickles import allowed
from tensign_converters.pickles.rebuild import read_module

ARCHITECTURES = (
    "resnet34",
    "resnet50",
    "squeezenet1_1",
    "densenet121",
    "mobilenet_v3_small",
    "xse_resnext18",
    "timm convnext_atto",
    "timm efficientnet_b0",
    "unet",
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(8):
        noise = np.random.default_rng(index).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        PIL.Image.fromarray(noise).save(folder / f"{'cat' if index % 2 else 'dog'}_{index}.png")
    return folder


def learner(architecture: str, pictures: Path) -> Any:
    """An untrained Learner, its batch norms calibrated: else random weights give the same for every picture."""
    import fastai.vision.all as vision

    files = sorted(pictures.iterdir())
    batch = [*vision.aug_transforms(), vision.Normalize.from_stats(*vision.imagenet_stats)]
    shared = {"item_tfms": vision.Resize(64), "batch_tfms": batch}
    if architecture == "unet":
        blocks = (vision.ImageBlock, vision.MaskBlock(codes=["sky", "sea"]))
        block = vision.DataBlock(blocks, get_items=_everything, get_y=_no_mask, **shared)
        loaders = block.dataloaders(pictures, bs=2, num_workers=0)
        made = vision.unet_learner(loaders, vision.resnet18, pretrained=False)
    else:
        split = {"valid_pct": 0.5, "seed": 1, "bs": 2, "num_workers": 0}
        loaders = vision.ImageDataLoaders.from_name_func(pictures, files, _label, **shared, **split)
        if architecture.startswith("xse"):
            made = vision.Learner(
                loaders, getattr(vision, architecture)(n_out=2), loss_func=vision.LabelSmoothingCrossEntropyFlat()
            )
        else:
            name = architecture.removeprefix("timm ")
            kind = name if "timm" in architecture else getattr(vision, name)
            made = vision.vision_learner(loaders, kind, pretrained=False)
    with torch.no_grad():
        for module in made.model.train().modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.momentum = None  # the average of all that it sees
                module.reset_running_stats()
        for seed in range(3):
            made.model(inputs(seed).repeat(2, 1, 1, 1))
    return made


def inputs(seed: int) -> torch.Tensor:
    """[3,3,64,64], of another brightness and another coarseness each."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.nn.functional.interpolate(torch.rand(3, 3, 4, 4, generator=generator), (64, 64))
    fine = torch.rand(3, 3, 64, 64, generator=generator)
    return coarse * torch.tensor([0.3, 1.0, 3.0]).reshape(3, 1, 1, 1) + fine * torch.tensor([1.0, 0.1, 0.5]).reshape(3, 1, 1, 1)


def _label(file: Path) -> str:
    return Path(file).name.partition("_")[0]


def _everything(folder: Path) -> list[Path]:
    return sorted(Path(folder).iterdir())


def _no_mask(file: Path) -> Any:
    return np.zeros((48, 64), np.uint8)


@pytest.fixture(scope="module")
def exports(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("exports")

    def export(architecture: str) -> Path:
        file = folder / f"{architecture}.fastai"
        if not file.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # fastai's own
                learner(architecture, pictures).export(file)
        return file

    yield export


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_read_as_data_is_what_fastai_loads(architecture: str, exports: Any) -> None:
    file = exports(architecture)
    read, live = read_export(file, {}), load(file, "2.8")
    x = inputs(9)
    with torch.no_grad():
        ours, theirs = read.network(x), live.network(x)
    assert torch.equal(ours, theirs.as_subclass(torch.Tensor))
    assert (ours[0] - ours[1]).abs().max() > 1e-3 * ours.abs().max()  # the pictures matter
    assert read.vocab == live.vocab and read.types == live.types and read.inputs == live.inputs
    assert read.loss.path == live.loss.path
    for mine, its in (
        (read.item_transforms, live.item_transforms),
        (read.batch_transforms, live.batch_transforms),
    ):
        assert [each.path for each in mine] == [each.path for each in its]
        assert [each.train_only for each in mine] == [each.train_only for each in its]
        for one, other in zip(mine, its, strict=True):
            for name in ("size", "method", "pad_mode", "mode", "align_corners", "div", "mean", "std"):
                np.testing.assert_array_equal(one.attributes.get(name), other.attributes.get(name), f"{one.path}.{name}")


def test_a_module_saved_by_torch_is_read_in_every_container(tmp_path: Path) -> None:
    """A zip, the stream of before 1.6, and one file within another; with tensors that share a storage."""
    made = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 1))
    made[3].bias = made[0].bias
    x = torch.rand(2, 3, 9, 9)
    for name, options in {"zip": {}, "stream": {"_use_new_zipfile_serialization": False}}.items():
        torch.save(made, tmp_path / name, **options)
        read = read_module(tmp_path / name)
        assert torch.equal(read(x), made.eval()(x))
        assert read[3].bias is read[0].bias  # type: ignore[index]
    import pickle

    (tmp_path / "plain").write_bytes(pickle.dumps(made))
    read = read_module(tmp_path / "plain")
    assert torch.equal(read(x), made(x))


def test_what_mlflow_pickled_answers_as_torch_did(fixture_dir: Callable[[str], Path]) -> None:
    folder = fixture_dir("digits-pytorch-mlflow2")
    network = read_module(folder / "data" / "model.pth")
    with np.load(folder / "golden.npz", allow_pickle=False) as golden, torch.no_grad():
        answers = network(torch.from_numpy(golden["inputs"])).numpy()
        assert np.abs(answers - golden["outputs"]).max() <= 1e-6


@pytest.mark.parametrize("kind", allowed.DEFAULTS, ids=lambda kind: str(kind.__name__))
def test_what_older_pickles_lack_is_filled_in(kind: type[torch.nn.Module], tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "_ConvNd": {"of": torch.nn.Conv2d, "args": (3, 3, 3, 1, 1)},
        "_NormBase": {"of": torch.nn.BatchNorm2d, "args": (3,)},
    }
    args = {torch.nn.Upsample: (None, 2), torch.nn.AvgPool2d: (2,), torch.nn.MultiheadAttention: (4, 2)}.get(kind, ())
    chosen = options.get(kind.__name__, {"of": kind, "args": args})
    made = chosen["of"](*chosen["args"]).eval()
    x = torch.rand(2, 3, 4, 4)
    given = (x[0, :, :], x[0, :, :], x[0, :, :]) if kind is torch.nn.MultiheadAttention else (x,)
    wanted = made(*given)
    for name in (
        *allowed.DEFAULTS[kind],
        "_reversed_padding_repeated_twice",
        "_non_persistent_buffers_set",
        "_is_full_backward_hook",
    ):
        made.__dict__.pop(name, None)
    torch.save(made, tmp_path / "old")
    got = read_module(tmp_path / "old")(*given)
    first = (wanted[0], got[0]) if isinstance(wanted, tuple) else (wanted, got)
    assert torch.equal(*first)


class Head(torch.nn.Module):
    """A class of the user's own, which nobody can rebuild from data."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_a_custom_class_is_named_with_its_place(tmp_path: Path) -> None:
    torch.save(torch.nn.Sequential(torch.nn.Identity(), torch.nn.Sequential(Head())), tmp_path / "model")
    with pytest.raises(UntrustedModel, match=r'"1\.0" is of class test_exported\.Head'):
        read_module(tmp_path / "model")


def test_a_file_that_is_not_there_is_missed(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="it is not there"):
        read_export(tmp_path / "model.fastai", {})
