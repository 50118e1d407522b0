"""Where a model directory is made: beside its target, which appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tensign.errors import UnsupportedModel


@contextlib.contextmanager
def workshop(target: Path) -> Iterator[Path]:
    """A directory that becomes `target` at the end, and is gone where the making fails.

    Raises FileExistsError where there is a target already, at the start or by the end, UnsupportedModel where anything but
    plain files was made.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists; give a directory that does not")
    target.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        made.chmod(0o755)
        yield made
        _check(made)
        _put(made, target)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _check(made: Path) -> None:
    """A stranger's code may have made them: a link would lead whoever opens it elsewhere, and a pipe would hold him."""
    with os.scandir(made) as entries:
        odd = sorted(entry.name for entry in entries if not entry.is_file(follow_symlinks=False))
    if odd:
        raise UnsupportedModel(f"wanted plain files alone in what was converted, got also {', '.join(odd)[:300]!a}")


def _put(made: Path, target: Path) -> None:
    try:
        made.rename(target)  # fails where another converter was faster
    except OSError:
        if target.exists():
            raise FileExistsError(f"{target} exists by now") from None
        raise
