"""proof-rows.json of strangers: one line of refusal each."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from conftest import tensor
from tensign.errors import UnsupportedModel
from tensign.proof.rows import ROWS_FILE, read_rows
from tensign.signature import Signature

COLUMNS = Signature.parse(
    {
        "inputs": [{"type": "long", "name": "age", "required": True}, {"type": "string", "name": "note", "required": False}],
        "outputs": [tensor("float32", [-1, 1])],
    }
)
ROWS = {"told": "rows", "columns": ["age", "note"], "data": [[1, "a"], [2, None]]}


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("told", 5, "told: wanted a line"),
        ("columns", "ab", "columns: wanted a list"),
        ("columns", [], "columns: wanted a list of 1"),
        ("columns", ["age", "age"], "data: "),
        ("columns", [["age"], "note"], "columns[0]: wanted a line"),
        ("columns", ["age", "other"], None),
        ("data", [], "data: wanted a list of 1"),
        ("data", {}, "data: wanted a list of 1"),
        ("data", [[1]], "data[0]: wanted a list of 2 to 2, got a list of 1"),
        ("data", [[1, "a"], 5], "data[1]: wanted a list of 2 to 2, got 5"),
        ("data", [[10**30, "a"]], "data: "),
        ("data", [[[], "a"]], "data: "),
        ("data", [["x", {}]], "data: "),
        ("more", 1, "is broken: wanted told, columns, data"),
    ],
)
def test_rows_of_another_kind_are_refused(tmp_path: Path, key: str, value: Any, told: str | None) -> None:
    (tmp_path / ROWS_FILE).write_text(json.dumps(ROWS))
    rows = read_rows(tmp_path, COLUMNS)
    assert rows and [row["age"] for row in rows] == [1, 2]
    (tmp_path / ROWS_FILE).write_text(json.dumps({**ROWS, key: value}))
    if told is None:
        read_rows(tmp_path, COLUMNS)  # MLflow drops columns that nobody asked for
        return
    with pytest.raises(UnsupportedModel, match=re.escape(told)) as error:
        read_rows(tmp_path, COLUMNS)
    assert ROWS_FILE in str(error.value) and "\n" not in str(error.value)
