"""Originals, loaded by torch itself, which runs whatever code their files hold: only where the operator trusts them."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tensign.errors import UnsupportedModel
from tensign_converters.pickles.archive import MAGIC

_CODE = (
    "its code has to be importable here: install the package it comes from, or put its directory on PYTHONPATH; a code/"
    " directory that an MLmodel names is found by itself"
)

_ROWS = (1, 2, 3)  # that a TorchScript is tried on


def load_pickle(file: Path) -> nn.Module:
    """A whole module that torch.save or pickle wrote. Raises UnsupportedModel where it cannot be loaded or is none."""

    def load() -> Any:
        with file.open("rb") as stream:
            if stream.read(2) != b"PK":
                stream.seek(0)
                if (found := pickle.load(stream)) != MAGIC:
                    return found
        return torch.load(file, map_location="cpu", weights_only=False)

    return _module(_loaded(load))


def load_program(file: Path) -> nn.Module:
    """What torch.export.save wrote. Raises UnsupportedModel where it cannot be loaded."""
    return _module(_loaded(lambda: _unlifted(torch.export.load(file))))


def load_scripted(file: Path) -> nn.Module:
    """What torch.jit.save wrote. Raises UnsupportedModel where it cannot be loaded."""
    return _module(_loaded(lambda: torch.jit.load(file, map_location="cpu")))  # type: ignore[no-untyped-call]


def unscripted(module: nn.Module, examples: tuple[Tensor, ...]) -> nn.Module:
    """A scripted or traced module as one that torch.export follows, for tensors like the examples, any number of rows.

    Raises UnsupportedModel for what has no counterpart there, and for what was traced for so many rows and no others.
    """
    _check_rows(module, examples)
    from torch._export.converter import TS2EPConverter  # private, and what torch.export's own refusal of such modules names

    def convert() -> nn.Module:
        return _unlifted(TS2EPConverter(module, examples).convert())  # type: ignore[arg-type]

    return _module(_loaded(convert, "followed by torch.export"))


def _check_rows(module: nn.Module, examples: tuple[Tensor, ...]) -> None:
    fits, reason = [], ""
    for rows in _ROWS:
        given = [example[:1].repeat(rows, *[1] * (example.dim() - 1)) for example in examples]
        try:
            with torch.no_grad():
                answers = tree_leaves(module(*given))
        except Exception as error:  # the file's own code
            reason = f": {str(error).strip().splitlines()[-1][:200]}"
        else:
            fits += [rows] * all(answer.shape[:1] == (rows,) for answer in answers if isinstance(answer, Tensor))
    if not fits:
        shapes = ", ".join(f"{list(example.shape[1:])}" for example in examples)
        raise UnsupportedModel(f"it gives no answer for each of {_ROWS[0]} to {_ROWS[-1]} rows of {shapes}{reason}")
    if len(fits) < len(_ROWS):
        answered = ", ".join(map(str, fits))
        raise UnsupportedModel(
            f"of {_ROWS[0]} to {_ROWS[-1]} rows it answers {answered} alone: tracing wrote that number into it, as it does with"
            " int(x.shape[0]); save what torch.export makes of the network, with a dynamic batch axis, in its place"
        )


def _unlifted(program: torch.export.ExportedProgram) -> nn.Module:
    module = program.module()
    for name in ("train", "eval"):  # which only raise: it is in the mode in which it was exported
        module.__dict__.pop(name, None)
    return module


def _module(found: Any) -> nn.Module:
    if not isinstance(found, nn.Module):
        raise UnsupportedModel(f"wanted a network, got {type(found).__name__}")
    for parameter in found.parameters():
        parameter.requires_grad_(False)
    return found.eval()


def _loaded(load: Callable[[], Any], done: str = "loaded") -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of older versions, and of what torch would rather be given
        try:
            return load()
        except UnsupportedModel:
            raise
        except Exception as error:  # the file's own code, and torch's, raise anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            missing = isinstance(error, ModuleNotFoundError) or "Can't get attribute" in reason
            raise UnsupportedModel(f"it cannot be {done}: {reason}{f'; {_CODE}' if missing else ''}") from error
