"""What is refused before anything is measured: numbers, options that cannot apply, files that cannot be written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from tensign.errors import InvalidConfig

MOST = 1_000_000.0  # seconds, or requests/s


def number(option: str, value: float, *, zero: bool = False) -> float:
    """`value`, a number above 0, or where `zero`, 0. Raises InvalidConfig, for NaN too."""
    if (0 < value <= MOST) or (zero and value == 0):
        return value
    raise InvalidConfig(f"{option}: wanted {'0' if zero else 'more than 0'} to {MOST:,.0f}, got {value:g}")


def numbers(option: str, text: str, *, whole: bool = False) -> list[float]:
    """Those between the commas. Raises InvalidConfig."""
    try:
        found = [float(int(part) if whole else float(part)) for part in text.split(",")]
    except ValueError:
        kind = "whole numbers" if whole else "numbers"
        raise InvalidConfig(f"{option}: wanted {kind} with commas between them, got {text}") from None
    return [number(option, value) for value in found]


def typed(context: typer.Context) -> dict[str, str]:
    """{parameter: option} of what stands in the command line; not what the environment gave."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    names = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    return {name: names[name] for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def refuse(given: dict[str, str], names: Iterable[str], because: str) -> None:
    """Raises InvalidConfig where one of the parameters `names` was typed."""
    if found := [given[name] for name in names if name in given]:
        raise InvalidConfig(f"{', '.join(found)}: cannot apply {because}")


def writable(option: str, file: Path) -> None:
    """Raises InvalidConfig where `file` cannot be written; leaves it as it is."""
    there = file.exists()
    try:
        file.open("ab").close()
    except OSError as error:
        raise InvalidConfig(f"{option}: {file}: {error.strerror}") from None
    if not there:
        file.unlink()
