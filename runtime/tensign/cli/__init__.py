"""The `tensign` command. Options win over TENSIGN_* variables, those over defaults; resolved here and nowhere else."""

from __future__ import annotations

import logging
import signal
import sys
from typing import Annotated

import typer

from tensign.cli.bench import bench
from tensign.cli.convert import convert
from tensign.cli.demo import demo
from tensign.cli.doctor import doctor
from tensign.cli.inspect import inspect
from tensign.cli.predict import predict
from tensign.cli.serve import serve
from tensign.cli.sign import sign
from tensign.cli.verify import verify
from tensign.errors import TensignError
from tensign.version import __version__

app = typer.Typer(
    name="tensign",
    help="Serves MLflow MLmodel directories of vision models over gRPC, driven by their tensor signature.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (serve, inspect, predict, convert, verify, sign, demo, bench, doctor):
    app.command()(command)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not at once: a converter is ended too
    if show:
        print(f"tensign {__version__}")
        raise typer.Exit


def main() -> None:
    """Errors of ours, and the system's, are one line on stderr and exit code 2; anything else is a bug and shows its trace."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        app()
    except (TensignError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
