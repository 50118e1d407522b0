"""Rows that a model was proved on and that nobody could make again, kept beside it as a DataFrame's JSON, split."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tensign.errors import InvalidInput, UnsupportedModel
from tensign.proof.field import read_json
from tensign.proof.samples import Sample, Samples
from tensign.signature import Signature
from tensign.values import is_missing

ROWS_FILE = "proof-rows.json"
_MOST_BYTES = 1 << 26


def write_rows(rows: Samples, directory: Path) -> None:
    """All of them; text, numbers and None are kept as they are."""
    data = [[_plain(value) for value in row.values()] for row in rows]
    document = {"told": rows.told, "columns": list(rows[0]), "data": data}
    (directory / ROWS_FILE).write_text(json.dumps(document), encoding="utf-8")


def read_rows(directory: Path, signature: Signature) -> Samples | None:
    """None where none were kept. Raises UnsupportedModel for what is broken."""
    try:
        document = read_json(directory / ROWS_FILE, _MOST_BYTES)
    except FileNotFoundError:
        return None
    field = document.fields(("told", "columns", "data"))
    names = [each.text() for each in field["columns"].items(1)]
    rows = [row.items(len(names), len(names)) for row in field["data"].items(1)]
    named = {name: [row[at].value for row in rows] for at, name in enumerate(names)}
    try:
        table = signature.enforce_inputs(named, None, "mlflow-compat")
    except InvalidInput as error:
        raise UnsupportedModel(f"{document.file}: data: {error}") from None
    if len(named) != len(names) or any(len(column) != len(rows) for column in table.values()):
        field["columns"].refuse("every column once, with a value of each row")
    told = field["told"].text()
    return Samples(tuple((f"row {row}", partial(_taken, table, row)) for row in range(len(rows))), told)


def example(rows: Samples) -> dict[str, Any]:
    """One row, as MLflow saves an example of columns: the first that misses nothing."""
    row = next((row for row in rows if not any(map(is_missing, row.values()))), rows[0])
    return {"columns": list(row), "data": [[_plain(value) for value in row.values()]]}


def _taken(table: Sample, row: int) -> Sample:
    return {name: column[row] for name, column in table.items()}


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
