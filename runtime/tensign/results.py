"""Predictions in a file that grows line by line, and goes on where an earlier run left off."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import itertools
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, Self, TextIO

from tensign.errors import InvalidConfig, ProviderUnavailable

FORMATS = (".csv", ".jsonl", ".parquet")

_PARQUET_ROWS = 10_000  # that are in memory at once


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one picture: label and score of the best class, labels and scores of all that count; or an error.

    model: which one said so; its name, and what else tells it from others. label, score, error: None where there is none,
    which is null in JSON and Parquet, and nothing at all in CSV.
    """

    image: str
    model: str
    label: str | None = None
    score: float | None = None
    labels: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    error: str | None = None

    def json(self) -> str:
        """One line without its end; a name that is not UTF-8 makes all of it ASCII."""
        line = json.dumps(asdict(self), ensure_ascii=False)
        return line if line.isascii() or _is_utf8(line) else json.dumps(asdict(self))


class Results:
    """One file of rows, by its suffix CSV, JSON lines or Parquet.

    Rows of an earlier run stay, but for those of errors and one that was cut off in the middle: what has no good row is to
    be done again. `done` holds the images of the rest. Parquet cannot grow: until the end its rows lie beside it as JSON
    lines, in `grown`.
    """

    def __init__(self, path: Path, model: str) -> None:
        """Raises InvalidConfig for another suffix, a file that holds something else or that another run writes;
        ProviderUnavailable without pyarrow.
        """
        if path.suffix not in FORMATS:
            raise InvalidConfig(f"--out: wanted a name that ends in {', '.join(FORMATS)}, got {path.name}")
        self.path = path
        self.grown = path if path.suffix != ".parquet" else path.with_name(f"{path.name}.part")
        if self.grown != path:
            _pyarrow()
        self._format: _Format = _Csv() if path.suffix == ".csv" else _Jsonl()
        self.done: set[str] = set()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = path.with_name(f".{path.name}.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise InvalidConfig(f"{path} is being written by another run; choose another --out") from None
        try:
            self._file = self._continued(model)
        except BaseException:
            self._unlock()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()
        if raised[0] is None and self.path != self.grown:
            _write_parquet(self.path, self._read(self.grown))
            self.grown.unlink()
        self._unlock()

    def add(self, row: Row) -> None:
        """Writes one row, at once: a run that is killed loses none that was added."""
        self._format.write(self._file, row)
        self._file.flush()

    def _continued(self, model: str) -> TextIO:
        """The file to add to: what is worth keeping of the earlier ones, copied line by line, then put in their place."""
        fresh = self.grown.with_name(f"{self.grown.name}.new")
        with contextlib.ExitStack() as stack:
            stack.callback(fresh.unlink, missing_ok=True)
            file = stack.enter_context(_text(fresh, "w"))
            self._format.begin(file)
            for row in itertools.chain.from_iterable(map(self._read, dict.fromkeys((self.path, self.grown)))):
                if row.model != model:
                    raise InvalidConfig(f"{self.path} holds predictions of {row.model}, not of {model}; choose another --out")
                if not row.error and row.image not in self.done:
                    self.done.add(row.image)
                    self._format.write(file, row)
            file.close()
            os.replace(fresh, self.grown)
        return _text(self.grown, "a")

    def _read(self, path: Path) -> Iterator[Row]:
        if not path.exists() or not path.stat().st_size:
            return
        try:
            if path.suffix == ".parquet":
                for batch in _pyarrow().ParquetFile(path).iter_batches():
                    yield from (Row(**row) for row in batch.to_pylist())
                return
            with _text(path, "r") as file:
                yield from self._format.read(file)
        except (ValueError, TypeError, KeyError, csv.Error) as error:
            reason = " ".join(str(error).split())[:200]
            raise InvalidConfig(f"{path} is not a file of predictions ({reason}); choose another --out") from None

    def _unlock(self) -> None:
        Path(self._lock.name).unlink(missing_ok=True)
        self._lock.close()


class _Format(Protocol):
    """How rows become lines. `read` leaves out a last line that was cut off, and raises ValueError for what is no row."""

    def begin(self, file: TextIO) -> None: ...
    def write(self, file: TextIO, row: Row) -> None: ...
    def read(self, file: TextIO) -> Iterator[Row]: ...


class _Jsonl:
    def begin(self, file: TextIO) -> None:
        pass

    def write(self, file: TextIO, row: Row) -> None:
        file.write(row.json() + "\n")

    def read(self, file: TextIO) -> Iterator[Row]:
        for line in file:
            if line.endswith("\n"):
                yield Row(**json.loads(line))
            elif not line.startswith(_ROW_BEGINS[: len(line)]):
                raise ValueError(f"it ends in {line[:50]!r}")


class _Csv:
    columns = tuple(field.name for field in fields(Row))

    def begin(self, file: TextIO) -> None:
        csv.writer(file).writerow(self.columns)

    def write(self, file: TextIO, row: Row) -> None:
        score = "" if row.score is None else row.score
        lists = (json.dumps(row.labels, ensure_ascii=False), json.dumps(row.scores))
        csv.writer(file).writerow((row.image, row.model, row.label or "", score, *lists, row.error or ""))

    def read(self, file: TextIO) -> Iterator[Row]:
        usual = csv.field_size_limit(sys.maxsize)  # the labels of one picture may be many
        try:
            rows = csv.reader(file)
            header = next(rows)
            if tuple(header) != self.columns:
                raise ValueError(f"its columns are {', '.join(header)}")
            whole = _ends_a_line(file)
            for cells, following in itertools.pairwise(itertools.chain(rows, [None])):
                assert cells is not None
                if following is None and (not whole or len(cells) < len(self.columns)):
                    return
                image, model, label, score, labels, scores, error = cells
                number = float(score) if score else None
                yield Row(image, model, label or None, number, json.loads(labels), json.loads(scores), error or None)
        finally:
            csv.field_size_limit(usual)


_ROW_BEGINS = '{"image": '


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(path: Path, mode: str) -> TextIO:
    """Names of files need not be UTF-8."""
    return path.open(mode, newline="", encoding="utf-8", errors="surrogateescape")  # type: ignore[return-value]


def _ends_a_line(file: TextIO) -> bool:
    with open(file.name, "rb") as raw:
        raw.seek(-1, os.SEEK_END)
        return raw.read(1) == b"\n"


def _write_parquet(path: Path, rows: Iterator[Row]) -> None:
    import pyarrow

    text, number = pyarrow.string(), pyarrow.float64()
    kinds = {"image": text, "model": text, "label": text, "score": number, "error": text}
    kinds |= {"labels": pyarrow.list_(text), "scores": pyarrow.list_(number)}
    schema = pyarrow.schema([(field.name, kinds[field.name]) for field in fields(Row)])
    fresh = path.with_name(f"{path.name}.new")
    with contextlib.ExitStack() as stack:
        stack.callback(fresh.unlink, missing_ok=True)
        with _pyarrow().ParquetWriter(fresh, schema) as writer:
            while some := list(itertools.islice(rows, _PARQUET_ROWS)):
                writer.write_table(pyarrow.Table.from_pylist([_utf8(asdict(row)) for row in some], schema=schema))
        os.replace(fresh, path)


def _utf8(row: dict[str, Any]) -> dict[str, Any]:
    """Parquet has no other text."""
    return {name: value.encode(errors="replace").decode() if isinstance(value, str) else value for name, value in row.items()}


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ProviderUnavailable("Parquet needs pyarrow: pip install 'tensign[parquet]'") from None
    return pyarrow.parquet
