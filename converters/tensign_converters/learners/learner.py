"""A live Learner -> Recording, and `load_learner`, which runs the file's code: only when the operator said --trust."""

from __future__ import annotations

import enum
import types
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tensign.errors import UnsupportedModel
from tensign_converters.learners.recording import Loss, Recording, Transform
from tensign_converters.pickles.allowed import today
from tensign_converters.pickles.plain import Opaque
from tensign_converters.pictures.picture import Answered, Picture

_MAX_DEPTH = 10


def load(file: Path, written: str) -> Recording:
    """Unpickles a Learner's export, running its code, and records it. written: the fastai version that its MLmodel names.

    Raises UnsupportedModel for what this fastai cannot load.
    """
    import fastai
    from fastai.learner import load_learner

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fastai's own, about pickles and old torch calls
            learn = load_learner(file, cpu=True)
    except FileNotFoundError:
        raise UnsupportedModel(f"{file.name}: the MLmodel names it, and it is not there") from None
    except Exception as error:  # a pickle fails in whatever way its code does
        reason = " ".join(str(error).split())[:200]
        raise UnsupportedModel(
            f"{file.name}: written by fastai {written}, and fastai {fastai.__version__} cannot load it:"
            f" {type(error).__name__}: {reason}"
        ) from None
    return record(learn, versions(written))


def versions(written: str = "") -> dict[str, str]:
    """Of the libraries that read here, and of the fastai that wrote, which is this one where nothing was read from a file."""
    import fastai
    import fastcore

    return {
        "fastai": fastai.__version__,
        "fastcore": fastcore.__version__,
        "torch": str(torch.__version__),
        "written_by_fastai": written or fastai.__version__,
    }


def record(learn: Any, versions: Mapping[str, str]) -> Recording:
    """A live Learner, taken apart; its network is set to evaluation mode."""
    learn.model.eval()
    valid, loss = learn.dls.valid, learn.loss_func
    lists = getattr(valid.dataset, "tls", ())
    batch = [*getattr(valid.before_batch, "fs", ()), *valid.after_batch.fs]
    return Recording(
        network=learn.model,
        item_transforms=tuple(_transform(each) for each in valid.after_item.fs),
        batch_transforms=tuple(_transform(each) for each in batch),
        types=tuple(_last_type(each) for each in lists),
        vocab=_vocab(getattr(learn.dls, "vocab", None)),
        loss=Loss(_path(loss), _attributes(loss), getattr(loss, "activation", lambda logits: logits)),
        inputs=int(getattr(learn.dls, "n_inp", 1)),
        versions=versions,
        loaded=True,
        answers=lambda pictures: _answers(learn, pictures),
    )


def _transform(transform: Any) -> Transform:
    called = getattr(transform, "encodes", None) if type(transform).__name__ == "Transform" else None
    train_only = getattr(type(transform), "split_idx", None) == 0
    return Transform(_path(transform), _attributes(transform), train_only, "" if called is None else _path(called))


def _attributes(thing: Any) -> dict[str, Any]:
    held = getattr(thing, "__dict__", {}) if not isinstance(thing, types.FunctionType) else {}
    return {name: _plain(value) for name, value in held.items() if not name.startswith("_")}


def _plain(value: Any, depth: int = 0) -> Any:
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().as_subclass(torch.Tensor)
        return value.float().numpy() if value.is_floating_point() else value.numpy()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value
    if depth < _MAX_DEPTH:
        if isinstance(value, tuple):
            return tuple(_plain(item, depth + 1) for item in value)
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {key: _plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list) or type(value).__name__ == "L":
            return [_plain(item, depth + 1) for item in value]
    return Opaque(_path(value))


def _path(thing: Any) -> str:
    """Dotted: of a function or class its own, of an object its class's."""
    thing = getattr(thing, "func", thing) if type(thing).__name__ == "partial" else thing
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return today(f"{named.__module__}.{named.__qualname__}")


def _last_type(items: Any) -> str:
    kept = list(getattr(items, "types", ()))
    return str(getattr(kept[-1], "__name__", "")) if kept else ""


def _vocab(vocab: Any) -> tuple[Any, ...]:
    """Names, flat for one target, a tuple of them for several."""
    return tuple(
        tuple(each) if isinstance(each, list) or type(each).__name__ == "CategoryMap" else each for each in vocab or ()
    )


def _answers(learn: Any, pictures: Sequence[Picture]) -> Answered:
    given: list[torch.Tensor] = []
    hook = learn.model.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].detach().as_subclass(torch.Tensor)))
    try:
        with warnings.catch_warnings(), learn.no_bar(), learn.no_logging():
            warnings.simplefilter("ignore")
            batches = learn.dls.test_dl(list(pictures), num_workers=0, bs=16)
            logits, _ = learn.get_preds(dl=batches, act=lambda raw: raw)
    finally:
        hook.remove()
    return Answered(np.asarray(logits, np.float32), torch.cat(given).cpu().numpy())
