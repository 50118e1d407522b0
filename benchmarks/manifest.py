"""What reading an MLmodel costs, signature included, beside PyYAML's safe_load alone and beside MLflow's own Model.load.

    python benchmarks/manifest.py            # seconds; the best of many rounds, ms

Files: the bundled model's, those beside the checkout (shared/seeds, shared/fixtures), and a made-up one of 1000 columns.
The target is 5 ms for each file that MLflow wrote.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from mlflow.models import Model

from tensign.demo import MODEL
from tensign.mlmodel import read_mlmodel

ROUNDS = 30
SHARED = Path(__file__).resolve().parents[2] / "shared"


def best_ms(call: Callable[[], object]) -> float:
    took = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        call()
        took.append(time.perf_counter() - started)
    return min(took) * 1000


def wide(folder: Path, columns: int) -> Path:
    """A directory whose MLmodel has so many columns, written by MLflow."""
    specs = [{"type": "double", "name": f"column-{number}", "required": True} for number in range(columns)]
    model = Model.from_dict({"flavors": {"sklearn": {}}, "signature": {"inputs": json.dumps(specs)}})
    path = folder / f"{columns} columns"
    path.mkdir()
    model.save(path / "MLmodel")
    return path


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = sorted(file.parent for file in SHARED.glob("*/**/MLmodel"))
        print(f"{'':30} {'bytes':>6} {'tensign':>8} {'safe_load':>10} {'MLflow':>8}  MLflow / tensign")
        for path in [MODEL, *found, wide(Path(folder), 1000)]:
            text = (path / "MLmodel").read_text()
            ours = best_ms(lambda path=path: read_mlmodel(path).signature)  # type: ignore[misc]
            plain = best_ms(lambda text=text: yaml.safe_load(text))  # type: ignore[misc]
            theirs = best_ms(lambda path=path: Model.load(path))  # type: ignore[misc]
            print(f"{path.name:30} {len(text):6} {ours:8.2f} {plain:10.2f} {theirs:8.2f}  {theirs / ours:.1f}")


if __name__ == "__main__":
    main()
