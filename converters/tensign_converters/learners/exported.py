"""The records of a fastai Learner's export -> Recording, whatever fastai 2 wrote it; none of its code runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensign.errors import UnsupportedModel
from tensign_converters.learners.recording import Loss, Recording, Transform
from tensign_converters.pickles.allowed import today
from tensign_converters.pickles.archive import read_archive
from tensign_converters.pickles.plain import Opaque, Plain, described, state
from tensign_converters.pickles.rebuild import Rebuilder
from tensign_converters.pickles.records import Entries, Global, Record

_LEARNER = "fastai.learner.Learner"
_TRAIN_ONLY = frozenset(  # those of fastai with split_idx 0; it is not imported to ask it, for which it takes seconds
    f"fastai.vision.augment.{name}"
    for name in (
        "RandTransform", "FlipItem", "DihedralItem", "SpaceTfm", "LightingTfm", "Brightness", "Contrast", "Saturation", "Hue",
        "HSVTfm", "RandomErasing",
    )
)  # fmt: skip
_PIPELINES = ("fasttransform.transform.Pipeline", "fasttransform.transform.Transform")


def read_export(file: Path, versions: Mapping[str, str]) -> Recording:
    """Reads model.fastai as data. versions: what is known of who wrote it and who reads it.

    Raises UntrustedModel where only the file's own code could say what the network is, UnsupportedModel for what is broken.
    """
    root = read_archive(file)
    if not isinstance(root, Record) or today(root.path) != _LEARNER:
        kind = described(root)[:200] if isinstance(root, Record | Global) else type(root).__name__
        raise UnsupportedModel(f"{file.name}: wanted a fastai Learner, got {kind}")
    plain, learner = Plain(), state(root)
    loader = _valid(learner.get("dls"))
    lists = _items(_dataset(loader).get("tls"))
    return Recording(
        network=Rebuilder(plain).network(learner.get("model")),
        item_transforms=_transforms(plain, loader.get("after_item")),
        batch_transforms=(*_transforms(plain, loader.get("before_batch")), *_transforms(plain, loader.get("after_batch"))),
        types=tuple(_last_type(state(each).get("types")) if isinstance(each, Record) else "" for each in lists),
        vocab=_vocab(plain, loader, lists),
        loss=_loss(plain, learner.get("loss_func")),
        inputs=_inputs(loader, learner.get("dls"), len(lists)),
        versions=versions,
        loaded=False,
        answers=None,
    )


def _valid(dls: Any) -> dict[str, Any]:
    """The attributes of the validation DataLoader: the second, or the only one."""
    loaders = _items(state(dls).get("loaders")) if isinstance(dls, Record) else []
    if not loaders or not isinstance(loaders[min(1, len(loaders) - 1)], Record):
        raise UnsupportedModel("a Learner without DataLoaders, which would say how pictures are prepared")
    return state(loaders[min(1, len(loaders) - 1)])


def _dataset(loader: dict[str, Any]) -> dict[str, Any]:
    kept = loader.get("__stored_args__")
    found = loader.get("dataset") or (dict(_text_pairs(kept)).get("dataset") if isinstance(kept, Entries) else None)
    return state(found) if isinstance(found, Record) else {}


def _text_pairs(entries: Entries) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in entries.pairs if isinstance(key, str)]


def _items(value: Any) -> list[Any]:
    """The items of a list, a tuple, or a fastcore L."""
    if isinstance(value, Record):
        value = state(value).get("items", value.items)
    return list(value) if isinstance(value, list | tuple) else []


def _transforms(plain: Plain, pipeline: Any) -> tuple[Transform, ...]:
    if pipeline is None:
        return ()
    if not isinstance(pipeline, Record) or today(pipeline.path) != _PIPELINES[0]:
        raise UnsupportedModel(f"a pipeline that is none: {described(pipeline)[:100] if isinstance(pipeline, Record) else '?'}")
    return tuple(_transform(plain, each) for each in _items(state(pipeline).get("fs")))


def _transform(plain: Plain, record: Any) -> Transform:
    if not isinstance(record, Record):
        return Transform(described(record), {}, False)
    path = described(record)
    called = described(state(record).get("encodes", "")) if path == _PIPELINES[1] else ""
    return Transform(path, plain.attributes(record), path in _TRAIN_ONLY, "" if called == "?" else called)


def _last_type(types: Any) -> str:
    """The class that an item pipeline ends in, by its own name."""
    kept = _items(types)
    return described(kept[-1]).rpartition(".")[2] if kept and isinstance(kept[-1], Global) else ""


def _vocab(plain: Plain, loader: dict[str, Any], lists: list[Any]) -> tuple[Any, ...]:
    """The names that the targets' transforms know, flat for one target, a tuple of them for several."""
    found = []
    for each in lists:
        pipeline = state(each).get("tfms") if isinstance(each, Record) else None
        for transform in _items(state(pipeline).get("fs")) if isinstance(pipeline, Record) else []:
            vocab = state(transform).get("vocab") if isinstance(transform, Record) else None
            if vocab is not None:
                names = plain.of(vocab)
                names = names.tolist() if hasattr(names, "tolist") else names
                if isinstance(names, list | tuple):
                    found.append(tuple(names))
                    break
    return found[0] if len(found) == 1 else tuple(found)


def _inputs(loader: dict[str, Any], dls: Any, lists: int) -> int:
    for attributes in (loader, _dataset(loader), state(dls) if isinstance(dls, Record) else {}):
        said = attributes.get("n_inp", attributes.get("_n_inp"))
        if type(said) is int:
            return said
    return max(1, lists - 1)


def _loss(plain: Plain, value: Any) -> Loss:
    if not isinstance(value, Record | Global):
        raise UnsupportedModel("a Learner without a loss, which would say what becomes of the logits")
    if isinstance(value, Global):
        return Loss(described(value))
    kept = {name: said for name, said in state(value).items() if not name.startswith("_")}
    return Loss(described(value), {name: _shallow(plain, said) for name, said in kept.items()})


def _shallow(plain: Plain, value: Any) -> Any:
    return Opaque(described(value)) if isinstance(value, Record) and "." in value.path and state(value) else plain.of(value)
