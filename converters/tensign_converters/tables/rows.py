"""Rows to ask a model of columns with: made up from its saved example and from what it knows; and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.errors import UnsupportedModel
from tensign.specs import ColumnSpec, Spec
from tensign_converters.tables.known import known_values
from tensign_converters.tables.original import Original, Table
from tensign_converters.tables.pools import Pool

ROWS = 400
_ATTEMPTS = 50
_NUMBERS = (("IsNaN", np.nan), ("IsInf", np.inf), ("IsInf", -np.inf))  # by the ONNX operator that finds them


@dataclass(frozen=True, slots=True)
class Rows:
    """table: rows that the original answers; refused: {"IsNaN" or "IsInf": the inputs in which it takes no such number};
    refusals: a row for each thing that it refuses; said: where the rows come from."""

    table: Table
    refused: Mapping[str, Sequence[str]]
    refusals: Sequence[Table]
    said: str


def rows(original: Original, example: Table | None) -> Rows:
    """ROWS of them besides those of the example; the same model gives the same.

    Raises UnsupportedModel where the original answers hardly any that is made up.
    """
    random, specs = np.random.default_rng(0), original.signature.inputs
    pools = {spec.name: _pools(spec, original, example) for spec in specs}
    base = _answered(original, pools, random, example)
    refused: dict[str, list[str]] = {kind: [] for kind, _ in _NUMBERS}
    refusals = []
    for spec in specs:
        for kind, value in _odd(spec, pools[spec.name]):
            if _takes(original, changed := {**base, spec.name: _with(base[spec.name], value)}):
                for pool in pools[spec.name]:
                    pool.odd.append(value)
                continue
            refusals.append(changed)
            if kind and spec.name not in refused[kind]:
                refused[kind].append(spec.name)
    table = _drawn(pools, random, ROWS)
    said = f"{ROWS} rows made up of what the estimator knows, and beyond"
    if example is not None:
        table = {name: np.concatenate([example[name], column]) for name, column in table.items()}
        said = f"the {len(next(iter(example.values())))} rows of the saved example, {said}"
    return Rows(_taken(original, table), refused, refusals, said)


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
        yield from _NUMBERS
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


def _taken(original: Original, table: Table) -> Table:
    """Those of the rows that the original answers."""
    if _takes(original, table):
        return table
    count = len(next(iter(table.values())))
    kept = [row for row in range(count) if _takes(original, {name: array[row : row + 1] for name, array in table.items()})]
    if len(kept) < ROWS // 2:
        raise UnsupportedModel(f"the original answers {len(kept)} of {count} rows made up; log it again with input_example=")
    return {name: array[kept] for name, array in table.items()}
