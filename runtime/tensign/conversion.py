"""Converts what cannot be served as it is, once, in a child process, into a cache keyed by the content's digest and by trust.

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensign import errors
from tensign.choice import FIRST_CONVERTED, SERVED_FLAVORS
from tensign.mlmodel import read_mlmodel

log = logging.getLogger(__name__)

CROPS, MOST_CROPS = 200, 100_000
FORMAT = 4  # of what converters write; another number, and every cached model is converted again


def servable(path: Path, *, trust: bool, cache: Path) -> Path:
    """`path` itself, but for a fastai or pytorch model the directory it was converted to.

    Raises UntrustedModel when converting would run the model's code and `trust` is False, and what `convert` raises; where a
    pytorch model cannot be converted and is trusted, its own engine runs it as it is, and a file in the cache says why.
    """
    manifest = read_mlmodel(path)
    flavor = next((flavor for flavor in FIRST_CONVERTED if flavor in manifest.flavors), None)
    if flavor is None or any(flavor in manifest.flavors for flavor in SERVED_FLAVORS):
        return path
    # What a stranger's code made is for those alone who trust it. The words stand in this order since `.{one}-*` is no other's.
    converted = cache / f"{manifest.digest}-{'trusted-' if trust else ''}{FORMAT}"
    if flavor == "fastai" or not trust:
        _once(path, converted, trust=trust)
        return converted
    refusal = cache / f"{converted.name}.refused"
    try:
        _once(path, converted, trust=trust, refusal=refusal)
    except errors.UnsupportedModel as error:
        log.warning("%s; it runs as it is, in a process of its own; to try again, delete %s", error, refusal)
        return path
    return converted


def _once(path: Path, converted: Path, *, trust: bool, refusal: Path | None = None) -> None:
    """Two servers that start at once convert once. refusal: where that it cannot be is remembered, and read."""
    if _settled(converted, refusal):
        return
    cache = converted.parent
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{converted.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _settled(converted, refusal):
            for left_over in cache.glob(f".{converted.name}-*"):  # of a converter that was killed
                shutil.rmtree(left_over, ignore_errors=True)
            try:
                convert(path, converted, trust=trust)
            except FileExistsError:  # by a converter that outlived its server
                read_mlmodel(converted)
            except errors.UnsupportedModel as error:
                if refusal:
                    refusal.write_text(json.dumps({"error": type(error).__name__, "text": str(error)}), encoding="utf-8")
                raise


def _settled(converted: Path, refusal: Path | None) -> bool:
    """Whether it has been converted; raises the error that is remembered of it."""
    if (converted / "MLmodel").exists():
        return True
    if refusal is None:
        return False
    try:
        said = json.loads(refusal.read_text(encoding="utf-8"))
        error = _error(str(said["error"]), str(said["text"]))
    except (OSError, KeyError, TypeError, ValueError):  # none, or one of a server that was killed while it wrote
        return False
    raise error


def convert(
    source: Path,
    target: Path,
    *,
    trust: bool,
    crops: int = CROPS,
    preprocess: Path | None = None,
    variants: Sequence[str] = (),
    calibrate: Path | None = None,
) -> str:
    """Runs `python -m tensign_converters` and gives its report back; `target` appears whole or not at all.

    crops: pieces of photographs that the proof tries; preprocess: a YAML file that declares what pictures the network takes;
    variants: "fp16", "int8", written beside fp32; calibrate: a folder of pictures for the latter.

    Raises UnsupportedModel, UntrustedModel, ParityFailed, InvalidConfig or an OSError as the child says.
    """
    options = [f"--crops={crops}", *["--trust"] * trust, *(f"--variant={variant}" for variant in variants)]
    options += [f"--{name}={file}" for name, file in (("preprocess", preprocess), ("calibrate", calibrate)) if file is not None]
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
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            lines = child.communicate()[0].strip().splitlines()
        except BaseException:  # a signal; killed, it would leave what it has begun
            child.terminate()
            child.wait()
            raise
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
