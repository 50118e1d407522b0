"""A map that a person wrote, read key by key; what is wrong is named, with what was wanted and what came."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tensign.errors import InvalidConfig


class Keys:
    """place: where the map stands, in words. Every method raises InvalidConfig."""

    def __init__(self, document: Any, place: str, known: Sequence[str]) -> None:
        self.place = place
        if not isinstance(document, Mapping):
            raise InvalidConfig(f"{place}: wanted a map of keys, got {shown(document)}")
        for key in document:
            if key not in known:
                raise InvalidConfig(f'{place}: the key "{str(key)[:60]}" is unknown; {nearest(str(key), known)}')
        self._document = document

    def get(self, key: str, wanted: str, fits: Callable[[Any], bool], default: Any = None) -> Any:
        """The value, or the default where the key is not there; wanted: what fits, in words."""
        if key not in self._document:
            return default
        value = self._document[key]
        if not fits(value):
            raise self.refused(key, f"wanted {wanted}, got {shown(value)}")
        return value

    def choice(self, key: str, known: Sequence[str], default: str) -> str:
        """One of a few words."""
        return str(
            self.get(key, f"one of {', '.join(known)}", lambda value: isinstance(value, str) and value in known, default)
        )

    def refused(self, key: str, why: str) -> InvalidConfig:
        """The error of one key."""
        return InvalidConfig(f"{self.place}: {key}: {why}")


def nearest(key: str, known: Sequence[str]) -> str:
    """Which of the known ones was meant, or all of them where none is near."""
    close = difflib.get_close_matches(key[:100], known, 1, cutoff=0.5)
    return f'did you mean "{close[0]}"?' if close else f"known are {', '.join(known)}"


def shown(value: Any) -> str:
    """A value in few words."""
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f'the text "{value[:60]}"'
    if isinstance(value, Mapping):
        return f"a map of {len(value)}"
    return f"a list of {len(value)}" if isinstance(value, Sequence) else str(value)[:60]
