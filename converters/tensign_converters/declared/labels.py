"""Labels, in the order of a network's classes: a list, or a file beside the one that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensign.errors import InvalidConfig, TensignError
from tensign.jsontext import parse_json
from tensign_converters.declared.keys import shown

MAX_BYTES = 16 << 20  # of a file that a person wrote


def read_labels(said: str | list[Any], folder: Path) -> tuple[str, ...]:
    """A list of texts, or the name of a file in `folder`: of JSON, or with a label in each line. Raises InvalidConfig."""
    if isinstance(said, str):
        file = folder / said
        try:
            inside = file.resolve().is_relative_to(folder.resolve())
        except (OSError, RuntimeError, ValueError):  # links in a circle, or half a character
            raise InvalidConfig(f'"{said[:100]}" is no name of a file') from None
        if not inside:
            raise InvalidConfig(f'"{said[:100]}" leads out of the folder of the file that names it')
        text = read_text(file)
        said = _of_json(text, said) if file.suffix.lower() == ".json" else [line.strip() for line in text.rstrip().split("\n")]
    if not isinstance(said, list) or not said:
        raise InvalidConfig(f"wanted a list of labels, or the name of a file of them, got {shown(said)}")
    for number, label in enumerate(said):
        if not isinstance(label, str) or not label:
            raise InvalidConfig(f"label {number}: wanted a text, got {shown(label) if label != '' else 'an empty one'}")
    return tuple(said)


def read_text(file: Path) -> str:
    """A file of UTF-8 text, with or without a byte order mark. Raises InvalidConfig."""
    try:
        if file.exists() and not file.is_file():
            raise InvalidConfig(f"{file.name or file} is no file{' but a folder' * file.is_dir()}")
        if (size := file.stat().st_size) > MAX_BYTES:
            raise InvalidConfig(f"{file.name}: {size} bytes are more than the limit of {MAX_BYTES}")
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise InvalidConfig(f"{file.name[:100]} cannot be read: {reason}") from None


def _of_json(text: str, name: str) -> Any:
    try:
        return parse_json(text)
    except TensignError as error:
        raise InvalidConfig(f"{name[:100]}: {error}") from None
