"""JSON of strangers, bounded: one reader for bodies, for cells and for params."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from tensign.errors import InvalidInput, TooLarge

MAX_DEPTH = 100  # numpy has 64 axes
_MAX_CONTAINERS = 1 << 24  # lists and maps in one request: a list of none takes 56 bytes, `[],` three
_CHUNK = 1 << 20
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def parse_json(text: str | bytes) -> Any:
    """JSON in UTF-8, NaN and Infinity among its numbers as Python and MLflow write them. Raises InvalidInput, TooLarge.

    A name that stands twice in one map is refused: whoever is between us and the client may have looked at the other.
    """
    body = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    check_containers((body,))
    if _depth(body) > MAX_DEPTH and _depth(_STRINGS.sub(b"", body)) > MAX_DEPTH:
        raise InvalidInput(f"JSON: nested too deep; at most {MAX_DEPTH} lists and maps may be in each other")
    try:
        return json.loads(body.decode("utf-8-sig"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"JSON: not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        if not error.doc.strip():
            raise InvalidInput("JSON: nothing came, the text is empty") from None
        raise InvalidInput(f"JSON: {error.msg} at character {error.pos} of {len(error.doc)}") from None
    except ValueError:  # an integer of thousands of digits
        raise InvalidInput("JSON: a number of more digits than any type holds") from None


def check_containers(texts: Iterable[bytes]) -> None:
    """Raises TooLarge where there are more lists and maps in all of them than one request may have."""
    if sum(text.count(b"[") + text.count(b"{") for text in texts) > _MAX_CONTAINERS:
        raise TooLarge(f"JSON: more than {_MAX_CONTAINERS} lists and maps; send several requests, or raw tensors over gRPC")


def _depth(body: bytes) -> int:
    """How many brackets are open at once at most; those in strings count, too."""
    brackets = np.frombuffer(body.translate(None, _NO_BRACKETS), np.uint8)
    deepest = depth = 0
    for first in range(0, len(brackets), _CHUNK):
        steps = (brackets[first : first + _CHUNK] & 2).astype(np.int32) - 1  # bit 1 is set in [ and {, not in ] and }
        depths = depth + np.cumsum(steps)
        deepest, depth = max(deepest, int(depths.max())), int(depths[-1])
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise InvalidInput(f"JSON: a map of {len(pairs)} entries has one name twice")
    return made
