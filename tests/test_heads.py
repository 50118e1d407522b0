"""Heads: what `get_preds` makes of logits, and what a client is told of it. Every Learner is real, none is trained."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from conftest import CPU
from tensign.client import Client
from tensign.errors import UnsupportedModel, UntrustedModel
from tensign.model import Model
from tensign.proof.samples import photographs
from tensign.signature import Signature
from tensign.testing import serving

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    fastai = pytest.importorskip("fastai.vision.all")
    import torch

    from tensign_converters.learners.exported import read_export
    from tensign_converters.learners.heads import head
    from tensign_converters.learners.learned import check, learn
    from tensign_converters.learners.learner import record
    from tensign_converters.learners.recording import Loss, Recording
    from tensign_converters.package import write_model

HEIGHT, WIDTH = 60, 72


@dataclass(frozen=True)
class Case:
    """A Learner's target block, loss and network, and what must come of it."""

    block: Callable[[], Any]
    target: Callable[[Path], Any]
    loss: Callable[[], Any]
    task: str
    activation: str
    outputs: int
    threshold: float | None = None
    segments: bool = False


NAMES = ("bird", "cat", "dog")


def single() -> Any:
    return fastai.CategoryBlock(list(NAMES))


def one(file: Path) -> str:
    return NAMES[len(file.name) % 3]


def several(file: Path) -> Any:
    return [name for number, name in enumerate(NAMES) if (len(file.name) >> number) % 2]


def mask(file: Path) -> Any:
    return np.zeros((HEIGHT, WIDTH), np.uint8)


CASES = {
    "single label": Case(single, one, fastai.CrossEntropyLossFlat, "classification", "softmax", 3),
    "label smoothing": Case(single, one, fastai.LabelSmoothingCrossEntropy, "classification", "softmax", 3),
    "label smoothing flat": Case(single, one, fastai.LabelSmoothingCrossEntropyFlat, "classification", "softmax", 3),
    "focal": Case(single, one, lambda: fastai.FocalLossFlat(gamma=3.0), "classification", "softmax", 3),
    "focal without activation": Case(single, one, fastai.FocalLoss, "classification", "none", 3),
    "torch's own loss": Case(single, one, torch.nn.CrossEntropyLoss, "classification", "none", 3),
    "multi-label": Case(
        lambda: fastai.MultiCategoryBlock(vocab=list(NAMES)),
        several,
        lambda: fastai.BCEWithLogitsLossFlat(thresh=0.3),
        "multilabel",
        "sigmoid",
        3,
        0.3,
    ),
    "regression": Case(lambda: fastai.RegressionBlock(2), lambda _: (0.5, 2.0), fastai.MSELossFlat, "regression", "none", 2),
    "regression L1": Case(fastai.RegressionBlock, lambda _: 0.5, fastai.L1LossFlat, "regression", "none", 1),
    "points": Case(
        lambda: fastai.PointBlock, lambda _: torch.tensor([[3.0, 4.0]]), fastai.MSELossFlat, "regression", "none", 2
    ),
    "segmentation": Case(
        lambda: fastai.MaskBlock(list(NAMES)),
        mask,
        lambda: fastai.CrossEntropyLossFlat(axis=1),
        "segmentation",
        "softmax",
        3,
        segments=True,
    ),
    "segmentation by dice": Case(
        lambda: fastai.MaskBlock(list(NAMES)), mask, fastai.DiceLoss, "segmentation", "softmax", 3, segments=True
    ),
}


def network(case: Case) -> torch.nn.Module:
    """A small one; of pixels it judges each by its surroundings, else the whole picture."""
    torch.manual_seed(1)
    body = [fastai.ConvLayer(3, 8, stride=1 if case.segments else 2), fastai.ResBlock(1, 8, 8)]
    if case.segments:
        return torch.nn.Sequential(*body, torch.nn.Conv2d(8, case.outputs, 1))
    return torch.nn.Sequential(*body, torch.nn.AdaptiveAvgPool2d(2), fastai.Flatten(), torch.nn.Linear(32, case.outputs))


def learner(case: Case) -> Any:
    items = photographs()
    block = fastai.DataBlock(
        (fastai.ImageBlock, case.block()),
        get_y=case.target,
        splitter=fastai.IndexSplitter([0]),
        item_tfms=fastai.Resize((HEIGHT, WIDTH)),
        batch_tfms=[*fastai.aug_transforms(), fastai.Normalize.from_stats(*fastai.imagenet_stats, cuda=False)],
    )
    loaders = block.dataloaders(items, bs=2, num_workers=0, device="cpu")
    return fastai.Learner(loaders, network(case), loss_func=case.loss())


