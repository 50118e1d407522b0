"""DataFrames as CSV and Parquet: read by pandas, which is imported when the first one comes.

Both can say in few bytes that there are many cells: these are counted before a table is made, and only columns that the
signature names are read.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tensign.coltypes import BOOLEAN, DATETIME, ScalarType
from tensign.errors import InvalidInput, NotOffered, TensignError, TooLarge
from tensign.forms import check_spread, columns_read
from tensign.signature import ColumnSpec, Signature

_MAX_CELLS = 1 << 22
_MAX_UNPACKED = 256 << 20  # bytes
csv.field_size_limit(_MAX_UNPACKED)  # of the whole process; a picture as text is longer than the 128 KiB it has


def of_csv(body: bytes, signature: Signature) -> Any:
    """A table with a line of names. Raises InvalidInput, NotOffered."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"CSV: not UTF-8 at byte {error.start}") from None
    if not text.strip():
        raise InvalidInput("CSV: nothing came, the text is empty")
    return _read("CSV", lambda pandas: _csv(pandas, text, signature))


def of_parquet(body: bytes, signature: Signature) -> Any:
    """A table. Raises InvalidInput, TooLarge, NotOffered."""
    return _read("Parquet", lambda pandas: _parquet(pandas, body, signature))


def _csv(pandas: Any, text: str, signature: Signature) -> Any:
    records = (record for record in csv.reader(io.StringIO(text, newline=None)) if "".join(record).strip())
    names, first = next(records, []), next(records, [])
    if len(first) > len(names):
        raise InvalidInput(f"CSV: {len(names)} names, but {len(first)} cells in the row after them")
    rows, cells = text.count("\n") + text.count("\r"), text.count(",") + len(names)
    check_spread(len(names), rows, cells)  # pandas fills up short rows of columns that it does not keep, too
    read = columns_read(names, rows, cells, signature.inputs)
    if any(count > 1 and name in read for name, count in Counter(names).items()):
        raise InvalidInput("CSV: two columns of one name")
    if not signature.inputs[0].named:
        return pandas.read_csv(io.StringIO(text), dtype=_texts(names, signature))
    if read.isdisjoint(names):
        return pandas.DataFrame()
    return pandas.read_csv(io.StringIO(text), dtype=_texts(names, signature), usecols=lambda name: name in read)


def _texts(names: list[str], signature: Signature) -> Mapping[str, type]:
    """What stays text, to be cast cell by cell: pandas makes floats of integers that have others beside them."""
    specs = signature.inputs
    named = [spec.name for spec in specs] if specs[0].named else names
    typed = [spec.type if isinstance(spec, ColumnSpec) else None for spec in specs]
    return {
        name: object
        for name, kind in zip(named, typed, strict=False)
        if isinstance(kind, ScalarType) and kind not in (BOOLEAN, DATETIME)
    }


def _parquet(pandas: Any, body: bytes, signature: Signature) -> Any:
    import pyarrow
    from pyarrow import parquet

    file = parquet.ParquetFile(io.BytesIO(body))
    schema, known = file.schema_arrow, {spec.name for spec in signature.inputs}
    names = [name for name in schema.names if name in known] if signature.inputs[0].named else schema.names
    if not names:
        return pandas.DataFrame()
    texts = {field.name for field in schema if field.name in names and _is_text(pyarrow.types, field.type)}
    cells = unpacked = 0
    for group in map(file.metadata.row_group, range(file.metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            if not any(chunk.path_in_schema == name or chunk.path_in_schema.startswith(f"{name}.") for name in names):
                continue
            cells += max(chunk.num_values, group.num_rows)
            shared = chunk.path_in_schema in texts and "DELTA_BYTE_ARRAY" not in chunk.encodings
            long = "BYTE_ARRAY" in chunk.physical_type and not shared  # one text may stand for every row, and be copied
            unpacked += chunk.total_uncompressed_size * (chunk.num_values if long else 1)
    if cells > _MAX_CELLS or unpacked > _MAX_UNPACKED:
        raise TooLarge(f"Parquet: {cells} cells, up to {unpacked} bytes; {_MAX_CELLS} and {_MAX_UNPACKED} may be in a request")
    file = parquet.ParquetFile(io.BytesIO(body), read_dictionary=list(texts))  # each text once, however many rows have it
    whole = not signature.inputs[0].named
    frame = file.read(None if whole else names, use_threads=False, use_pandas_metadata=whole).to_pandas()
    for name in texts & set(frame.columns):
        frame[name] = frame[name].astype(object)
    return frame


def _is_text(types: Any, kind: Any) -> bool:
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return any(is_kind(kind) for is_kind in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary))


def _read(kind: str, read: Any) -> Any:
    try:
        import pandas

        return read(pandas)
    except ImportError:
        raise NotOffered(f"{kind} is read where pandas is installed: pip install 'tensign[tables]'") from None
    except (TensignError, MemoryError):
        raise
    except Exception as error:  # whatever pandas and its parsers raise of a stranger's bytes; their text may hold those
        raise InvalidInput(f"{kind}: no table that pandas reads: {type(error).__name__}") from None
