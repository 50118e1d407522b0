"""tensign inspect: what an MLmodel directory holds, and what tensign makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from tensign.cli.options import ModelPath, console


def inspect(model: ModelPath, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show what an MLmodel directory holds, and what tensign makes of it."""
    from tensign.inspection import inspected

    facts = inspected(model)
    if as_json:
        print(json.dumps(facts, indent=2, default=str))
        return
    table = Table(Column(style="bold", no_wrap=True), Column(overflow="fold"), box=None, show_header=False, pad_edge=False)
    for key, value in facts.items():
        table.add_row(key, Text("\n".join(_lines(value))))
    console.print(table)


def _lines(value: Any) -> Iterator[str]:
    """A fact in lines: maps by key, lists by entry, what is deeper as JSON."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{key}: {_flat(inner)}"
    elif isinstance(value, list) and all(isinstance(entry, dict) and "name" in entry for entry in value):
        for entry in value:
            yield f"{entry['name']}: {', '.join(_said(key, inner) for key, inner in entry.items() if key != 'name')}"
    else:
        yield _flat(value)


def _said(key: str, value: Any) -> str:
    if key == "required":
        return "required" if value else "optional"
    return f"default {_flat(value)}" if key == "default" else str(value)


def _flat(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
