"""A network that torchvision's or timm's registry builds by name, without weights, and a state dict's tensors in it."""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from torch import Tensor, nn

from tensign.errors import UnsupportedModel

_NAME = re.compile(r"[a-z]\w{0,99}(\.\w{1,99})?", re.ASCII)  # timm's may have a tag, which decides on its defaults
_FETCHED = {"weights", "weights_backbone", "pretrained", "pretrained_backbone", "pretrained_cfg", "pretrained_cfg_overlay"}
_DENIED = _FETCHED | {"checkpoint_path", "cache_dir", "progress"}
_SHOWN = 3


def fill(tensors: Mapping[str, Tensor], architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The network of that architecture, "torchvision.resnet18" or "timm.resnet18", with these tensors, in evaluation mode.

    Raises UnsupportedModel for an architecture or arguments that its library does not have, and for tensors that do not fit.
    """
    if not architecture:
        raise UnsupportedModel(
            "it holds tensors by name and no network; say of which one they are, as"
            " `architecture: torchvision.resnet18`, or timm's, and its `arguments`, in the file given by --preprocess"
        )
    network = _build(architecture, arguments).eval().requires_grad_(False)
    given = _unwrapped(tensors, network)
    wanted = network.state_dict()
    # What networks that were saved before torch 0.4.1 lack, and batch norms do not use at inference.
    missing = [name for name in wanted if name not in given and not name.endswith(".num_batches_tracked")]
    unexpected = [name for name in given if name not in wanted]
    differing = [
        f"{name} is {list(given[name].shape)}, wanted {list(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    faults = {"lacks": missing, "has besides": unexpected, "differs in size": differing}
    if said := [f"{fault} {_listed(names)}" for fault, names in faults.items() if names]:
        raise UnsupportedModel(f"the state dict does not fit {architecture}{_called(arguments)}: it {'; it '.join(said)}")
    network.load_state_dict(given, strict=False)
    return network


def _build(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    library, _, name = architecture.partition(".")
    if library not in ("torchvision", "timm") or not _NAME.fullmatch(name):
        raise UnsupportedModel(f"architecture {architecture[:100]!a}: wanted torchvision.NAME or timm.NAME")
    for key, value in arguments.items():
        values = value if isinstance(value, list | tuple) else [value]
        plain = all(each is None or isinstance(each, bool | int | float | str) for each in values)
        if key in _DENIED or not plain:
            raise UnsupportedModel(f"argument {key[:60]} of {architecture}: wanted a number, a text or a list of such")
    try:
        models = importlib.import_module("torchvision.models" if library == "torchvision" else "timm")
    except ImportError:
        raise UnsupportedModel(f"{architecture} takes a package that is not installed: pip install {library}") from None
    if not (name in models.list_models() if library == "torchvision" else models.is_model(name)):
        raise UnsupportedModel(f"{library} {version(library)} has no {name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how slowly some draw the weights that are replaced
        try:
            if library == "timm":
                return _network(models.create_model(name, pretrained=False, **arguments))
            builder = models.get_model_builder(name)
            backbone = {"weights_backbone": None} if "weights_backbone" in inspect.signature(builder).parameters else {}
            return _network(builder(weights=None, **backbone, **arguments))
        except Exception as error:  # whatever a constructor makes of its arguments
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise UnsupportedModel(f"{architecture}{_called(arguments)} cannot be built: {reason}") from None


def _network(built: Any) -> nn.Module:
    if isinstance(built, nn.Module):
        return built
    raise TypeError(f"it gave a {type(built).__name__}")


def _unwrapped(tensors: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Without the names of what held the network when it was saved: "module.", "_orig_mod.", "model."."""
    given = dict(tensors)
    own = {name for name, _ in network.named_children()}
    while given and len(heads := {name.partition(".")[0] for name in given}) == 1 and not heads & own:
        (head,) = heads
        if any("." not in name for name in given):
            break
        given = {name.removeprefix(f"{head}."): tensor for name, tensor in given.items()}
    return given


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(name[:100] for name in names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _called(arguments: Mapping[str, Any]) -> str:
    return f" with {dict(arguments)}"[:200] if arguments else ""
