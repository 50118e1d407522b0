"""Coverage-guided fuzzing of what strangers can send: `python tests/fuzz/run.py [--runs N] [ENTRY...]`, as `make fuzz` does.

Each entry runs in a process of its own under a time limit for each input and one for memory. An error that is none of
tensign's, a hang, too much memory or a dead process ends it with exit code 1, and the input stays under build/fuzz/ENTRY.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ENTRIES = ("codec", "mlmodel", "image")
# Python code whose branches guide the fuzzer.
INSTRUMENTED = ["tensign", "yaml", "PIL"]
SECONDS, MEGABYTES = 10, 2048  # of one input, and of the process

TESTS = Path(__file__).resolve().parents[1]
FOUND = TESTS.parent / "build" / "fuzz"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("entries", nargs="*", metavar="ENTRY", help=", ".join(ENTRIES))
    parser.add_argument("--runs", type=int, default=200_000, help="inputs for each entry")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    os.nice(10)
    return max([run(entry, given.runs, given.seed) for entry in given.entries or ENTRIES])


def run(entry: str, runs: int, seed: int) -> int:
    """Fuzzes one entry, prints a line of figures; 1 where something was found, after the fuzzer's own words."""
    folder = FOUND / entry
    shutil.rmtree(folder / "corpus", ignore_errors=True)
    (folder / "corpus").mkdir(parents=True)
    limits = [f"-runs={runs}", f"-seed={seed}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}"]
    options = [f"-artifact_prefix={folder}/", "-print_final_stats=1", *limits]
    command = [sys.executable, __file__, "--inside", entry, str(folder / "corpus"), *options]
    log = folder / "log"
    with log.open("wb") as output:
        ended = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode
    said = log.read_text(errors="replace")

    def last(name: str) -> str:
        return next(iter(re.findall(rf"{name}: *([0-9]+)", said)[-1:]), "?")

    print(
        f"{entry}: {last('number_of_executed_units')} inputs, {last('cov')} branches covered,"
        f" {last('average_exec_per_sec')} inputs/s, peak {last('peak_rss_mb')} MB,"
        f" slowest {last('slowest_unit_time_sec')} s: {'FOUND' if ended else 'nothing found'}",
        flush=True,
    )
    if ended:
        print(said[-4000:], f"{entry}: ended with status {ended}; the input lies in {folder}", sep="\n", flush=True)
    return int(ended != 0)


def inside(entry: str, corpus: str, *options: str) -> None:
    """In the child: instruments, writes the seeds, hands over to libFuzzer."""
    import atheris

    sys.path.insert(0, str(TESTS))
    with atheris.instrument_imports(include=INSTRUMENTED):
        harness = importlib.import_module(f"fuzz.{entry}")
    for number, seed in enumerate(harness.seeds()):
        (Path(corpus) / f"seed-{number}").write_bytes(seed)
    words = Path(corpus).with_name("words")
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in harness.WORDS))
    arguments = [entry, corpus, f"-dict={words}", f"-max_len={harness.MAX_LENGTH}", *options]
    own = {"custom_mutator": harness.mutate} if hasattr(harness, "mutate") else {}
    atheris.Setup(arguments, harness.enter, **own)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(*sys.argv[2:])
    else:
        sys.exit(main())
