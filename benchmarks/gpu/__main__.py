"""`python benchmarks/gpu`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu.campaign import main

if __name__ == "__main__":
    sys.exit(main())
