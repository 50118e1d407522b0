"""Converts what cannot be served as it is, once, in a child process, into a cache keyed by the content's digest.

The serving path imports no converter: a pickle is a program, and it runs over there or not at all.
"""

from __future__ import annotations

import builtins
import fcntl
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tensign import errors
from tensign.choice import SERVED_FLAVORS
from tensign.mlmodel import read_mlmodel

log = logging.getLogger(__name__)

CROPS = 200
_FIRST_CONVERTED = ("fastai", "pytorch")  # by serve and predict, unless an engine is asked for
FORMAT = 3  # of what converters write; another number, and every cached model is converted again


def servable(path: Path, *, trust: bool, cache: Path) -> Path:
    """`path` itself, but for a fastai or pytorch model the directory it was converted to.

    Raises UntrustedModel when converting would run the model's code and `trust` is False, and what `convert` raises; where a
    pytorch model cannot be converted and is trusted, its own engine runs it as it is.
    """
    manifest = read_mlmodel(path)
    flavor = next((flavor for flavor in _FIRST_CONVERTED if flavor in manifest.flavors), None)
    if flavor is None or any(flavor in manifest.flavors for flavor in SERVED_FLAVORS):
        return path
    converted = cache / f"{manifest.digest}-{FORMAT}"
    try:
        _once(path, converted, trust=trust)
    except (errors.UnsupportedModel, errors.ParityFailed) as error:
        if flavor == "fastai" or not trust:
            raise
        log.warning("%s; it runs as it is, in a process of its own", error)
        return path
    return converted


def _once(path: Path, converted: Path, *, trust: bool) -> None:
    """Two servers that start at once convert once."""
    if (converted / "MLmodel").exists():
        return
    cache = converted.parent
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{converted.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (converted / "MLmodel").exists():
            for left_over in cache.glob(f".{converted.name}-*"):  # of a converter that was killed
                shutil.rmtree(left_over, ignore_errors=True)
            try:
                convert(path, converted, trust=trust)
            except FileExistsError:  # by a converter that outlived its server
                read_mlmodel(converted)


def convert(source: Path, target: Path, *, trust: bool, crops: int = CROPS, preprocess: Path | None = None) -> str:
    """Runs `python -m tensign_converters` and gives its report back; `target` appears whole or not at all.

    crops: pieces of photographs that the proof tries; preprocess: a YAML file that declares what pictures the network takes.

    Raises UnsupportedModel, UntrustedModel, ParityFailed or an OSError as the child says.
    """
    options = [f"--crops={crops}", *["--trust"] * trust, *[f"--preprocess={preprocess}"] * (preprocess is not None)]
    return str(_asked(source, *options, "--", str(source), str(target)).get("report"))


def described(source: Path, *, trust: bool) -> dict[str, str]:
    """{"inputs": ..., "outputs": ...} of a fastai model as its Learner tells, such as `uint8[-1,300,300,3]`.

    Raises UnsupportedModel, UntrustedModel or an OSError as the child says.
    """
    said = _asked(source, "--describe", *["--trust"] * trust, "--", str(source))
    return {part: str(said.get(part)) for part in ("inputs", "outputs")}


def _asked(source: Path, *arguments: str) -> dict[str, Any]:
    # -P: without it a yaml.py in the current directory, which may be the model's own, would be imported for the real one.
    # -W ignore: warnings of torch and fastai are not our user's to mend.
    command = [sys.executable, "-P", "-W", "ignore", "-m", "tensign_converters", *arguments]
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    lines = child.stdout.strip().splitlines()
    try:
        said = dict(json.loads(lines[-1]))
    except (IndexError, TypeError, ValueError, RecursionError):
        raise errors.UnsupportedModel(
            f"{source}: the converter ended with status {child.returncode} and said nothing"
        ) from None
    if "error" in said:
        raise _error(str(said["error"]), str(said.get("text")))
    return said


def _error(kind: str, text: str) -> Exception:
    """The error that the child names, if it is one of ours or the system's: the child may have run a stranger's code."""
    named = getattr(errors, kind, None) or getattr(builtins, kind, None)
    if isinstance(named, type) and issubclass(named, errors.TensignError | OSError):
        return named(text)
    return OSError(text)
