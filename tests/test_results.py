from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from tensign.errors import InvalidConfig, ProviderUnavailable
from tensign.results import FORMATS, Results, Row

GOOD = [Row(f"{n}.jpg", "m", 'katze, "süß"\n', 0.5 + n / 10, ["katze", "hund"], [0.5, 0.25]) for n in range(3)]
BAD = Row("bad.jpg", "m", error="2 bytes are no picture")


def rows(path: Path) -> list[Row]:
    if path.suffix == ".parquet":
        return [Row(**row) for row in pyarrow.parquet.read_table(path).to_pylist()]
    with Results(path.rename(path.with_name(f"copy{path.suffix}")), "m") as copy:
        assert not (copy.done - {row.image for row in GOOD})
    if path.suffix == ".jsonl":
        return [Row(**json.loads(line)) for line in copy.path.read_text().splitlines()]
    from tensign.results import _read

    return list(_read(copy.path))


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
def test_predictions_of_another_model_are_not_mixed_in(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"results{suffix}"
    with Results(path, "m") as results:
        results.add(GOOD[0])
    before = path.read_bytes()
    with pytest.raises(InvalidConfig, match="holds predictions of m, not of other"):
        Results(path, "other")
    assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_of_something_else_is_not_touched(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"results{suffix}"
    path.write_text("my,own,notes\n1,2,3\n")
    with pytest.raises(InvalidConfig, match="is not a file of predictions"):
        Results(path, "m")
    assert path.read_text() == "my,own,notes\n1,2,3\n"


def test_other_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"\.csv, \.jsonl, \.parquet, got results\.xlsx"):
        Results(tmp_path / "results.xlsx", "m")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ProviderUnavailable, match=r"tensign\[parquet\]"):
        Results(tmp_path / "results.parquet", "m")
