"""Converts what cannot be served as it is, once, in a child process, into a cache keyed by the content's digest.

The serving path imports no converter: a pickle is a program, and it runs over there or not at all.
"""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from pathlib import Path

from tensign import errors
from tensign.mlmodel import read_mlmodel
from tensign.plan import SERVED_FLAVORS
from tensign.version import __version__


def servable(path: Path, *, trust: bool, cache: Path) -> Path:
    """`path` itself where its flavor is served as it is, else the directory it was converted to.

    Raises UntrustedModel when converting would run the model's code and `trust` is False, and what `convert` raises.
    """
    manifest = read_mlmodel(path)
    if any(flavor in manifest.flavors for flavor in SERVED_FLAVORS):
        return path
    converted = cache / f"{manifest.digest}-{__version__}"
    if not (converted / "MLmodel").exists():
        try:
            convert(path, converted, trust=trust)
        except FileExistsError:  # another server was faster, with the same content
            read_mlmodel(converted)
    return converted


def convert(source: Path, target: Path, *, trust: bool, weights: str = "fp32") -> str:
    """Runs `python -m tensign_converters` and gives its report back; `target` appears whole or not at all.

    Raises UnsupportedModel, UntrustedModel, ParityFailed or an OSError, as the child says.
    """
    command = [sys.executable, "-W", "ignore", "-m", "tensign_converters", str(source), str(target), "--weights", weights]
    child = subprocess.run(command + ["--trust"] * trust, stdout=subprocess.PIPE, text=True)
    lines = child.stdout.strip().splitlines()
    try:
        said = json.loads(lines[-1])
    except (IndexError, json.JSONDecodeError):
        raise errors.UnsupportedModel(
            f"{source}: the converter ended with status {child.returncode} and said nothing"
        ) from None
    if "error" in said:
        kind: type[Exception] = getattr(errors, said["error"], None) or getattr(builtins, said["error"])
        raise kind(said["text"])
    return str(said["report"])