def document(shape: list[int], *channels: int) -> dict[str, Any]:
    """An MLmodel's signature for pictures of 50x90 pixels."""

    def part(dtype: str, shape: list[int]) -> list[dict[str, Any]]:
        return [{"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}]

    return {"inputs": part("uint8", [-1, 50, 90, *channels]), "outputs": part("float32", shape)}


@pytest.mark.parametrize("name", CASES)
def test_a_head_answers_as_get_preds(name: str, tmp_path: Path) -> None:
    case, files = CASES[name], photographs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fastai's and the exporter's own
        learn_ = learner(case)
        learned = learn(record(learn_, {}), (50, 90))
        shape = [-1, case.outputs, HEIGHT, WIDTH] if case.segments else [-1, case.outputs]
        write_model(learned.subject(Signature.parse(document(shape, 3))), tmp_path, origin={}, crops=6)
        with learn_.no_bar():
            expected = np.asarray(learn_.get_preds(dl=learn_.dls.test_dl(files, num_workers=0))[0])
    model = Model.load(tmp_path, CPU)
    plan = model.plan
    assert (plan.task, plan.activation, plan.threshold) == (case.task, case.activation, case.threshold)
    assert plan.labels == (NAMES if case.task != "regression" else ())
    with serving(model) as address, Client(address) as client:
        assert client.metadata().task == case.task
        answers = [answer.checked() for answer in client.stream(files)]
    for answer, wanted in zip(answers, expected, strict=True):
        (output,) = answer.outputs.values()
        np.testing.assert_allclose(output, wanted, rtol=0, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 1e-3  # the pictures differ to it
    _told_as_it_should(case, answers[0], expected[0])


def _told_as_it_should(case: Case, answer: Any, expected: Any) -> None:
    if case.task == "segmentation":
        shares = np.bincount(expected.argmax(0).ravel(), minlength=3) / expected[0].size
        assert dict(zip(answer.labels, answer.scores, strict=True)) == pytest.approx(
            {NAMES[index]: share for index, share in enumerate(shares) if share}
        )
        assert answer.scores == sorted(answer.scores, reverse=True)
    elif case.task == "regression":
        assert answer.labels == [str(index) for index in range(case.outputs)]
        assert answer.scores == pytest.approx(expected.ravel().tolist(), abs=1e-5)
    elif case.task == "multilabel":
        assert set(answer.labels) == {NAMES[index] for index in np.flatnonzero(expected > case.threshold)}
    else:
        assert answer.label == NAMES[int(expected.argmax())]


@pytest.mark.parametrize("name", CASES)
def test_a_head_read_as_data_is_the_live_one(name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        live = learner(CASES[name])
        live.export(tmp_path / "model.fastai")
        there, read = (learn(one, (50, 90)) for one in (record(live, {}), read_export(tmp_path / "model.fastai", {})))
        assert (read.head, read.preprocessing.spec()) == (there.head, there.preprocessing.spec())
        for mine, its in zip(read.answers(photographs()[:2]), there.answers(photographs()[:2]), strict=True):
            np.testing.assert_allclose(mine, its, rtol=0, atol=1e-5)


def test_a_grey_learner_takes_files_arrays_and_pillow_images(tmp_path: Path) -> None:
    files, size = photographs(), (50, 90)
    torch.manual_seed(1)
    body = (fastai.ConvLayer(1, 8), fastai.AdaptiveAvgPool(2), fastai.Flatten(), torch.nn.Linear(32, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaders = fastai.DataBlock(
            (fastai.ImageBlock(fastai.PILImageBW), fastai.CategoryBlock(list(NAMES))),
            get_y=one,
            splitter=fastai.IndexSplitter([0]),
            item_tfms=fastai.Resize((HEIGHT, WIDTH), method="pad"),
        ).dataloaders(files, bs=2, num_workers=0, device="cpu")
        grey = fastai.Learner(loaders, torch.nn.Sequential(*body))
        learned = learn(record(grey, {}), size)
        source = document([-1, 3], 3)
        with pytest.raises(UnsupportedModel, match=r"a Learner of PILImageBW takes uint8 \[-1,H,W\], the signature is"):
            check(learned, Signature.parse(source))
        source = document([-1, 3])
        check(learned, Signature.parse(source))
        write_model(learned.subject(Signature.parse(source)), tmp_path, origin={}, crops=6)
        with grey.no_bar():
            expected = np.asarray(grey.get_preds(dl=loaders.test_dl(files, num_workers=0))[0])
    opened = PIL.Image.open(files[0])
    with serving(Model.load(tmp_path, CPU)) as address, Client(address) as client:
        answers = [answer.checked() for answer in client.stream([*files, opened, np.asarray(opened.convert("L"))])]
    got = np.stack([next(iter(answer.outputs.values())) for answer in answers])
    np.testing.assert_allclose(got, [*expected, expected[0], expected[0]], rtol=0, atol=1e-5)


def recording(loss: Loss, vocab: tuple[Any, ...] = ()) -> Recording:
    return Recording(torch.nn.Identity(), (), (), ("PILImage", "Category"), vocab, loss, 1, {}, False, None)


@pytest.mark.parametrize(
    ("loss", "shape", "wanted"),
    [
        (Loss("fastai.losses.CrossEntropyLossFlat"), (2, 3), ("classification", "softmax", -1)),
        (Loss("fastai.layers.CrossEntropyLossFlat", {"axis": 1}), (2, 3, 4, 4), ("segmentation", "softmax", 1)),
        (Loss("fastai.losses.LabelSmoothingCrossEntropyFlat", {"axis": 1}), (2, 3, 4, 4), ("segmentation", "softmax", -1)),
        (Loss("fastai.losses.DiceLoss"), (2, 3, 4, 4), ("segmentation", "softmax", 1)),
        (Loss("mine.Loss", {}, torch.sigmoid), (2, 3), ("multilabel", "sigmoid", -1)),
        (Loss("mine.Loss", {}, lambda x: torch.softmax(x, 1)), (2, 3, 4, 4), ("segmentation", "softmax", 1)),
        (Loss("mine.Loss", {}, lambda x: torch.softmax(x, -1)), (2, 3, 4, 4), ("segmentation", "softmax", -1)),
        (Loss("mine.Loss", {}, lambda x: x), (2, 3, 4, 4), ("regression", "none", -1)),
        (Loss("torch.nn.functional.mse_loss"), (2, 1), ("regression", "none", -1)),
    ],
)
def test_what_a_loss_makes_of_logits(loss: Loss, shape: tuple[int, ...], wanted: tuple[str, str, int]) -> None:
    found = head(recording(loss), shape)
    assert (found.task, found.activation, found.axis) == wanted


@pytest.mark.parametrize(
    ("loss", "vocab", "shape", "text"),
    [
        (Loss("mine.Loss", {}, torch.exp), (), (2, 3), "the loss Loss has an activation that is not softmax, sigmoid or none"),
        (Loss("mine.Loss", {}, lambda x: x.sum()), (), (2, 3), "has an activation that is not softmax, sigmoid or none"),
        (Loss("fastai.losses.CrossEntropyLossFlat", {"axis": 5}), (), (2, 3), "axis 5 is none of the network's 2"),
        (Loss("fastai.losses.BCEWithLogitsLossFlat", {"thresh": "0.5"}), (), (2, 3), "thresh 0.5 is no number from 0 to 1"),
        (Loss("fastai.losses.CrossEntropyLossFlat"), ("a", "b"), (2, 3), "knows 2 labels, its network gives 3 values"),
        (Loss("fastai.losses.CrossEntropyLossFlat"), (("a",), ("b",)), (2, 3), "2 targets with names of their own"),
        (Loss("fastai.losses.CrossEntropyLossFlat"), (), (2, 3, 4), r"the network gives \[2, 3, 4\]; wanted"),
    ],
)
def test_a_head_that_cannot_be_followed_is_refused(
    loss: Loss, vocab: tuple[Any, ...], shape: tuple[int, ...], text: str
) -> None:
    with pytest.raises(UnsupportedModel, match=text):
        head(recording(loss, vocab), shape)


def test_a_loss_whose_code_was_not_run_is_for_who_trusts_it() -> None:
    with pytest.raises(UntrustedModel, match=r"the loss mine\.Loss is none that is known"):
        head(recording(Loss("mine.Loss")), (2, 3))
