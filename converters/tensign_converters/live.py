"""A live fastai Learner, or torch module, -> Subject, by way of a copy of it on the CPU: it stays as it was itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from tensign.errors import InvalidConfig, InvalidInput, UnsupportedModel
from tensign.notation import parse_specs
from tensign.proof.samples import samples
from tensign.signature import Signature
from tensign_converters.convert import ANY_SIZE
from tensign_converters.declared.declaration import Declaration
from tensign_converters.learners.learned import check, learn
from tensign_converters.learners.learner import record, versions
from tensign_converters.learners.transforms import preprocessing
from tensign_converters.networks.module import pictures_subject
from tensign_converters.networks.network import Network
from tensign_converters.pictures.model import PictureModel
from tensign_converters.source import picture_size
from tensign_converters.subject import Subject

AGAINST = "a copy of the live {}, on the CPU and in single precision"
_STAGES = ("after_item", "before_batch", "after_batch")
_OUTER, _INNER = {"before_fit", "before_epoch", "before_validate"}, {"before_batch", "after_pred", "after_loss", "after_batch"}
_ALIKE, _ALIKE_ROUNDED = 1e-3, 5e-2  # of logits relative to the row's largest: on the CPU, and in what precision a device has
_FEW = (1, 4)  # rows at a time
_WRAPPED = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}

T = TypeVar("T")


def learner_subject(learner: Any, signature: Signature | None) -> Subject:
    """signature: None where the Learner is to tell it.

    Raises InvalidInput for what is no Learner, UnsupportedModel for the part of one that cannot be converted, and where the
    signature promises something else.
    """
    found = learned(learner, picture_size(signature) if signature else None)
    if signature:
        check(found, signature)
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
    copied = _network("module", module, {}).cpu().float()
    kind = "torchscript" if isinstance(copied, torch.jit.ScriptModule) else "module"
    found = pictures_subject(Network(copied, kind, True, {"torch": str(torch.__version__)}), signature, declared)
    return replace(found, against=AGAINST.format("module") + ", on the declared preprocessing")


def learned(learner: Any, size: tuple[int, int] | None) -> PictureModel:
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
    found = replace(learn(recording, size), against=against)
    return replace(found, unchecked=_held(found, learner, valid))


def _twin(learner: Any, valid: Any, *, whole: bool = False) -> Any:
    """A Learner that predicts as `learner` does, shares nothing with it that predicting changes, and holds no data.

    whole: with every callback, on the device and in the precision that it has; else on the CPU, in single precision.
    """
    twin = copy.copy(learner)
    for each in learner.cbs:
        vars(twin).pop(each.name, None)
    loaders = copy.copy(learner.dls)
    memo = {id(learner): twin, id(learner.dls): loaders}  # what a callback holds of these is the twin's
    network = _network("Learner's network", learner.model, memo)
    emptied = _copied("Learner's data loader", lambda loader: copy.deepcopy(loader.new(loader.dataset.new_empty())), valid)
    memo |= {id(each): emptied for each in learner.dls.loaders}
    loaders.loaders = [emptied, emptied]
    vars(twin).update(opt=None, training=False, cbs=type(learner.cbs)())
    if whole:
        metrics = _copied("Learner's metrics", lambda each: copy.deepcopy(each, memo), learner.metrics)
        vars(twin).update(model=network, dls=loaders, _metrics=metrics)
    else:
        vars(twin).update(model=network.cpu().float(), dls=loaders.cpu())
    kept = [each for each in learner.cbs if whole or _acts(each)]
    return twin.add_cbs(
        [_copied(f"Learner's callback {type(each).__name__}", lambda one: copy.deepcopy(one, memo), each) for each in kept]
    )


def _acts(callback: Any) -> bool:
    """Whether a callback may change what is predicted: what fastai wrote changes precision and speed."""
    strangers = (vars(each) for each in type(callback).__mro__ if not each.__module__.startswith("fastai."))
    written = {name for names in (vars(callback), *strangers) for name in names}
    return not written.isdisjoint(_OUTER | _INNER if callback.run_valid else _OUTER)


def _held(found: PictureModel, learner: Any, valid: Any) -> tuple[str, ...]:
    """Holds the twin's answers to a few pictures against what a whole copy of the Learner predicts; what could not be held.

    Raises UnsupportedModel where they differ, or where the twin cannot predict.
    """
    signature = Signature.parse({part: parse_specs(text) for part, text in found.described().items()})
    (picture,) = signature.inputs
    few = [[row[picture.name] for row in chunk] for chunk in islice(samples(signature, crops=0).chunks(_FEW), len(_FEW))]
    try:
        came = [found.answers(pictures).logits for pictures in few]
    except Exception as error:  # a user's own classes raise anything
        raise UnsupportedModel(f"a copy of the Learner on the CPU cannot predict: {_told(error)}") from error
    try:
        whole = _twin(learner, valid, whole=True)
        answered = record(whole, {}).answers
        wanted = [answered(pictures).logits for pictures in few] if answered else []
    except Exception as error:  # as above, or of what cannot be copied
        return (f"the Learner's own get_preds, which failed on pictures: {_told(error)}",)
    exact = all(tensor.is_cpu and tensor.dtype not in (torch.float16, torch.bfloat16) for tensor in whole.model.parameters())
    for one, other in zip(came, wanted, strict=True):
        apart = np.abs(one - other).max() / max(1, np.abs(other).max()) if one.shape == other.shape else np.inf
        if not apart <= (_ALIKE if exact else _ALIKE_ROUNDED):
            raise UnsupportedModel(
                f"the Learner's own get_preds and those of {found.against} are {apart:.1e} apart, relative to the logits: a"
                " callback or the network changes what it predicts"
            )
    return ()


def _network(part: str, model: Any, memo: dict[int, Any]) -> nn.Module:
    """A copy in evaluation mode, without what spreads it over devices or compiles it. memo: of copy.deepcopy."""
    while (inner := getattr(model, _WRAPPED.get(type(model).__name__, ""), None)) is not None:
        model = inner
    if not isinstance(model, nn.Module):
        raise InvalidInput(f"the {part}: wanted a torch module, got {type(model).__module__}.{type(model).__qualname__}")
    copied: nn.Module = _copied(part, lambda original: copy.deepcopy(original, memo), model)
    return copied.eval()


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
        raise UnsupportedModel(f"the {part} cannot be copied: {_told(error)}") from error


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


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
