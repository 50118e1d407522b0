from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pandas
import pyarrow.parquet
import pytest

from tensign.errors import InvalidConfig, ProviderUnavailable
from tensign.results import FORMATS, Results, Row

GOOD = [Row(f"{n}.jpg", "m", 'katze, "süß"\n', 0.5 + n / 10, ["katze", "hund"], [0.5, 0.25]) for n in range(3)]
BAD = Row("bad.jpg", "m", error="2 bytes are no picture")


def rows(path: Path) -> list[Row]:
    """Read as its user would."""
    if path.suffix == ".parquet":
        return [Row(**row) for row in pyarrow.parquet.read_table(path).to_pylist()]
    if path.suffix == ".jsonl":
        return [Row(**json.loads(line)) for line in path.read_text().splitlines()]
    table = pandas.read_csv(path, converters={"labels": json.loads, "scores": json.loads}, keep_default_na=False)
    return [Row(**{n: v for n, v in row.items() if v != ""}) for row in table.to_dict("records")]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_second_run_does_only_what_is_left_and_what_failed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "deep" / f"results{suffix}"
    with Results(path, "m") as results:
        assert results.done == set()
        results.add(GOOD[0])
        results.add(BAD)
        results.add(GOOD[1])
    with Results(path, "m") as results:
        assert results.done == {"0.jpg", "1.jpg"}
        results.add(GOOD[2])
    assert rows(path) == GOOD


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_run_that_was_killed_loses_at_most_the_row_it_was_writing(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"results{suffix}"
    with pytest.raises(KeyboardInterrupt), Results(path, "m") as results:
        for row in GOOD:
            results.add(row)
        raise KeyboardInterrupt
    growing = path if suffix != ".parquet" else tmp_path / "results.parquet.part"
    growing.write_bytes(growing.read_bytes()[:-5])
    with Results(path, "m") as again:
        assert again.done == {"0.jpg", "1.jpg"}
        again.add(GOOD[2])
    assert rows(path) == GOOD
    assert not (tmp_path / "results.parquet.part").exists()


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_there_is_not_is_null_or_nothing(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"results{suffix}"
    with Results(path, "m") as results:
        results.add(GOOD[0])
        results.add(BAD)
    good, bad = rows(path)
    assert (good.label, bad.error) == (GOOD[0].label, BAD.error)
    if suffix == ".csv":
        cells = path.read_text().splitlines()[-1].split(",")
        assert cells[2:4] == ["", ""]
    else:
        assert (bad.label, bad.score, good.error) == (None, None, None)


@pytest.mark.parametrize("suffix", FORMATS)
def test_predictions_of_another_model_are_not_mixed_in(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"results{suffix}"
    with Results(path, "m") as results:
        results.add(GOOD[0])
    before = path.read_bytes()
    with pytest.raises(InvalidConfig, match="holds predictions of m, not of other"):
        Results(path, "other")
    assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    "content", ["my,own,notes\n1,2,3\n", "one line, no end", "name,value\nalice,1", '{"mine": 1}\n', "image,model\n"]
)
def test_a_file_of_something_else_is_not_touched(tmp_path: Path, suffix: str, content: str) -> None:
    path = tmp_path / f"results{suffix}"
    path.write_text(content)
    with pytest.raises(InvalidConfig, match="is not a file of predictions"):
        Results(path, "m")
    assert path.read_text() == content
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_row_of_two_runs_is_there_once(tmp_path: Path, suffix: str) -> None:
    """A third run that follows one that was done and one that was killed."""
    path = tmp_path / f"results{suffix}"
    with Results(path, "m") as results:
        results.add(GOOD[0])
    with pytest.raises(KeyboardInterrupt), Results(path, "m") as results:
        results.add(GOOD[1])
        raise KeyboardInterrupt
    with Results(path, "m") as results:
        assert results.done == {"0.jpg", "1.jpg"}
        results.add(GOOD[2])
    assert rows(path) == GOOD


@pytest.mark.parametrize("suffix", FORMATS)
def test_two_runs_do_not_write_one_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"results{suffix}"
    with Results(path, "m") as results:
        results.add(GOOD[0])
        with pytest.raises(InvalidConfig, match="is being written by another run"):
            Results(path, "m")
        results.add(GOOD[1])
    assert rows(path) == GOOD[:2]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_names_that_are_not_utf_8_and_many_labels_come_back(tmp_path: Path, suffix: str) -> None:
    odd = Row(os.fsdecode(b"k\xe4tzchen.jpg"), "m", labels=[f"label {n}" for n in range(20_000)], scores=[0.5] * 20_000)
    path = tmp_path / f"results{suffix}"
    with Results(path, "m") as results:
        results.add(odd)
    with Results(path, "m") as results:
        assert results.done == {odd.image}


def test_other_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"\.csv, \.jsonl, \.parquet, got results\.xlsx"):
        Results(tmp_path / "results.xlsx", "m")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ProviderUnavailable, match=r"tensign\[parquet\]"):
        Results(tmp_path / "results.parquet", "m")
