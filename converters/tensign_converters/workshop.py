"""Where a model directory is made: beside its target, which appears whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def workshop(target: Path) -> Iterator[Path]:
    """A directory that becomes `target` at the end, and is gone where the making fails.

    Raises FileExistsError where there is a target already, at the start or by the end.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists; give a directory that does not")
    target.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        made.chmod(0o755)
        yield made
        _put(made, target)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _put(made: Path, target: Path) -> None:
    try:
        made.rename(target)  # fails where another converter was faster
    except OSError:
        if target.exists():
            raise FileExistsError(f"{target} exists by now") from None
        raise
