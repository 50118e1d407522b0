"""Tables that say in few bytes that they have many cells, and what CSV and Parquet keep of a value."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pd = pytest.importorskip("pandas")  # of the full environment, as pyarrow is
pa = pytest.importorskip("pyarrow")

from pyarrow import parquet  # noqa: E402

from conftest import CPU  # noqa: E402
from tensign.errors import InvalidInput, TensignError  # noqa: E402
from tensign.http import documents, tables  # noqa: E402
from tensign.http.exchange import is_short  # noqa: E402
from tensign.model import Model  # noqa: E402
from tensign.signature import Signature  # noqa: E402
from tensign.testing import running  # noqa: E402
from test_http import asked  # noqa: E402

HUGE = 2**53 + 1
MIB = 1 << 20
MANY = 3000


def signature(*types: str, named: bool = True) -> Signature:
    names = "abc" if named else ("",) * len(types)
    columns = [{"type": kind, **({"name": name} if name else {})} for name, kind in zip(names, types, strict=False)]
    return Signature.parse({"inputs": columns})


def packed(table: Any, **options: Any) -> bytes:
    content = io.BytesIO()
    parquet.write_table(table, content, **options)
    return content.getvalue()


def csv_of_many_names() -> bytes:
    return (",".join(["a", *map(str, range(MANY))]) + "\n" + "1\n" * MANY).encode()


BOMBS: dict[str, tuple[Callable[[bytes, Signature], Any], Callable[[], bytes]]] = {
    "CSV of many names": (tables.of_csv, csv_of_many_names),
    "CSV, a name over two lines": (tables.of_csv, lambda: b'"a\nb",' + csv_of_many_names()),
    "CSV of many names, none ours": (tables.of_csv, lambda: csv_of_many_names().replace(b"a,", b"z,", 1)),
    "Parquet of many rows": (tables.of_parquet, lambda: packed(pa.table({"a": np.zeros(20_000_000, np.int8)}))),
    "Parquet, one long list": (
        tables.of_parquet,
        lambda: packed(pa.table({"a": pa.ListArray.from_arrays([0, 20_000_000], np.zeros(20_000_000, np.int8))})),
    ),
    "Parquet, one long text in many rows": (
        tables.of_parquet,
        lambda: packed(pa.table({"a": pa.DictionaryArray.from_arrays(np.zeros(5000, np.int32), ["x" * 100_000])})),
    ),
    "records of many names": (
        lambda body, contract: documents.dataframe_records(json.loads(body), contract),
        lambda: json.dumps([{str(row): 1} for row in range(MANY)]).encode(),
    ),
    "ragged rows": (
        lambda body, contract: documents.dataframe_split({"data": json.loads(body)}, contract),
        lambda: json.dumps([[1] * MANY, *[[1]] * MANY]).encode(),
    ),
}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("case", BOMBS)
def test_a_few_bytes_make_no_large_table(
    case: str, named: bool, tracemalloc_peak: Callable[[Callable[[], object]], int]
) -> None:
    """Of what Python and numpy allocate; a table of all cells takes 72 MB and more."""
    read, make = BOMBS[case]
    body, contract = make(), signature("string", named=named)

    def enforced() -> None:
        try:
            contract.enforce_inputs(read(body, contract), mode="mlflow-compat")
        except TensignError:
            pass

    assert tracemalloc_peak(enforced) < 16 * MIB


@pytest.mark.parametrize("kind", ["string", "binary"])
def test_a_text_of_many_rows_is_read_from_parquet(kind: str) -> None:
    cells = ["YQ==", "YWI="] * 500
    contract = signature(kind)
    body = packed(pa.table({"a": cells, "other": range(1000)}))
    got = contract.enforce_inputs(tables.of_parquet(body, contract), mode="mlflow-compat")["a"]
    assert got.tolist() == (cells if kind == "string" else [b"a", b"ab"] * 500)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("kind", "cells", "wanted"),
    [
        ("long", [f"{HUGE}", "1.0"], [HUGE, 1]),
        ("long", ["1_0", "2"], "expected long, got text"),
        ("long", ["1", ""], "got a missing value"),
        ("float", [f"{2**24 + 1}", "1.5"], "an integer of so many digits"),
        ("double", ["1e3", "-inf"], [1000.0, -np.inf]),
        ("boolean", ["True", "False"], [True, False]),
        ("string", ["007", "1"], ["007", "1"]),
        ("string", ["x" * 200_000, "1"], ["x" * 200_000, "1"]),
    ],
    ids=lambda value: str(value)[:24],
)
def test_csv_keeps_values(kind: str, cells: list[str], wanted: Any, named: bool) -> None:
    contract = signature(kind, "long", named=named)
    body = "\n".join(["\ufeffa,b", *(f"{cell},1" for cell in cells)]).encode()

    def enforced() -> Any:
        return next(iter(contract.enforce_inputs(tables.of_csv(body, contract), mode="mlflow-compat").values())).tolist()

    if isinstance(wanted, str):
        with pytest.raises(InvalidInput, match=wanted):
            enforced()
    else:
        assert enforced() == wanted


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"a,a\n1,2\n", "two columns of one name"),
        (b"a\n1,2\n", "1 names, but 2 cells"),
        (b"", "nothing came"),
        (b"a\n\xff\n", "not UTF-8 at byte 2"),
    ],
)
def test_csv_that_is_ambiguous_is_refused(body: bytes, text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        tables.of_csv(body, signature("long"))


@pytest.mark.parametrize(("kind", "threads"), [("text/csv", 1), ("application/json", 0)])
def test_tables_are_never_read_in_the_event_loop(mean_model: Path, kind: str, threads: int) -> None:
    """However small they are: pandas is imported with the first one."""

    def reading() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("tensign-http")}

    before = reading()
    with running(Model.load(mean_model, CPU, name="mean")) as server:
        assert asked(server, "/invocations", b"{}", {"content-type": kind})[0] == 400
        assert len(reading() - before) == threads


@pytest.mark.parametrize(
    ("array", "few"),
    [
        (np.zeros(4), True),
        (np.zeros(4096), False),
        (np.array(["x" * 1_000_000], object), False),
    ],
    ids=["few numbers", "many numbers", "one long text"],
)
def test_only_what_is_short_is_written_in_the_event_loop(array: Any, few: bool) -> None:
    assert is_short({"a": array}) is few
