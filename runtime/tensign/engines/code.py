"""A model's own `code` directory, put where Python finds it. In the worker, or the confined converter, only."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_code(path: Path, flavor: Mapping[str, Any]) -> None:
    """First on the path, as MLflow puts it; that it lies in the model's directory was checked before."""
    if flavor.get("code"):
        sys.path.insert(0, str((path / str(flavor["code"])).resolve()))
