"""tensign convert: an MLmodel directory with graph, preprocessing and proof."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tensign import conversion
from tensign.cli.options import Trust


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="An MLmodel directory, or a bare ONNX or PyTorch file.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The directory to write; must not exist.")],
    trust: Trust = False,
    preprocess: Annotated[
        Path | None, typer.Option(metavar="YAML", help="What pictures the network takes, where its file does not say it.")
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="Written beside fp32 and proved: fp16, int8; may be given twice.", show_default=False),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Pictures like those to come: int8 is calibrated on most, variants are judged on the rest."
        ),
    ] = None,
    crops: Annotated[
        int, typer.Option(min=0, max=conversion.MOST_CROPS, help="Pieces of photographs that the proof tries.")
    ] = conversion.CROPS,
) -> None:
    """Turn a model into an MLmodel directory with graph, preprocessing and proof, which MLflow opens too."""
    report = conversion.convert(
        source, target, trust=trust, crops=crops, preprocess=preprocess, variants=variant or (), calibrate=calibrate
    )
    print(report)
