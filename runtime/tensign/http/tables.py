"""DataFrames as CSV and Parquet: read by pandas, which is imported when the first one comes."""

from __future__ import annotations

import io
from typing import Any

from tensign.errors import InvalidInput, NotOffered
from tensign.signature import Signature


def of_csv(body: bytes, signature: Signature) -> Any:
    """A table with a line of names. Raises InvalidInput, NotOffered."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"CSV: not UTF-8 at byte {error.start}") from None
    return _read("CSV", lambda pandas: pandas.read_csv(io.StringIO(text), dtype=_text_columns(signature)))


def of_parquet(body: bytes, signature: Signature) -> Any:
    """A table. Raises InvalidInput, NotOffered."""
    return _read("Parquet", lambda pandas: pandas.read_parquet(io.BytesIO(body)))


def _read(kind: str, read: Any) -> Any:
    try:
        import pandas

        return read(pandas)
    except ImportError:
        raise NotOffered(f"{kind} is read where pandas is installed: pip install 'tensign[tables]'") from None
    except Exception as error:  # whatever pandas and its parsers raise of a stranger's bytes; their text may hold those
        raise InvalidInput(f"{kind}: no table that pandas reads: {type(error).__name__}") from None


def _text_columns(signature: Signature) -> dict[str, type]:
    """What must stay text although it looks like a number."""
    return {spec.name: object for spec in signature.inputs if str(getattr(spec, "type", "")) in ("string", "binary")}
