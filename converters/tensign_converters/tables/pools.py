"""Values that a column may be asked with, by its type, by an example's and by what the estimator knows of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.values import is_missing
from tensign_converters.tables.known import CATEGORIES, WORDS

UNSEEN = "Ünseen före Ж 7"
_MARKS = (" ", " ", " ", ", ", ". ", "-", "\n")


@dataclass(slots=True)
class Pool:
    """dtype: of the column; kind: what the estimator says that its values are, "" where it says nothing; odd: values of
    which a few are to be among those drawn."""

    dtype: np.dtype[Any]
    kind: str
    values: list[Any]
    odd: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, dtype: np.dtype[Any], known: tuple[str, list[Any]] | None, seen: npt.NDArray[Any] | None) -> Pool:
        """known: what the estimator tells; seen: the example's values."""
        kind, values = known or ("", [])
        values = [value for value in values if isinstance(value, str) == (dtype.kind == "O")]
        examples = [] if seen is None else [value for value in seen.tolist() if not is_missing(value)]
        return cls(dtype, kind, [*dict.fromkeys([*examples, *values])])

    @property
    def unseen(self) -> Any:
        """A value that is none of these, of a column of categories."""
        if self.dtype == object:
            return UNSEEN
        return max(self.values, default=0) + 1 if self.kind == CATEGORIES and self.dtype != bool else None

    def drawn(self, random: np.random.Generator, rows: int) -> npt.NDArray[Any]:
        """[rows]"""
        if self.dtype == object:
            column = self._texts(random, rows)
        elif self.dtype == bool:
            column = random.integers(0, 2, rows).astype(bool)
        else:
            column = self._numbers(random, rows)
        for value in self.odd:
            column[random.random(rows) < 0.05] = value
        return column

    def _texts(self, random: np.random.Generator, rows: int) -> npt.NDArray[Any]:
        found = np.empty(rows, object)
        for row in range(rows):
            if self.kind != WORDS:
                found[row] = self.values[random.integers(len(self.values))] if self.values else ""
                continue
            words = [self.values[at] for at in random.integers(len(self.values), size=random.integers(1, 12))]
            cased = [word.capitalize() if random.random() < 0.3 else word for word in words]
            found[row] = "".join(word + _MARKS[random.integers(len(_MARKS))] for word in cased)
        return found

    def _numbers(self, random: np.random.Generator, rows: int) -> npt.NDArray[Any]:
        """The values themselves, between them and beyond; of categories no others; without any, of all magnitudes."""
        if not self.values:
            column = random.choice([-1.0, 1.0], rows) * 10 ** random.uniform(-2, 4, rows)
        else:
            values = np.array(self.values, float)
            column = random.choice(values, rows)
            if self.kind != CATEGORIES:
                low, high = values.min(), values.max()
                span = high - low or max(abs(high), 1.0)
                way = random.random(rows)
                column = np.where(way < 0.5, random.uniform(low - span / 4, high + span / 4, rows), column)
                column = np.where(way > 0.8, column + random.normal(0, span / 20, rows), column)
        if self.dtype.kind == "f":
            return column.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        return np.clip(np.round(column), max(limits.min, -(2.0**53)), min(limits.max, 2.0**53)).astype(self.dtype)
