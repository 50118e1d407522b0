"""Everything that one machine with a GPU can show, in one command.

    python benchmarks/gpu [--device cuda:0|cpu] [--only STEP] [--minutes 9] [--out FOLDER]

Steps, each in a process of its own with its share of the time: networks (made once), correctness, ceilings, inprocess,
decode, served, memory. What is not installed is skipped by name. Writes gpu-DEVICE.json, .md and .png into
benchmarks/results; of a step that is run alone only its part is renewed. `--device cpu` shows that all of it runs, and nothing
of a GPU: into results/scratch. Ends with status 1 where a figure was missed or a step failed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu import device, judgement, report
from gpu.step import Document, Task, fill, outcome, writer

RESULTS = Path(__file__).resolve().parents[1] / "results"
SCRATCH = RESULTS / "scratch" / "gpu"
STEPS = {
    "networks": 60,
    "correctness": 105,
    "ceilings": 15,
    "inprocess": 150,
    "decode": 15,
    "served": 155,
    "memory": 40,
}  # shares of the time
_REPORT_S = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python benchmarks/gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu: shows that it runs")
    parser.add_argument("--only", choices=STEPS, metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--minutes", type=float, default=9.0, help="for all of it")
    parser.add_argument("--out", type=Path, help="a folder; else benchmarks/results, for the CPU results/scratch")
    parser.add_argument("--child", nargs=2, metavar=("FILE", "SECONDS"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if not re.fullmatch(r"cpu|cuda:\d+", given.device):
        parser.error(f"--device: wanted cpu or cuda:N, got {given.device}")
    if given.child:
        file, seconds = given.child
        task = Task(given.device, time.monotonic() + float(seconds), SCRATCH)
        fill(importlib.import_module(f"gpu.{given.only}").cells(task), task.until, writer(Path(file)))
        return 0
    return _run(given)


def _run(given: argparse.Namespace) -> int:
    until = time.monotonic() + given.minutes * 60 - _REPORT_S
    folder = given.out or (RESULTS if given.device != "cpu" else RESULTS / "scratch")
    for each in (folder, SCRATCH):
        each.mkdir(parents=True, exist_ok=True)
    here = device.described()
    print(device.headline(here), flush=True)
    name = device.name(here, given.device)
    file = folder / f"gpu-{name}.json"
    document = _kept(file, here) or {"made": "", "on": given.device, "device": here, "steps": {}}
    left = [given.only] if given.only else list(STEPS)
    while left:
        step, seconds = left[0], share(until - time.monotonic(), left)
        command = [sys.executable, str(Path(__file__).parent), "--device", given.device, "--only", step]
        result = outcome([*command, "--child", str(SCRATCH / f"{step}.json"), str(seconds)], SCRATCH / f"{step}.json", seconds)
        document["steps"][step] = result
        document["made"] = time.strftime("%Y-%m-%d %H:%M")
        print(f"\n{step}: {result['seconds']:.0f} of {seconds:.0f} s {result['ended']}")
        for line in report.lines(result["cells"]):
            print(f"  {line}", flush=True)
        file.write_text(json.dumps(document, indent=1) + "\n")  # before it is judged: measuring it was dear
        left.pop(0)
    document["figures"] = judgement.figures(document)
    file.write_text(json.dumps(document, indent=1) + "\n")
    print("\n" + "\n".join(report.verdicts(document)))
    for written in report.write(document, file):
        print(f"written: {written}")
    failed = any(document["steps"][step]["ended"] for step in ([given.only] if given.only else STEPS))
    return int(failed or any(figure["verdict"] == "missed" for figure in document["figures"]))


def share(left_s: float, steps: Sequence[str]) -> float:
    """Seconds for the first of the steps that are left: its share of the time that is left, so that what one saves is for the
    others."""
    return max(left_s, 0.0) * STEPS[steps[0]] / sum(STEPS[step] for step in steps)


def _kept(file: Path, here: Document) -> Document | None:
    """An earlier run's, where it was made on the same machine with the same versions."""
    try:
        document: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return document if document.get("device") == here else None
