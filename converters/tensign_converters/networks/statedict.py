"""A bare state dict, as records or from safetensors -> its tensors, by name."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from torch import Tensor

from tensign.errors import UnsupportedModel
from tensign_converters.pickles.allowed import today
from tensign_converters.pickles.records import Entries, Record
from tensign_converters.pickles.tensors import is_tensor, tensor

_HELD = ("state_dict", "model_state_dict", "model", "network", "net", "weights", "params")  # where checkpoints keep it


def state_dict(root: Any) -> dict[str, Tensor] | None:
    """The tensors of a state dict, by name, also where a checkpoint keeps it beside other things; None for what is neither.

    Raises UnsupportedModel for tensors that are not there.
    """
    found = dict(pairs(root))
    for name in _HELD:
        if name in found and (inner := dict(pairs(found[name]))) and all(map(is_tensor, inner.values())):
            found = inner
            break
    if not found or not all(is_tensor(value) for value in found.values()):
        return None
    return {name: tensor(value).detach() for name, value in found.items()}


def pairs(value: Any) -> list[tuple[str, Any]]:
    """The entries of a recorded dict, ordered or not, that have text for a key; none for anything else."""
    given: list[Any] = []
    if isinstance(value, Entries):
        given = value.pairs
    elif isinstance(value, Record) and today(value.path) in ("collections.OrderedDict", "collections.defaultdict"):
        first = value.args[0] if value.args and isinstance(value.args[0], list) else []
        given = [*(pair for pair in first if isinstance(pair, list | tuple) and len(pair) == 2), *value.entries]
    return [(name, each) for name, each in given if isinstance(name, str)]


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name. Raises UnsupportedModel where it is broken."""
    try:
        torch_files = importlib.import_module("safetensors.torch")
    except ImportError:
        raise UnsupportedModel("a safetensors file, which takes a package to read: pip install safetensors") from None
    try:
        return dict(torch_files.load_file(file, device="cpu"))
    except Exception as error:  # the package raises its own and torch's
        raise UnsupportedModel(f"a broken safetensors file: {str(error)[:200]}") from None
