"""Where a doctor looks: installed packages, shared libraries, the files of the kernel."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _folder(module: str) -> Path | None:
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).parent if spec and spec.origin else None


@dataclass(frozen=True, slots=True)
class Lookup:
    """version: of an installed package, and folder: of a top-level module, which is not imported; None where there is none.

    library opens a shared library, or raises OSError; /dev, /proc and /sys lie under root.
    """

    version: Callable[[str], str | None] = _version
    folder: Callable[[str], Path | None] = _folder
    library: Callable[[str], Any] = ctypes.CDLL
    root: Path = Path("/")

    def text(self, path: str) -> str:
        """What a file below root holds, "" where there is none that can be read."""
        try:
            return (self.root / path.lstrip("/")).read_text(errors="replace")
        except OSError:
            return ""

    def finds(self, library: str) -> bool:
        """Whether the loader opens a library."""
        try:
            self.library(library)
        except OSError:
            return False
        return True
