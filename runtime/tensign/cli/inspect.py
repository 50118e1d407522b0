"""tensign inspect: what an MLmodel directory holds, and what tensign makes of it."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from tensign.cli.options import ModelPath, console


def inspect(model: ModelPath, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show what an MLmodel directory holds, and what tensign makes of it."""
    from tensign.inspection import inspected

    facts = inspected(model)
    if as_json:
        print(json.dumps(facts, indent=2, default=str))
        return
    table = Table("", Column(overflow="fold"), box=None, show_header=False)
    for key, value in facts.items():
        table.add_row(f"[bold]{key}", escape(value if isinstance(value, str) else json.dumps(value, default=str)))
    console.print(table)
