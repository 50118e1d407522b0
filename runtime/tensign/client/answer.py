"""What came of one thing that was sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy.typing as npt

from tensign.classification import Prediction
from tensign.errors import TensignError


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's answer to one picture, or to the rows of one mapping; or the error that stands in its place.

    source: the path that was given, "" where there was none. outputs: {output: [...]}, without the axis of rows for a
    picture, [n,...] for a mapping. predictions: the best classes of a picture, best first; of a multi-label model all that
    hold, of a segmentation the classes by their share of the pixels, of a regression its values in their order; empty where
    the output has no classes.
    """

    source: str = ""
    outputs: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    predictions: tuple[Prediction, ...] = ()
    error: TensignError | None = None

    @classmethod
    def failed(cls, source: str, error: TensignError) -> Self:
        """The answer for a picture that failed; its text names the file in place of the row it was in its request."""
        text = str(error).removeprefix("row 0: ")
        return cls(source, error=type(error)(f"{source}: {text}" if source else text))

    @property
    def labels(self) -> list[str]:
        """The labels of the predictions, best first."""
        return [prediction.label for prediction in self.predictions]

    @property
    def scores(self) -> list[float]:
        """The scores of the predictions, best first: probabilities where the model ends in softmax or sigmoid."""
        return [prediction.score for prediction in self.predictions]

    @property
    def label(self) -> str:
        """The best label, "" where there is none."""
        return self.predictions[0].label if self.predictions else ""

    def checked(self) -> Answer:
        """Itself, unless it stands for an error: that is raised."""
        if self.error is not None:
            raise self.error
        return self
