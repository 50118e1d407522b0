"""The files that a user names: one by one, by folder, by pattern."""

from __future__ import annotations

import glob
from pathlib import Path

from tensign.decode import SUFFIXES
from tensign.errors import InvalidConfig


def found(given: list[str]) -> list[str]:
    """Files as they are named, those of folders and patterns in order; a name that is none of these stays, to fail alone."""
    files: dict[str, None] = {}
    for name in given:
        if not name:
            raise InvalidConfig("IMAGE: wanted a name, got nothing")
        if Path(name).is_dir():
            names = [str(path) for path in Path(name).rglob("*") if path.suffix.lower() in SUFFIXES]
            if not names:
                raise InvalidConfig(f"{name}: no {', '.join(sorted(SUFFIXES))} file in it")
        else:
            names = glob.glob(name, recursive=True) if glob.has_magic(name) and not Path(name).exists() else [name]
            if not names:
                raise InvalidConfig(f"{name}: no file of that pattern")
        files.update(dict.fromkeys(sorted(names)))
    return list(files)


def skipped(given: list[str]) -> int:
    """How many files of the folders are not taken for pictures."""
    folders = (Path(name) for name in given if Path(name).is_dir())
    return len(
        {path for folder in folders for path in folder.rglob("*") if path.suffix.lower() not in SUFFIXES and path.is_file()}
    )
