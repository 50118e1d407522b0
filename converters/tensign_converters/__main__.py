"""`python -m tensign_converters SRC DST [--trust] [--preprocess YAML]`: prints one line of JSON, the report or the error.

With `--describe` and no DST, that line tells the inputs and outputs of the Learner.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tensign.conversion import CROPS
from tensign_converters.confined import said
from tensign_converters.convert import convert, describe


def main() -> int:
    parser = argparse.ArgumentParser(prog="tensign_converters", description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path, nargs="?")
    parser.add_argument("--describe", action="store_true")
    parser.add_argument("--crops", type=int, default=CROPS)
    parser.add_argument("--preprocess", type=Path)
    parser.add_argument("--trust", action="store_true")
    given = parser.parse_args()
    if given.describe == (given.target is not None):
        parser.error("give DST, or --describe")

    def act() -> dict[str, str]:
        if given.describe:
            return describe(given.source, trust=given.trust)
        return {
            "report": convert(given.source, given.target, trust=given.trust, crops=given.crops, preprocess=given.preprocess)
        }

    answer = said(given.source, act)
    print(json.dumps(answer))
    return 2 if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main())
