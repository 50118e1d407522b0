"""`python -m tensign_converters SRC DST [--trust] [--weights fp16]`: prints one line of JSON, the report or the error.

With `--describe` and no DST, that line tells the inputs and outputs of the Learner.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import traceback
from pathlib import Path

from tensign.errors import TensignError
from tensign_converters.convert import convert, describe


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]


def main() -> int:
    parser = argparse.ArgumentParser(prog="tensign_converters", description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path, nargs="?")
    parser.add_argument("--describe", action="store_true")
    parser.add_argument("--trust", action="store_true")
    parser.add_argument("--weights", default="fp32")
    given = parser.parse_args()
    if given.describe == (given.target is not None):
        parser.error("give DST, or --describe")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what libraries, or the model's own code, print
            if given.describe:
                said = describe(given.source, trust=given.trust)
            else:
                said = {"report": convert(given.source, given.target, trust=given.trust, weights=given.weights)}
    except (TensignError, OSError) as error:
        said = {"error": type(error).__name__, "text": str(error)}
    except Exception as error:  # torch, fastai, onnx and the model's own code raise anything
        traceback.print_exc()
        said = {"error": "UnsupportedModel", "text": f"{given.source}: {type(error).__name__}: {_first_line(error)}"}
    print(json.dumps(said))
    return 2 if "error" in said else 0


if __name__ == "__main__":
    sys.exit(main())
