"""`python -m tensign_converters.confined`: one conversion, shut in, since a stranger's file is read, and maybe run, here."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tensign import errors
from tensign_converters.confinement import confine, end_with_parent

_KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
_SECONDS = 1800
_MEMORY = 12 << 30  # and three times the model's files


def run(job: dict[str, Any], readable: Sequence[Path], *writable: Path) -> dict[str, Any]:
    """Has a confined process do `job`, "convert", "describe" or "beside" and the arguments of that, and gives what it said.

    readable: the source, and what else it may read.

    Raises the TensignError that it names, or UnsupportedModel where it ended without a word.
    """
    source = readable[0]
    files = [file for place in readable for file in (place, *place.rglob("*")) if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        variables = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith("PYTHON")}
        variables |= {"HOME": scratch, "TMPDIR": scratch, "PYTHONUSERBASE": site.getuserbase(), "CUDA_VISIBLE_DEVICES": ""}
        variables["MPLCONFIGDIR"] = scratch
        if "PYTHONPATH" in variables:
            variables["PYTHONPATH"] = absolute(variables["PYTHONPATH"])
        for fonts in Path("~/.cache/matplotlib").expanduser().glob("fontlist*.json"):  # which take a second to find again
            with contextlib.suppress(OSError):
                shutil.copy(fonts, scratch)
        places = {"readable": [*map(str, readable)], "writable": [*map(str, writable), scratch], "memory": _MEMORY + 3 * size}
        command = [sys.executable, "-P", *(f"-W{option}" for option in sys.warnoptions), "-m", "tensign_converters.confined"]
        try:
            done = subprocess.run(
                command,
                input=json.dumps({"job": job, "parent": os.getpid(), **places}),
                stdout=subprocess.PIPE,
                text=True,
                errors="replace",
                env=variables,
                cwd=scratch,
                timeout=_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise errors.UnsupportedModel(f"{source}: not converted within {_SECONDS} s") from None
    try:
        answer = dict(json.loads(done.stdout.strip().splitlines()[-1]))
    except (IndexError, TypeError, ValueError, RecursionError):
        ended = f"ended with status {done.returncode} and said nothing; it may have wanted more memory than it may have"
        raise errors.UnsupportedModel(f"{source}: the confined converter {ended}") from None
    if "error" in answer:
        kind = getattr(errors, str(answer["error"]), None)
        if isinstance(kind, type) and issubclass(kind, errors.TensignError):
            raise kind(str(answer.get("text")))
        raise errors.UnsupportedModel(str(answer.get("text")))
    return answer


def absolute(places: str) -> str:
    """Of a PYTHONPATH, for a process that starts elsewhere; without empty entries, which are the current directory."""
    return os.pathsep.join(os.path.abspath(place) for place in places.split(os.pathsep) if place)


def said(source: object, act: Callable[[], dict[str, str]]) -> dict[str, str]:
    """What `act` reports, or the error it raises, as what is printed; its own prints go to stderr."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what libraries, or the model's own code, print
            return act()
    except (errors.TensignError, OSError) as error:
        return {"error": type(error).__name__, "text": str(error)}
    except Exception as error:  # torch, fastai, onnx and the model's own code raise anything
        traceback.print_exc()
        line = str(error).strip().partition("\n")[0][:300]
        return {"error": "UnsupportedModel", "text": f"{source}: {type(error).__name__}: {line}"}


def main() -> None:
    end_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: whoever started it hears it as well, and ends it
    asked = json.load(sys.stdin)
    if os.getppid() != asked["parent"]:
        return
    gc.disable()  # of what libraries and the exporter make nearly all stays: to look through it takes a sixth of the time
    held = confine([Path(path) for path in asked["readable"]], [Path(path) for path in asked["writable"]], asked["memory"])
    from tensign_converters.convert import (
        beside_here,
        convert_here,
        describe_here,
    )  # and with it all that is heavy, or starts threads

    job = asked["job"]
    acts: dict[str, Callable[..., dict[str, str]]] = {"convert": convert_here, "describe": describe_here, "beside": beside_here}
    act = acts[job.pop("do")]
    print(json.dumps(said(job["source"], lambda: act(**job, confinement=str(held)))), flush=True)
    sys.stderr.flush()
    os._exit(0)  # torch takes two seconds to be taken down, and nothing is left that anybody waits for


if __name__ == "__main__":
    main()
