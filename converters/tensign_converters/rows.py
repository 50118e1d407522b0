"""Rows to ask a model of columns with: made up from its saved example and from what it knows; and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.errors import UnsupportedModel
from tensign.specs import ColumnSpec, Spec
from tensign_converters.known import known_values
from tensign_converters.nodes import ODD_NUMBERS
from tensign_converters.original import Original, Table, single_threaded
from tensign_converters.pools import Pool

ROWS = 400
_ATTEMPTS = 50
_ROUNDS = 3
_REFUSALS = 16  # rows that happen to be refused, kept


@dataclass(frozen=True, slots=True)
class Rows:
    """table: rows that the original answers; refused: {"IsNaN" or "IsInf": the inputs in which it takes no such number};
    refusals: a row for each thing that it refuses; said: where the rows come from."""

    table: Table
    refused: Mapping[str, Sequence[str]]
    refusals: Sequence[Table]
    said: str


@single_threaded()
def rows(original: Original, example: Table | None) -> Rows:
    """ROWS of them besides those of the example; the same model gives the same.

    Raises UnsupportedModel where the original answers hardly any that is made up.
    """
    random, specs = np.random.default_rng(0), original.signature.inputs
    pools = {spec.name: _pools(spec, original, example) for spec in specs}
    base = _answered(original, pools, random, example)
    refused: dict[str, list[str]] = {kind: [] for kind in ODD_NUMBERS}
    refusals: list[Table] = []
    for spec in specs:
        for kind, value in _odd(spec, pools[spec.name]):
            if _takes(original, changed := {**base, spec.name: _with(base[spec.name], value)}):
                for pool in pools[spec.name]:
                    pool.odd.append(value)
                continue
            refusals.append(changed)
            if kind and spec.name not in refused[kind]:
                refused[kind].append(spec.name)
    kept = [] if example is None else [example] if _takes(original, example) else []
    said = f"the {_count(kept)} rows of the saved example, " if kept else ""
    needed = _count(kept) + ROWS
    for _ in range(_ROUNDS):
        if _count(kept) < needed:
            taken, others = _apart(original, _drawn(pools, random, ROWS))
            kept += taken
            refusals += others[:_REFUSALS]
    if _count(kept) < ROWS // 4:
        raise UnsupportedModel(
            f"the original answers {_count(kept)} of {_ROUNDS * ROWS} rows made up; log it again with input_example="
        )
    table = {spec.name: np.concatenate([one[spec.name] for one in kept]) for spec in specs}
    return Rows(table, refused, refusals, f"{said}{ROWS} made up of what the estimator knows, and beyond")


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
    """A row that the original answers."""
    if example is not None and _takes(original, first := {name: array[:1] for name, array in example.items()}):
        return first
    for _ in range(_ATTEMPTS):
        if _takes(original, drawn := _drawn(pools, random, 1)):
            return drawn
    raise UnsupportedModel(f"the original answers none of {_ATTEMPTS} rows made up; log it again with input_example=")


def _odd(spec: Spec, pools: Sequence[Pool]) -> Iterator[tuple[str, Any]]:
    """What this input may hold by its type, and the model may refuse: where that is a number, with its operator."""
    if spec.dtype.kind == "f":
        yield from ((kind, value) for kind, (_, values) in ODD_NUMBERS.items() for value in values)
    if isinstance(spec, ColumnSpec):
        if pools[0].unseen is not None:
            yield "", pools[0].unseen
        if spec.dtype == object and not spec.required:
            yield "", None


def _with(column: npt.NDArray[Any], value: Any) -> npt.NDArray[Any]:
    changed = column.copy()
    changed[:1] = value
    return changed


def _takes(original: Original, table: Table) -> bool:
    try:
        original.answers(table)
    except Exception:  # whatever an estimator raises
        return False
    return True


def _count(tables: Sequence[Table]) -> int:
    return sum(len(next(iter(table.values()))) for table in tables)


def _apart(original: Original, table: Table) -> tuple[list[Table], list[Table]]:
    """The rows that the original answers, and those that it refuses, one by one."""
    if _takes(original, table):
        return [table], []
    ones = [{name: array[row : row + 1] for name, array in table.items()} for row in range(_count([table]))]
    answered = [_takes(original, one) for one in ones]
    pairs = list(zip(ones, answered, strict=True))
    return [one for one, good in pairs if good], [one for one, good in pairs if not good]
