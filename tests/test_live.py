"""A live Learner is converted by way of a twin: it stays as it was, and whatever stands round its network does not matter."""

from __future__ import annotations

import random
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from small_learner import LABELS, SIZE, fastai, noise, predictions, small_learner
from tensign.errors import InvalidInput, ParityFailed, UnsupportedModel
from tensign.notation import parse_specs
from tensign.proof.samples import samples
from tensign.signature import Signature

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from torch import nn

    from tensign_converters import live
    from tensign_converters.pictures.activation import activated
    from tensign_converters.prove import prove
    from tensign_converters.undisturbed import undisturbed


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fastai's own
        yield


class Watching(fastai.Callback):  # type: ignore[misc]
    """Counts batches."""

    batches = 0

    def after_batch(self) -> None:
        self.batches += 1


class Darkening(fastai.Callback):  # type: ignore[misc]
    """Takes light out of every batch, and counts them."""

    batches = 0

    def before_batch(self) -> None:
        self.batches += 1
        self.learn.xb = (self.xb[0] * 0.25 - 2,)


def everything(learner: Any) -> list[Any]:
    """Whatever hangs on a Learner, and where there is something inside that may change, that too."""
    stages = [
        getattr(loader, stage) for loader in learner.dls.loaders for stage in ("after_item", "before_batch", "after_batch")
    ]
    things = [
        learner,
        learner.dls,
        *learner.dls.loaders,
        *learner.cbs,
        *stages,
        *(each for stage in stages for each in stage.fs),
    ]
    held = [value for thing in things for _, value in sorted(vars(thing).items())]
    modules = [fact for each in learner.model.modules() for fact in (each, each.training, len(each._forward_hooks))]
    tensors = [*learner.model.parameters(), *learner.model.buffers(), *(each.grad for each in learner.model.parameters())]
    return [*held, *learner.cbs, *modules, *tensors, *map(str, tensors), *map(str, held)]


def drawn() -> list[str]:
    """The next of all random numbers."""
    return [str(random.random()), str(np.random.random()), str(torch.rand(1))]


@pytest.mark.parametrize("epochs", [0, 1])
def test_the_learner_stays_as_it_was(epochs: int) -> None:
    """New, or in the middle of its training: with gradients, an optimizer, recorded losses; with callbacks and a hook."""
    learner = small_learner(metrics=fastai.accuracy, cbs=[Watching(), Darkening(), fastai.MixUp()])
    with learner.no_bar(), learner.no_logging():
        learner.fit(epochs)
    if not epochs:
        del learner.dls.valid._types  # which is found out by a pass over data, as of a loader that somebody put together
    learner.model.train()
    learner.model[0].register_forward_hook(lambda module, given, answer: None)
    before, numbers = everything(learner), []
    for act in (lambda: None, lambda: live.learned(learner, None).answers(list(noise(3)))):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        with undisturbed():
            act()
        numbers.append(drawn())
    after = everything(learner)
    pairs = list(zip(before, after, strict=True))
    assert not [
        pair for pair in pairs if pair[0] is not pair[1] and not (isinstance(pair[0], str | int) and pair[0] == pair[1])
    ]
    assert numbers[0] == numbers[1]


def in_half(learner: Any, _: Path) -> Any:
    learner.model.half()
    return learner


def parallel(learner: Any, _: Path) -> Any:
    learner.model = nn.DataParallel(learner.model)
    return learner


def compiled(learner: Any, _: Path) -> Any:
    learner.model = torch.compile(learner.model)
    return learner


def loaded(learner: Any, folder: Path) -> Any:
    learner.path = folder
    learner.export("learner.pkl")
    return fastai.load_learner(folder / "learner.pkl")


AROUND: dict[str, Callable[[Any, Path], Any]] = {
    "nothing": lambda learner, _: learner,
    "half precision": in_half,
    "several devices": parallel,
    "compiled": compiled,
    "mixed precision": lambda learner, _: learner.to_fp16(),
    "MixUp": lambda learner, _: learner.add_cb(fastai.MixUp()),
    "from a file": loaded,
    "frozen": lambda learner, _: learner.model.requires_grad_(False) and learner,
}


