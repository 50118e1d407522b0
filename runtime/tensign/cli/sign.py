"""tensign sign: gives an MLmodel directory the signature that it lacks, or another one."""

from __future__ import annotations

from typing import Annotated

import typer

from tensign.cli.options import ModelPath, Trust

Spec = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME:]TYPE",
        help="uint8[-1,300,300,3] or image:float32[-1,3,64,64] is a tensor; age:long a column, note?:string one that may be"
        " left out. Again for each, or with commas between them; -1 is any length.",
    ),
]


def sign(
    model: ModelPath,
    input: Spec = None,
    output: Annotated[list[str] | None, typer.Option(metavar="[NAME:]TYPE", help="As --input.")] = None,
    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME:TYPE=DEFAULT", help="threshold:double=0.5, or stop:string[]=[] a list.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a signature that is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the MLmodel that it would write.")] = False,
    trust: Trust = False,
) -> None:
    """Write a signature into a model's MLmodel file; what is not given is kept, else inferred from the model.

    Inferred from an ONNX graph; from a fastai Learner; or, the inputs alone, from the input example that was
    saved with the model.
    """
    from tensign.signing import sign as write

    signed = write(
        model,
        inputs=input or (),
        outputs=output or (),
        params=param or (),
        force=force,
        trust=trust,
        dry_run=dry_run,
    )
    if dry_run:
        print(signed.text, end="")
        return
    for part, line in signed.lines():
        print(f"{part}: {line} ({signed.origins[part]})")
    if "outputs" not in signed.parts:
        print("outputs: none are known; give --output to have answers checked")
    if not signed.changed:
        print("nothing to do: that is its signature")
