"""An error as it crosses between processes: the name of its class in errors.py, and its text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensign import errors
from tensign.errors import EngineError, TensignError


def told(error: BaseException) -> dict[str, str]:
    """What a message says of it; of what is no error of ours its class alone."""
    if isinstance(error, TensignError):
        return {"error": type(error).__name__, "text": str(error)}
    return {"error": EngineError.__name__, "text": f"the server failed: {type(error).__name__}"}


def error_of(header: Mapping[str, Any]) -> TensignError | None:
    """What it was on the other side; None where the message says nothing of one."""
    if "error" not in header:
        return None
    kind = getattr(errors, str(header["error"]), None)
    if not (isinstance(kind, type) and issubclass(kind, TensignError)):
        kind = EngineError
    return kind(str(header.get("text")))