@pytest.mark.parametrize("around", AROUND)
def test_the_twin_predicts_as_the_learner(around: str, tmp_path: Path) -> None:
    pictures = noise(5)
    expected = predictions(small_learner(), pictures)
    found = live.learned(AROUND[around](small_learner(), tmp_path), None)
    assert found.described() == {"inputs": "uint8[-1,32,32,3]", "outputs": "float32[-1,2]"}
    assert found.head.labels == LABELS and np.ptp(expected[:, 0]) > 0.01
    tolerance = 1e-3 if around == "half precision" else 1e-6
    predicted = activated(found.head, torch.from_numpy(found.answers(list(pictures)).logits))
    assert np.abs(predicted.numpy() - expected).max() < tolerance


def test_callbacks_that_change_a_batch_are_held_against_the_conversion(tmp_path: Path) -> None:
    subject = live.learner_subject(small_learner(cbs=[Watching(), Darkening()]), None)
    subject.write(tmp_path / "model.onnx")
    rows = samples(subject.signature, subject.preprocess, crops=0)
    with pytest.raises(
        ParityFailed, match=r"held against a copy of the live Learner, .*, with its callbacks Watching, Darkening$"
    ):
        prove(subject, tmp_path / "model.onnx", rows)


@pytest.mark.parametrize(("channels", "pictures"), [(3, "uint8[-1,32,32,3]"), (1, "uint8[-1,32,32]")])
def test_where_nothing_resizes_the_data_tells_the_size(channels: int, pictures: str) -> None:
    found = live.learned(small_learner(resize=False, channels=channels), None)
    assert not found.preprocessing.item_steps
    assert found.described()["inputs"] == pictures


def test_where_there_is_no_data_either_only_the_signature_tells_the_size(tmp_path: Path) -> None:
    learner = loaded(small_learner(resize=False), tmp_path)
    with pytest.raises(UnsupportedModel, match=r"its data does not tell the size of a picture .*: give signature="):
        live.learned(learner, None)
    assert live.learned(learner, (SIZE, 48)).preprocessing.size == (SIZE, 48)


class Locked(nn.Module):
    """Holds what nobody can copy."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def of(**parts: Any) -> Any:
    """A Learner of which some parts are others."""
    learner = small_learner()
    vars(learner).update(parts)
    return learner


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no Learner": (lambda: nn.Linear(1, 1), InvalidInput, "wanted a fastai Learner, got torch.nn.modules.linear.Linear"),
    "no module": (lambda: of(model=len), InvalidInput, "the Learner's network: wanted a torch module, got builtins.builtin"),
    "a lock": (lambda: of(model=Locked()), UnsupportedModel, "the Learner's network cannot be copied: TypeError"),
    "torch's loaders": (
        lambda: of(dls=fastai.DataLoaders(*[torch.utils.data.DataLoader(torch.utils.data.TensorDataset())] * 2)),
        UnsupportedModel,
        "the Learner's data loader cannot be copied: AttributeError",
    ),
    "two inputs": (lambda: two_inputs(), UnsupportedModel, "the Learner takes 2 inputs"),
    "a transform": (lambda: rotated(), UnsupportedModel, "batch transform .*rotated.* has no counterpart"),
}


def rotated() -> Any:
    learner = small_learner()
    learner.dls.add_tfms([fastai.Transform(lambda pictures: pictures.rot90())], "after_batch")
    return learner


def two_inputs() -> Any:
    learner = small_learner()
    for loader in learner.dls.loaders:
        loader.dataset.n_inp = 2
    return learner


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_converted_is_refused_by_its_name(case: str) -> None:
    make, kind, said = REFUSED[case]
    with pytest.raises(kind, match=said):
        live.learned(make(), None)


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        ("uint8[-1,32,32,3]", "float32[-1,3]", "promises 3 classes, the Learner knows 2 labels"),
        ("uint8[-1,32,32]", "float32[-1,2]", r"a Learner of PILImage takes uint8 \[-1,H,W,3\]"),
        ("float32[-1,3,32,32]", "float32[-1,2]", r"wanted a signature of one input uint8 \[-1,H,W,3\]"),
    ],
)
def test_a_signature_that_the_learner_contradicts_is_refused(inputs: str, outputs: str, said: str) -> None:
    signature = Signature.parse({"inputs": parse_specs(inputs), "outputs": parse_specs(outputs)})
    with pytest.raises(UnsupportedModel, match=said):
        live.learner_subject(small_learner(), signature)
