"""tensign verify: a converted model against the answers that its original gave, here and now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tensign.cli.checks import writable
from tensign.cli.options import Device, Variant
from tensign.config import ModelConfig
from tensign.proof import report
from tensign.proof.verification import verify as verified


def verify(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An MLmodel directory that tensign converted.")],
    device: Device = "auto",
    variant: Variant = "fp32",
    page: Annotated[
        Path | None, typer.Option("--report", metavar="HTML", help="Write what came of it as a page with pictures.")
    ] = None,
) -> None:
    """Run a converted model on the rows it was proved with: no file changed, every answer still its original's.

    Needs neither the original nor torch; ends with status 2 where something differs.
    """
    if page:
        report.check()
        writable("--report", page)
    found = verified(model, ModelConfig(device=device, variant=variant))
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"{model} on {found.device}: {found.parity}")
    if held := found.record.proofs[variant].held:
        console.print(
            f"judged when it was converted: {held}; here the rows that are kept differ about as much as then, or than they may"
        )
    console.print(f"held against: {found.record.against}")
    console.print(f"not checked: {'; '.join(found.record.unchecked)}")
    if page:
        page.write_text(report.page(model, found.record, found.parity), encoding="utf-8")
        console.print(f"report: {page}")
