"""Field: one value of a JSON file that anybody may have written, taken as what was wanted, or refused by its key."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tensign.errors import InvalidInput, TooLarge, UnsupportedModel
from tensign.jsontext import parse_json

_MOST_LETTERS = 4096
_SCALARS = (str, int, float, bool, type(None))


def read_json(file: Path, most_bytes: int) -> Field:
    """The whole of a file. Raises FileNotFoundError, and UnsupportedModel for what cannot be read, is too long or no JSON."""
    try:
        if not file.is_file() and file.exists():
            raise UnsupportedModel(f"{file}: is broken: wanted a file, got a directory or a device")
        with file.open("rb") as opened:
            content = opened.read(most_bytes + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnsupportedModel(f"{file}: cannot be read: {error.strerror}") from None
    if len(content) > most_bytes:
        raise UnsupportedModel(f"{file}: is broken: wanted at most {most_bytes} bytes, got more")
    try:
        return Field(str(file), "", parse_json(content))
    except (InvalidInput, TooLarge) as error:
        raise UnsupportedModel(f"{file}: is broken: {error}") from None


@dataclass(frozen=True, slots=True)
class Field:
    """file and key tell where it stands. Every method raises UnsupportedModel for a value of another kind."""

    file: str
    key: str
    value: Any

    def refuse(self, wanted: str) -> NoReturn:
        """Says what was wanted, what came, and where."""
        where = f"{self.file}: {self.key}" if self.key else f"{self.file}: is broken"
        raise UnsupportedModel(f"{where}: wanted {wanted}, got {_told(self.value)}")

    def fields(self, wanted: Sequence[str] | None = None, optional: Sequence[str] = ()) -> dict[str, Field]:
        """Those of a map, of these names, or of any where None."""
        if not isinstance(self.value, dict):
            self.refuse("a map")
        if wanted is not None and not set(wanted) <= self.value.keys() <= {*wanted, *optional}:
            names = ", ".join(sorted(self.value)) or "none"
            raise UnsupportedModel(f"{self.file}: {self.key or 'is broken'}: wanted {', '.join(wanted)}, got {names[:200]}")
        return {name: Field(self.file, f"{self.key}.{name[:64]}".lstrip("."), value) for name, value in self.value.items()}

    def items(self, least: int = 0, most: int = 1 << 20) -> list[Field]:
        """Those of a list."""
        if not isinstance(self.value, list) or not least <= len(self.value) <= most:
            self.refuse(f"a list of {least} to {most}")
        return [Field(self.file, f"{self.key}[{at}]", value) for at, value in enumerate(self.value)]

    def text(self) -> str:
        """One line that a terminal can show."""
        if not isinstance(self.value, str) or len(self.value) > _MOST_LETTERS or not self.value.isprintable():
            self.refuse(f"a line of at most {_MOST_LETTERS} printable letters")
        return self.value

    def file_name(self) -> str:
        """Of a file that lies beside this one."""
        if not isinstance(self.value, str) or not self.value.isprintable() or self.value != Path(self.value).name:
            self.refuse("the name of a file in the same directory")
        if self.value in ("", ".", "..") or "\\" in self.value or len(self.value) > 255:
            self.refuse("the name of a file in the same directory")
        return self.value

    def whole(self, least: int, most: int) -> int:
        """A whole number within these bounds."""
        if type(self.value) is not int or not least <= self.value <= most:
            self.refuse(f"a whole number from {least} to {most}")
        return self.value

    def number(self, most: float = math.inf) -> float:
        """From 0 to `most`, finite."""
        if type(self.value) not in (int, float) or not 0 <= self.value <= most or self.value > 1.7e308:
            self.refuse(f"a number from 0 to {most:g}" if most < math.inf else "a finite number from 0 on")
        return float(self.value)

    def plain(self, depth: int = 3) -> Any:
        """Text, numbers and lists and maps of them, no deeper than `depth`."""
        if isinstance(self.value, dict) and depth:
            return {Field(self.file, self.key, name).text(): each.plain(depth - 1) for name, each in self.fields().items()}
        if isinstance(self.value, list) and depth:
            return [each.plain(depth - 1) for each in self.items()]
        if not isinstance(self.value, _SCALARS):
            self.refuse("text, a number, or lists and maps of them, not deep")
        return self.text() if isinstance(self.value, str) else self.value


def _told(value: Any) -> str:
    if isinstance(value, Mapping | list):
        return f"a {'map' if isinstance(value, Mapping) else 'list'} of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 1 << 64:
        return "a larger number"  # a number of thousands of digits cannot be written
    told = json.dumps(value)
    return told if len(told) <= 60 else f"{told[:60]}..."
