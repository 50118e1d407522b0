"""Predictions in a file that grows line by line, and goes on where an earlier run left off."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, Self, TextIO

from tensign.errors import InvalidConfig, ProviderUnavailable

FORMATS = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one picture: label and score of the best class, labels and scores of all that count; or an error."""

    image: str
    model: str
    label: str = ""
    score: float | None = None
    labels: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    error: str = ""


class Results:
    """One file of rows, by its suffix CSV, JSON lines or Parquet.

    Rows of an earlier run stay, but for those of errors and one that was cut off in the middle: what has no good row is to
    be done again. `done` holds the images of the rest. Parquet cannot grow: until the end its rows lie beside it as JSON
    lines.
    """

    def __init__(self, path: Path, model: str) -> None:
        """Raises InvalidConfig for another suffix, or a file that holds something else; ProviderUnavailable without pyarrow."""
        if path.suffix not in FORMATS:
            raise InvalidConfig(f"--out: wanted a name that ends in {', '.join(FORMATS)}, got {path.name}")
        self.path = path
        if path.suffix == ".parquet":
            _pyarrow()
            self._lines, self._format = path.with_name(f"{path.name}.part"), _format(Path(".jsonl"))
        else:
            self._lines, self._format = path, _format(path)
        kept = [row for file in dict.fromkeys((path, self._lines)) if file.exists() for row in _read(file) if not row.error]
        others = {row.model for row in kept} - {model}
        if others:
            raise InvalidConfig(f"{path} holds predictions of {min(others)}, not of {model}; choose another --out")
        self.done = {row.image for row in kept}
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._lines.with_name(f"{self._lines.name}.new")
        with fresh.open("w", newline="", encoding="utf-8") as file:
            self._format.begin(file)
            for row in kept:
                self._format.write(file, row)
        os.replace(fresh, self._lines)
        self._file = self._lines.open("a", newline="", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()
        if raised[0] is None and self.path != self._lines:
            _write_parquet(self.path, list(_read(self._lines)))
            self._lines.unlink()

    def add(self, row: Row) -> None:
        """Writes one row, at once: whoever pulls the plug loses nothing."""
        self._format.write(self._file, row)
        self._file.flush()


class _Format(Protocol):
    def begin(self, file: TextIO) -> None: ...
    def write(self, file: TextIO, row: Row) -> None: ...
    def read(self, file: TextIO) -> Iterator[Row]: ...


class _Jsonl:
    def begin(self, file: TextIO) -> None:
        pass

    def write(self, file: TextIO, row: Row) -> None:
        file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")

    def read(self, file: TextIO) -> Iterator[Row]:
        for line in file:
            if line.endswith("\n"):  # else it was cut off
                yield Row(**json.loads(line))


class _Csv:
    columns = tuple(field.name for field in fields(Row))

    def begin(self, file: TextIO) -> None:
        csv.writer(file).writerow(self.columns)

    def write(self, file: TextIO, row: Row) -> None:
        score = "" if row.score is None else row.score
        lists = (json.dumps(row.labels, ensure_ascii=False), json.dumps(row.scores))
        csv.writer(file).writerow((row.image, row.model, row.label, score, *lists, row.error))

    def read(self, file: TextIO) -> Iterator[Row]:
        rows = list(csv.DictReader(file))
        if rows and (None in rows[-1].values() or not _ends_a_line(file)):
            rows.pop()  # it was cut off
        for cells in rows:
            if tuple(cells) != self.columns:
                raise ValueError(f"columns {', '.join(map(str, cells))}")
            score = float(cells["score"]) if cells["score"] else None
            labels, scores = json.loads(cells["labels"]), json.loads(cells["scores"])
            yield Row(cells["image"], cells["model"], cells["label"], score, labels, scores, cells["error"])


def _format(path: Path) -> _Format:
    return _Csv() if path.suffix == ".csv" else _Jsonl()


def _read(path: Path) -> Iterator[Row]:
    try:
        if path.suffix == ".parquet":
            yield from (Row(**row) for row in _pyarrow().read_table(path).to_pylist())
            return
        with path.open(newline="", encoding="utf-8") as file:
            yield from _format(path).read(file)
    except (ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidConfig(f"{path} is not a file of predictions ({reason}); choose another --out") from None


def _ends_a_line(file: TextIO) -> bool:
    with open(file.name, "rb") as raw:
        return raw.seek(0, os.SEEK_END) > 0 and raw.seek(-1, os.SEEK_END) >= 0 and raw.read(1) == b"\n"


def _write_parquet(path: Path, rows: list[Row]) -> None:
    import pyarrow

    text, number = pyarrow.string(), pyarrow.float64()
    kinds = {"image": text, "model": text, "label": text, "score": number, "error": text}
    kinds |= {"labels": pyarrow.list_(text), "scores": pyarrow.list_(number)}
    schema = pyarrow.schema([(field.name, kinds[field.name]) for field in fields(Row)])
    table = pyarrow.Table.from_pylist([asdict(row) for row in rows], schema=schema)
    fresh = path.with_name(f"{path.name}.new")
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: fresh.unlink(missing_ok=True))
        _pyarrow().write_table(table, fresh)
        os.replace(fresh, path)


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ProviderUnavailable("Parquet needs pyarrow: pip install 'tensign[parquet]'") from None
    return pyarrow.parquet
