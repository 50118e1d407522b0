"""Rows that a model was proved on and that nobody could make again, kept beside it as a DataFrame's JSON, split."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tensign.errors import InvalidInput, UnsupportedModel
from tensign.proof.samples import Sample, Samples
from tensign.signature import Signature
from tensign.values import is_missing

ROWS_FILE = "proof-rows.json"


def write_rows(rows: Samples, directory: Path) -> None:
    """All of them; text, numbers and None are kept as they are."""
    data = [[_plain(value) for value in row.values()] for row in rows]
    document = {"told": rows.told, "columns": list(rows[0]), "data": data}
    (directory / ROWS_FILE).write_text(json.dumps(document), encoding="utf-8")


def read_rows(directory: Path, signature: Signature) -> Samples | None:
    """None where none were kept. Raises UnsupportedModel for what is broken."""
    try:
        document = json.loads((directory / ROWS_FILE).read_text(encoding="utf-8"))
        columns = zip(*document["data"], strict=True)
        named = dict(zip(document["columns"], map(list, columns), strict=True))
        table = signature.enforce_inputs(named, None, "mlflow-compat")
        count = len(document["data"])
        return Samples(tuple((f"row {row}", partial(_taken, table, row)) for row in range(count)), str(document["told"]))
    except FileNotFoundError:
        return None
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, InvalidInput) as error:
        raise UnsupportedModel(f"{directory}: {ROWS_FILE} is broken: {error}") from None


def example(rows: Samples) -> dict[str, Any]:
    """One row, as MLflow saves an example of columns: the first that misses nothing."""
    row = next((row for row in rows if not any(map(is_missing, row.values()))), rows[0])
    return {"columns": list(row), "data": [[_plain(value) for value in row.values()]]}


def _taken(table: Sample, row: int) -> Sample:
    return {name: column[row] for name, column in table.items()}


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
