"""What callbacks change of a live Learner's predictions is seen: its twin takes part in it, or the Learner is refused."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from small_learner import LABELS, fastai, small_learner
from tensign.errors import ParityFailed, UnsupportedModel
from tensign.proof.samples import samples

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from torch import nn

    from tensign_converters import live
    from tensign_converters.prove import prove


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fastai's own
        yield


class Averaging(fastai.Callback):  # type: ignore[misc]
    """Puts other weights into the network while it is validated."""

    def before_validate(self) -> None:
        self.others = {name: torch.zeros_like(each) for name, each in self.model.state_dict().items()}
        self.exchange()

    def after_validate(self) -> None:
        self.exchange()

    def exchange(self) -> None:
        own = {name: each.clone() for name, each in self.model.state_dict().items()}
        self.model.load_state_dict(self.others)
        self.others = own


class Beginning(fastai.Callback):  # type: ignore[misc]
    """Sets weights that it holds, for good, when predicting begins."""

    run_valid = False

    def before_fit(self) -> None:
        with torch.no_grad():
            self.weights.fill_(0.5)


class Late(fastai.Callback):  # type: ignore[misc]
    """Changes what has been gathered."""

    def after_validate(self) -> None:
        self.learn.gather_preds.preds = [each + 1 for each in self.learn.gather_preds.preds]


class Uncopied(fastai.Callback):  # type: ignore[misc]
    """Holds what nobody can copy."""

    def __init__(self) -> None:
        self.held = threading.Lock()

    def after_pred(self) -> None:
        self.learn.pred = self.pred + 1


class Restless(nn.Linear):
    """Never says the same twice."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.rand(len(x), len(LABELS))


def test_weights_that_a_callback_exchanges_are_held_against_the_conversion(tmp_path: Path) -> None:
    learner = small_learner(cbs=[Averaging(), fastai.MixUp()])
    weights = [each.clone() for each in learner.model.state_dict().values()]
    subject = live.learner_subject(learner, None)
    subject.write(tmp_path / "model.onnx")
    rows = samples(subject.signature, subject.preprocess, crops=0)
    with pytest.raises(ParityFailed, match=r", with its callbacks Averaging$"):
        prove(subject, tmp_path / "model.onnx", rows)
    assert all(map(torch.equal, weights, learner.model.state_dict().values()))
    assert "others" not in vars(learner.averaging)


def test_what_a_callback_holds_of_the_learner_is_the_twins_own() -> None:
    learner = small_learner(cbs=[Beginning()])
    weights = learner.model[-1].weight
    learner.beginning.weights, kept = weights, weights.detach().clone()
    found = live.learned(learner, None)
    assert found.against.endswith("with its callbacks Beginning") and not found.unchecked
    assert torch.equal(weights, kept)
    assert bool((found.network.get_parameter("6.weight") == 0.5).all())


def test_of_a_learner_that_cannot_predict_it_is_told() -> None:
    learner = small_learner()
    learner.model.half()
    (told,) = live.learned(learner, None).unchecked
    assert told.startswith("the Learner's own get_preds, which failed on pictures: RuntimeError: Input type")


def restless() -> Any:
    learner = small_learner()
    learner.model = Restless(1, 1)
    return learner


@pytest.mark.parametrize(
    ("learner", "said"),
    [
        (lambda: small_learner(cbs=[Late()]), "get_preds and those of a copy of the live Learner, .* are .* apart"),
        (restless, "get_preds and those of a copy of the live Learner, .* are .* apart"),
        (lambda: small_learner(cbs=[Uncopied()]), "the Learner's callback Uncopied cannot be copied: TypeError"),
        (
            lambda: small_learner(cbs=[fastai.Callback(before_batch=lambda self: 1 / 0)]),
            "a copy of the Learner on the CPU cannot predict: ZeroDivisionError",
        ),
    ],
    ids=["late", "restless", "uncopied", "failing"],
)
def test_what_a_twin_cannot_do_alike_is_refused(learner: Any, said: str) -> None:
    with pytest.raises(UnsupportedModel, match=said):
        live.learned(learner(), None)
