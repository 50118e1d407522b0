"""model.fastai -> Recording, by loading it, which runs its pickle: only when the operator said --trust, and only in the
converter's own process. And the Recording of a Learner that lives here already.
"""

from __future__ import annotations

import enum
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tensign.errors import UnsupportedModel
from tensign.mlmodel import ModelManifest
from tensign_converters.recording import Loss, Opaque, Picture, Recording, Transform


def read_learner(manifest: ModelManifest) -> Recording:
    """Loads the Learner of a fastai flavor, running its pickle. Raises UnsupportedModel for what this fastai cannot load."""
    import fastai
    from fastai.learner import load_learner

    file = manifest.path / str(manifest.flavors["fastai"].get("data", "model.fastai"))
    written = manifest.flavors["fastai"].get("fastai_version", "an unknown version")
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
    return record(learn, written_by_fastai=str(written))


def record(learn: Any, **versions: str) -> Recording:
    """What a live Learner does at inference. versions: what else is known of its origin."""
    import fastai
    import fastcore

    valid = learn.dls.valid
    opened = valid.dataset.tls[0]
    losses = learn.loss_func
    return Recording(
        network=learn.model.cpu().eval(),
        item_transforms=tuple(map(_transform, [*_after_opening(opened), *valid.after_item.fs])),
        batch_transforms=tuple(map(_transform, [*valid.before_batch.fs, *valid.after_batch.fs])),
        types=tuple(_type_name(pipeline.types) for pipeline in valid.dataset.tls),
        vocab=tuple(map(_plain, getattr(learn.dls, "vocab", None) or ())),
        loss=Loss(_path(losses), _attributes(losses), getattr(losses, "activation", lambda logits: logits)),
        inputs=learn.dls.n_inp,
        versions={
            "fastai": fastai.__version__,
            "fastcore": fastcore.__version__,
            "torch": str(torch.__version__),
            **versions,
        },
        loaded=True,
        logits=lambda pictures: _logits(learn, pictures),
    )


def _after_opening(opened: Any) -> list[Any]:
    """What else the input's own pipeline does once it has a picture."""
    transforms = list(opened.tfms.fs)
    makers = [number for number, transform in enumerate(transforms) if _function(transform).endswith(".create")]
    return transforms[makers[-1] + 1 :] if makers else transforms


def _type_name(types: Sequence[Any]) -> str:
    last = types[-1] if types else None
    return last.__name__ if isinstance(last, type) else ""


def _transform(transform: Any) -> Transform:
    train_only = getattr(type(transform), "split_idx", None) == 0
    return Transform(_path(transform), _attributes(transform), train_only, _function(transform))


def _path(thing: Any) -> str:
    kind = thing if isinstance(thing, type) or callable(getattr(thing, "__code__", None)) else type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"


def _function(transform: Any) -> str:
    """What a Transform round a function calls, dotted; "" for a class with methods of its own."""
    encodes = vars(transform).get("encodes") if hasattr(transform, "__dict__") else None
    methods = getattr(encodes, "methods", None) or ()
    functions = [method.implementation for method in methods] or ([encodes] if callable(encodes) else [])
    return ", ".join(f"{f.__module__}.{f.__qualname__}" for f in functions if hasattr(f, "__qualname__"))


def _attributes(thing: Any) -> Mapping[str, Any]:
    return {name: _plain(value) for name, value in vars(thing).items()} if hasattr(thing, "__dict__") else {}


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if isinstance(value, Tensor):
        return np.asarray(value.detach().cpu())
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value) if isinstance(value, np.ndarray) else value.item()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list) or type(value).__name__ in ("L", "CategoryMap"):
        return tuple(map(_plain, value))
    return Opaque(_path(value))


def _logits(learn: Any, pictures: Sequence[Picture]) -> npt.NDArray[np.float32]:
    unchanged: Callable[[Tensor], Tensor] = lambda raw: raw  # noqa: E731
    with warnings.catch_warnings(), learn.no_bar(), learn.no_logging():
        warnings.simplefilter("ignore")
        batches = learn.dls.test_dl(list(pictures), num_workers=0, bs=16)
        logits, _ = learn.get_preds(dl=batches, act=unchanged)
    return np.asarray(logits, np.float32)
