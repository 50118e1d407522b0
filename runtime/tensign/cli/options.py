"""What several commands share: their options, the console, how a model is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import platformdirs
import typer
from rich.console import Console

from tensign import conversion
from tensign.config import ACCELERATORS, ENGINES, TF32, ModelConfig
from tensign.errors import InvalidConfig, TensignError
from tensign.ledger import Ledger
from tensign.mlmodel import read_mlmodel
from tensign.model import Model

console = Console()

ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="An MLmodel directory.")]
Device = Annotated[
    str,
    typer.Option(
        envvar="TENSIGN_DEVICE",
        help="auto, cpu, cuda, cuda:N or cuda:N,M for several, by number or by name (GPU-..., MIG-...), which `tensign doctor`"
        " lists; auto is the GPU where there is one.",
    ),
]
Trust = Annotated[bool, typer.Option("--trust", help="Allow the model's own code to run: loading a pickle executes it.")]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        envvar="TENSIGN_ENGINE",
        help=f"Which of the model's flavors to run: auto, {', '.join(ENGINES)}; `tensign inspect` lists them.",
    ),
]
Python = Annotated[
    str,
    typer.Option(
        envvar="TENSIGN_PYTHON",
        metavar="PATH",
        help="The Python of the process that runs the model's own code, where its libraries are; it needs NumPy, not tensign.",
        show_default="this one",
    ),
]
Variant = Annotated[
    str,
    typer.Option(
        envvar="TENSIGN_VARIANT",
        help="fp32; tf32, faster on CUDA; of engines torch and fastai bf16, or on CUDA fp16; or a precision that it was"
        " converted with, which `tensign inspect` lists.",
    ),
]
MaxBatch = Annotated[int, typer.Option(envvar="TENSIGN_MAX_BATCH_SIZE", help="Largest batch that warm-up tries, in rows.")]
CacheDir = Annotated[
    Path,
    typer.Option(envvar="TENSIGN_CACHE_DIR", help="Where converted models are kept.", show_default="the user's cache folder"),
]


def _cache() -> Path:
    try:
        return platformdirs.user_cache_path("tensign") / "models"
    except RuntimeError:  # a user without a home, as in a container: only who converts has to name another folder
        return Path("/nonexistent/tensign/models")


CACHE = _cache()


def load(path: Path, name: str, config: ModelConfig, *, cache: Path, ledger: Ledger | None = None) -> Model:
    """A fastai model is converted first, unless an engine or a variant, which converting needs pictures for, was asked for."""
    try:
        _check_accelerator(config)
        directory = (
            conversion.servable(path, trust=config.trust, cache=cache)
            if config.engine == "auto" and config.variant in ("fp32", TF32)
            else path
        )
        return Model.load(directory, config, name=name or read_mlmodel(path).name, ledger=ledger)
    except TensignError as error:
        raise error if str(path) in str(error) else type(error)(f"{path}: {error}") from None


def _check_accelerator(config: ModelConfig) -> None:
    """Before a conversion, which takes minutes, to what runs on engine onnx alone."""
    engines = ACCELERATORS[config.accelerator] if config.accelerator else ("onnx",)
    if config.engine == "auto" and "onnx" not in engines:
        asked = f"--accelerator {config.accelerator} is of engine {engines[0]}"
        raise InvalidConfig(f"{asked}: add --engine {engines[0]} (and --trust, for it runs the model's own code)")
