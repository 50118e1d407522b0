"""A live fastai Learner, or torch module, -> Subject, by way of a copy of it on the CPU: it stays as it was itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from tensign.errors import InvalidConfig, InvalidInput, UnsupportedModel
from tensign.notation import parse_specs
from tensign.signature import Signature
from tensign_converters.convert import ANY_SIZE
from tensign_converters.declared.declaration import Declaration
from tensign_converters.learners.learned import Learned, learn
from tensign_converters.learners.learner import record, versions
from tensign_converters.learners.transforms import preprocessing
from tensign_converters.networks.module import pictures_subject
from tensign_converters.networks.network import Network
from tensign_converters.source import picture_size
from tensign_converters.subject import Subject

AGAINST = "a copy of the live {}, on the CPU and in single precision"
_STAGES = ("after_item", "before_batch", "after_batch")
_WRAPPED = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}

T = TypeVar("T")


def learner_subject(learner: Any, signature: Signature | None) -> Subject:
    """signature: None where the Learner is to tell it.

    Raises InvalidInput for what is no Learner, UnsupportedModel for the part of one that cannot be converted, and where the
    signature promises something else.
    """
    found = learned(learner, picture_size(signature) if signature else None)
    if signature:
        found.check(signature)
    else:
        signature = Signature.parse({part: parse_specs(text) for part, text in found.described().items()})
    return found.subject(signature)


def module_subject(module: Any, preprocess: Path | Mapping[str, Any], signature: Signature | None) -> Subject:
    """preprocess: a YAML file that declares what pictures it takes, or the map that such a file holds; signature: of the module
    itself, one tensor in and one out.

    Raises InvalidConfig where the declaration is wrong, UnsupportedModel for a module that cannot be converted or does not take
    such pictures.
    """
    declared = Declaration.parse(preprocess, Path()) if isinstance(preprocess, Mapping) else Declaration.read(Path(preprocess))
    if declared.architecture:
        raise InvalidConfig("architecture: is for weights alone, and here is a module")
    copied = _network("module", module)
    kind = "torchscript" if isinstance(copied, torch.jit.ScriptModule) else "module"
    found = pictures_subject(Network(copied, kind, True, {"torch": str(torch.__version__)}), signature, declared)
    return replace(found, against=AGAINST.format("module") + ", on the declared preprocessing")


def learned(learner: Any, size: tuple[int, int] | None) -> Learned:
    """Its network, preprocessing and head. size: height and width in the signature, None where the Learner is to tell it."""
    if not all(hasattr(learner, part) for part in ("model", "dls", "loss_func", "get_preds")):
        raise InvalidInput(f"wanted a fastai Learner, got {type(learner).__module__}.{type(learner).__qualname__}")
    valid = _copied("Learner's data loader", _own_transforms, learner.dls.valid)
    twin = _twin(learner, valid)
    recording = record(twin, versions())
    if size is None:
        kind = recording.types[0] if recording.types else ""
        steps = preprocessing(kind, recording.item_transforms, (), ANY_SIZE)
        size = steps.size if steps.item_steps else _size(valid)
    names = ", ".join(type(each).__name__ for each in twin.cbs)
    against = AGAINST.format("Learner") + (f", with its callbacks {names}" if names else "")
    return replace(learn(recording, size), against=against)


def _twin(learner: Any, valid: Any) -> Any:
    """A Learner that predicts as `learner` does, shares nothing with it that predicting changes, and holds no data."""
    twin = copy.copy(learner)
    for each in learner.cbs:
        vars(twin).pop(each.name, None)
    network = _network("Learner's network", learner.model)
    loaders = copy.copy(learner.dls)
    emptied = _copied("Learner's data loader", lambda loader: copy.deepcopy(loader.new(loader.dataset.new_empty())), valid)
    loaders.loaders = [emptied, emptied]
    vars(twin).update(model=network, dls=loaders.cpu(), opt=None, training=False, cbs=type(learner.cbs)())
    return twin.add_cbs([copy.copy(each) for each in learner.cbs if _acts(each)])


def _acts(callback: Any) -> bool:
    """Whether a callback may change what is predicted: fastai's own change precision and speed."""
    stranger = not type(callback).__module__.startswith("fastai.")
    changes = ("before_batch", "after_pred")
    return bool(callback.run_valid) and any(
        event in vars(callback) or (stranger and hasattr(callback, event)) for event in changes
    )


def _network(part: str, model: Any) -> nn.Module:
    """A copy on the CPU, in single precision and evaluation mode, without what spreads it over devices or compiles it."""
    while (inner := getattr(model, _WRAPPED.get(type(model).__name__, ""), None)) is not None:
        model = inner
    if not isinstance(model, nn.Module):
        raise InvalidInput(f"the {part}: wanted a torch module, got {type(model).__module__}.{type(model).__qualname__}")
    copied: nn.Module = _copied(part, copy.deepcopy, model)
    return copied.cpu().float().eval()


def _own_transforms(loader: Any) -> Any:
    """The loader over the same data, with transforms of its own."""
    own = copy.copy(loader)
    for stage in _STAGES:
        setattr(own, stage, copy.deepcopy(getattr(loader, stage)))
    return own


def _copied(part: str, copied: Callable[[Any], T], original: Any) -> T:
    try:
        return copied(original)
    except Exception as error:  # a user's own classes raise anything
        reason = " ".join(str(error).split())[:200]
        raise UnsupportedModel(f"the {part} cannot be copied: {type(error).__name__}: {reason}") from error


def _size(loader: Any) -> tuple[int, int]:
    """Height and width of its first picture, as the item transforms leave it."""
    try:
        picture, *_ = loader.do_item(0)
        height, width = picture.shape[-2:]
    except Exception as error:  # no data any more, files that are gone, a user's own transforms
        raise UnsupportedModel(
            "the Learner resizes nothing, and its data does not tell the size of a picture"
            f" ({type(error).__name__}): give signature="
        ) from error
    return height, width
