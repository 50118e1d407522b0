"""What a user declares of a network whose file says nothing of its pictures: YAML -> Declaration. Nothing is assumed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensign.config import MAX_PIXELS
from tensign.document import NotYaml, parse
from tensign.errors import InvalidConfig, UnsupportedModel
from tensign.hoststeps import STEPS, HostStep, parse_step
from tensign.notation import parse_specs
from tensign.preprocess import PreprocessSpec
from tensign_converters.declared.keys import Keys, nearest, shown
from tensign_converters.declared.labels import read_labels, read_text
from tensign_converters.subject import Head

if TYPE_CHECKING:
    from tensign_converters.pictures.steps import Normalize, Scale

_CHANNELS = {"RGB": 3, "L": 1}
_MOVED = {("RGB", "NCHW"): ["NHWC to NCHW"], ("L", "NCHW"): ["NHW to N1HW"], ("L", "NHWC"): ["NHW to NHW1"]}
_ARCHITECTURE = re.compile(r"(torchvision|timm)(\.\w+)+", re.ASCII)
_SMALLEST, _LARGEST = 1e-30, 1e30  # of numbers that float32 divides by


@dataclass(frozen=True, slots=True)
class Declaration:
    """From a picture to the network, and what stands on it.

    input: height and width of the pictures that the converted model takes, -1 any; steps: on uint8 pixels, in order; then,
    in the graph, float32(x) / divide and (x - mean) / std, channel by channel, where they are said; layout: what the network
    wants, "NCHW" or "NHWC"; activation: "softmax", "sigmoid" or "none", put on top of what the network gives; threshold:
    above it a label of a multi-label model counts; architecture: "torchvision.NAME" or "timm.NAME" of a bare state dict,
    made with `arguments`.
    """

    mode: str = "RGB"
    exif_orientation: str = "ignore"
    steps: tuple[HostStep, ...] = ()
    input: tuple[int, int] = (-1, -1)
    divide: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    layout: str = "NCHW"
    activation: str = "none"
    labels: tuple[str, ...] = ()
    threshold: float | None = None
    architecture: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Declaration:
        """A YAML file of these keys; a file of labels that it names lies in its directory. Raises InvalidConfig."""
        return cls.parse(_document(file), file.parent, file.name)

    @classmethod
    def parse(cls, document: Any, folder: Path, called: str = "the declaration") -> Declaration:
        """A map of these keys. folder: where a file of labels lies; called: what errors call it. Raises InvalidConfig."""
        keys = Keys(document or None, called, [each.name for each in fields(cls)])
        mode = keys.choice("mode", tuple(_CHANNELS), "RGB")
        steps = _steps(keys)
        taken = _input(keys, mode) or PreprocessSpec(steps).size(-1, -1)
        if 0 in PreprocessSpec(steps).size(*taken):
            raise keys.refused("steps", f"nothing is left of a picture of {taken[0]}x{taken[1]} pixels")
        mean, std = (_statistic(keys, key, _CHANNELS[mode]) for key in ("mean", "std"))
        if (mean is None) != (std is None):
            raise keys.refused("std" if std is None else "mean", "is missing; both are wanted, or none: (x - mean) / std")
        divide = keys.get("divide", "a number above 0", lambda value: _is_number(value, _SMALLEST, _LARGEST))
        if mean and std and divide is None and max(map(abs, mean)) <= 1 >= max(std):
            raise keys.refused(
                "mean",
                f"{mean[0]:g} is of pixels from 0 to 1, and no divide is declared: divide: 255, or divide: 1 where it is meant",
            )
        activation = keys.choice("activation", ("none", "softmax", "sigmoid"), "none")
        threshold = keys.get("threshold", "a number from 0 to 1", lambda value: _is_number(value, 0, 1))
        if threshold is not None and activation == "softmax":
            raise keys.refused("threshold", "is for several labels at a time, and softmax makes one the best")
        architecture, arguments = _architecture(keys)
        return cls(
            mode,
            keys.choice("exif_orientation", ("ignore", "apply"), "ignore"),
            steps,
            taken,
            divide,
            mean,
            std,
            keys.choice("layout", ("NCHW", "NHWC"), "NCHW"),
            activation,
            _labels(keys, folder),
            threshold,
            architecture,
            arguments,
        )

    @property
    def channels(self) -> int:
        """Of a picture as it reaches the network: 3, or of a grey one 1."""
        return _CHANNELS[self.mode]

    @property
    def network_size(self) -> tuple[int, int]:
        """Height and width of what leaves the last step; -1 is any."""
        return PreprocessSpec(self.steps).size(*self.input)

    def graph_steps(self) -> tuple[Scale | Normalize, ...]:
        """The float steps as torch modules, on [B,C,h,w]."""
        from tensign_converters.pictures.steps import Normalize, Scale  # torch is not there where a declaration is only checked

        scale = () if self.divide is None else (Scale(self.divide),)
        return scale if self.mean is None else (*scale, Normalize(self.mean, self.std))

    def spec(self, dtype: str = "float32") -> PreprocessSpec:
        """What the host does, and in words what the graph does; dtype: what the network takes."""
        words = [*(["cast to float32"] if dtype != "uint8" else []), *_MOVED.get((self.mode, self.layout), [])]
        words = [", ".join(words)] if words else []
        words += [step.describe() for step in self.graph_steps()]
        words += [f"cast to {dtype}"] if dtype not in ("uint8", "float32") else []
        return PreprocessSpec(self.steps, self.exif_orientation, tuple(words), self.mode)

    def head(self, shape: tuple[int, ...]) -> Head:
        """What stands on a network that gives `shape`, [n,...], -1 any length. Raises UnsupportedModel."""
        named = bool(self.labels)
        if self.activation == "none" and not named and self.threshold is None:
            return Head("regression", "none", -1, (), None)
        if len(shape) not in (2, 4):
            raise UnsupportedModel(
                f"labels, threshold and activation are for [n,classes] or, for each pixel, [n,classes,H,W]; the network gives"
                f" {list(shape)}"
            )
        if len(shape) == 4 and self.layout == "NHWC" and not named:
            raise UnsupportedModel("labels: are wanted, since they tell which axis of a network of NHWC the classes are on")
        if named and shape[1] not in (-1, len(self.labels)):
            raise UnsupportedModel(
                f"{len(self.labels)} labels are declared, the network gives {list(shape)}; wanted the classes on axis 1"
            )
        if named and self.layout == "NHWC" and shape[3:] == (len(self.labels),):
            raise UnsupportedModel(
                f"{len(self.labels)} labels are declared, and axis 1 and axis 3 of what the network gives, {list(shape)}, fit"
                " them: classes are wanted on axis 1; export a network that gives them there, for pictures of another size"
            )
        several = self.activation == "sigmoid" or self.threshold is not None
        task = "segmentation" if len(shape) == 4 else "multilabel" if several else "classification"
        return Head(task, self.activation, 1, self.labels, self.threshold)


def size_hint(height: int, width: int) -> str:
    """Which last step would give pictures of that size."""
    return f"; a last step {{op: resize, height: {height}, width: {width}}} gives that, or crop_pad, which cuts or fills up"


def plain(file: Path) -> dict[str, Any]:
    """A YAML file as the map that Declaration.parse takes, checked, its labels read in. Raises InvalidConfig."""
    document = _document(file)
    labels = Declaration.parse(document, file.parent, file.name).labels
    return {**document, **({"labels": list(labels)} if labels else {})}


def _document(file: Path) -> Any:
    try:
        return parse(read_text(file), once=True)
    except NotYaml as error:
        raise InvalidConfig(f"{file.name}: {error}") from None


def _steps(keys: Keys) -> tuple[HostStep, ...]:
    said = keys.get("steps", "a list of maps, each with `op`", lambda value: isinstance(value, list), [])
    steps = []
    for number, step in enumerate(said, 1):
        place = f"{keys.place}: step {number}"
        if not isinstance(step, Mapping):
            raise InvalidConfig(f"{place}: wanted a map with `op`, got {shown(step)}")
        op = step.get("op")
        if not isinstance(op, str) or op not in STEPS:
            raise InvalidConfig(f"{place}: op: got {shown(op)}; {nearest(str(op), tuple(STEPS))}")
        options = fields(STEPS[op])
        Keys(step, place, ["op", *(option.name for option in options)])
        for option in options:
            if option.default is MISSING and option.name not in step:
                raise InvalidConfig(f"{place}: {op}: {option.name} is missing")
        try:
            steps.append(parse_step(step))
        except UnsupportedModel as error:
            raise InvalidConfig(f"{place}: {str(error).removeprefix('preprocess: ')}") from None
        except TypeError:  # a list or a map for a word
            raise InvalidConfig(f"{place}: {op}: wanted numbers and words, got a list or a map") from None
    return tuple(steps)


def _input(keys: Keys, mode: str) -> tuple[int, int] | None:
    wanted = "uint8[-1,H,W,3]" if mode == "RGB" else "uint8[-1,H,W]"
    text = keys.get("input", f"{wanted}, H and W a length or -1", lambda value: isinstance(value, str))
    if text is None:
        return None
    try:
        (spec,) = parse_specs(text)
        tensor = spec["tensor-spec"]
        rows, height, width, *rest = tensor["shape"]
        fits = "name" not in spec and tensor["dtype"] == "uint8" and rows == -1 and rest == ([3] if mode == "RGB" else [])
    except InvalidConfig as error:
        raise keys.refused("input", str(error)) from None
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise keys.refused("input", f"wanted {wanted} for mode {mode}, H and W a length or -1, got {shown(text)}")
    if height * width > MAX_PIXELS:
        raise keys.refused("input", f"{height}x{width} pixels are more than the limit of {MAX_PIXELS}")
    return height, width


def _statistic(keys: Keys, key: str, channels: int) -> tuple[float, ...] | None:
    least = _SMALLEST if key == "std" else -_LARGEST

    def fits(value: Any) -> bool:
        values = value if isinstance(value, list) else [value]
        return len(values) in (1, channels) and all(_is_number(each, least, _LARGEST) for each in values)

    wanted = "one number" + (f", or a list of {channels}" if channels > 1 else "") + (", above 0" if key == "std" else "")
    value = keys.get(key, wanted, fits)
    return None if value is None else tuple(map(float, value if isinstance(value, list) else [value]))


def _labels(keys: Keys, folder: Path) -> tuple[str, ...]:
    wanted = "a list of texts, or the name of a file of them"
    said = keys.get("labels", wanted, lambda value: isinstance(value, str | list))
    if said is None:
        return ()
    try:
        return read_labels(said, folder)
    except InvalidConfig as error:
        raise keys.refused("labels", str(error)) from None


def _architecture(keys: Keys) -> tuple[str | None, Mapping[str, Any]]:
    named = keys.get(
        "architecture",
        "torchvision.NAME or timm.NAME",
        lambda value: isinstance(value, str) and bool(_ARCHITECTURE.fullmatch(value)),
    )
    arguments = keys.get("arguments", "a map of names to plain values", _are_arguments, {})
    if arguments and named is None:
        raise keys.refused("arguments", "are those of an architecture, and none is declared")
    return named, arguments


def _are_arguments(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str)
        and name.isidentifier()
        and all(isinstance(each, str | int | float | None) for each in (said if isinstance(said, list) else [said]))
        for name, said in value.items()
    )


def _is_number(value: Any, least: float, most: float) -> bool:
    return type(value) in (int, float) and bool(least <= value <= most)
