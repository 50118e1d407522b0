"""Rows to ask a model of columns with: made up from its saved example and from what it knows; and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.errors import UnsupportedModel
from tensign.proof.parity import Answers
from tensign.proof.samples import Sample
from tensign.specs import ColumnSpec, Spec
from tensign.values import is_missing
from tensign_converters.tables.answers import joined, part
from tensign_converters.tables.known import known_values
from tensign_converters.tables.nodes import MISSING, ODD
from tensign_converters.tables.original import Original, Table, single_threaded
from tensign_converters.tables.pools import Pool

ROWS = 400
_ATTEMPTS = 50
_ROUNDS = 3
_REFUSALS = 16  # rows that happen to be refused, kept


@dataclass(frozen=True, slots=True)
class Rows:
    """table: rows that the original answers; answers: its own to these; refused: {kind of ODD: the inputs in which it takes no
    such value}; refusals: rows for each thing that it refuses, the last of them; said: where the rows come from."""

    table: Table
    answers: Answers
    refused: Mapping[str, Sequence[str]]
    refusals: Sequence[Table]
    said: str

    def __len__(self) -> int:
        return _count([self.table])


def listed(table: Table) -> list[Sample]:
    """Row by row, as a proof takes them."""
    return [{name: array[row] for name, array in table.items()} for row in range(_count([table]))]


@single_threaded()
def rows(original: Original, example: Table | None) -> Rows:
    """ROWS of them besides those of the example; the same model gives the same.

    Raises UnsupportedModel where the original answers hardly any that is made up.
    """
    random, specs = np.random.default_rng(0), original.signature.inputs
    pools = {spec.name: _pools(spec, original, example) for spec in specs}
    base = _answered(original, pools, random, example)
    refused: dict[str, list[str]] = {kind: [] for kind in ODD}
    refusals: list[Table] = []
    for spec in specs:
        for kind, value in _odd(spec, pools[spec.name]):
            if _takes(original, changed := _joined([base, {**base, spec.name: _of(value, base[spec.name])}])):
                for pool in pools[spec.name]:
                    pool.odd.append(value)
                continue
            refusals.append(changed)
            if kind and spec.name not in refused[kind]:
                refused[kind].append(spec.name)
    kept: list[Table] = []
    answers: list[Answers] = []
    if example is not None and (found := _answers(original, example)):
        kept, answers = [example], [found]
    said = f"the {_count(kept)} rows of the saved example, " if kept else ""
    needed = _count(kept) + ROWS
    for _ in range(_ROUNDS):
        if _count(kept) < needed:
            taken, others = _apart(original, _drawn(pools, random, ROWS), base)
            kept += [table for table, _ in taken]
            answers += [given for _, given in taken]
            refusals += others[:_REFUSALS]
    if _count(kept) < ROWS // 4:
        raise UnsupportedModel(
            f"the original answers {_count(kept)} of {_ROUNDS * ROWS} rows made up; log it again with input_example="
        )
    return Rows(
        _joined(kept), joined(answers), refused, refusals, f"{said}{ROWS} made up of what the estimator knows, and beyond"
    )


def _pools(spec: Spec, original: Original, example: Table | None) -> list[Pool]:
    """Of a column one, of a tensor one for each place in its rows."""
    seen = example.get(spec.name) if example else None
    inputs: Sequence[Spec] = original.signature.inputs
    if isinstance(spec, ColumnSpec):
        names = [one.name if one.named else index for index, one in enumerate(inputs)]
        known = known_values(original.estimator, names)
        return [Pool.of(spec.dtype, known.get(names[inputs.index(spec)]), seen)]
    width = spec.shape[1]
    known = known_values(original.estimator, range(width))
    return [Pool.of(spec.dtype, known.get(at), None if seen is None else seen[:, at]) for at in range(width)]


def _drawn(pools: Mapping[str, list[Pool]], random: np.random.Generator, count: int) -> Table:
    columns = {name: [pool.drawn(random, count) for pool in several] for name, several in pools.items()}
    return {name: several[0] if len(several) == 1 else np.stack(several, axis=1) for name, several in columns.items()}


def _answered(original: Original, pools: Mapping[str, list[Pool]], random: np.random.Generator, example: Table | None) -> Table:
    """A row that the original answers, nothing of it missing."""
    for one in _ones(example or {}):
        if not any(is_missing(cell) for array in one.values() for cell in array.flat) and _takes(original, one):
            return one
    for _ in range(_ATTEMPTS):
        if _takes(original, drawn := _drawn(pools, random, 1)):
            return drawn
    raise UnsupportedModel(f"the original answers none of {_ATTEMPTS} rows made up; log it again with input_example=")


def _odd(spec: Spec, pools: Sequence[Pool]) -> Iterator[tuple[str, Any]]:
    """What this input may hold by its type, and the model may refuse, with its kind; "" is a category that is unknown."""
    if spec.dtype.kind == "f":
        yield from ((kind, value) for kind in ("IsNaN", "IsInf") for value in ODD[kind][1])
    if isinstance(spec, ColumnSpec):
        if pools[0].unseen is not None:
            yield "", pools[0].unseen
        if spec.dtype == object:  # over HTTP null may come for a column of text that is required
            yield MISSING, None


def _of(value: Any, like: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.full(like.shape, value, like.dtype)


def _joined(tables: Sequence[Table]) -> Table:
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def _ones(table: Table) -> list[Table]:
    """Row by row."""
    return [{name: array[row : row + 1] for name, array in table.items()} for row in range(_count([table]) if table else 0)]


def _takes(original: Original, table: Table) -> bool:
    return _answers(original, table) is not None


def _answers(original: Original, table: Table) -> Answers | None:
    try:
        return original.answered(table)
    except Exception:  # whatever an estimator raises
        return None


def _count(tables: Sequence[Table]) -> int:
    return sum(len(next(iter(table.values()))) for table in tables)


def _apart(original: Original, table: Table, base: Table) -> tuple[list[tuple[Table, Answers]], list[Table]]:
    """The rows that the original answers, with its answers, and those that it refuses, these behind one that it answers.

    So they are asked: of a column in which all is missing pandas makes another than of one in which something is.
    """
    if whole := _answers(original, table):
        return [(table, whole)], []
    taken, refused = [], []
    for one in _ones(table):
        pair = _joined([base, one])
        if both := _answers(original, pair):
            taken.append((one, part(both, slice(1, None))))
        else:
            refused.append(pair)
    return taken, refused
