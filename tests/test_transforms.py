"""fastai's transforms recovered: host steps to the bit, graph steps through ONNX Runtime, refusals by name."""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx.utils
import onnxruntime
import PIL.Image
import pytest

from tensign.errors import UnsupportedModel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    fastai = pytest.importorskip("fastai.vision.all")
    import torch

    from tensign_converters import graph
    from tensign_converters.learners import learner
    from tensign_converters.learners.recording import Transform
    from tensign_converters.learners.transforms import preprocessing
    from tensign_converters.pickles.plain import Opaque
    from tensign_converters.pictures.preprocessing import Preprocessing, example, network_input

SIZES = [(64, 64), (40, 30), (31, 57), (101, 64), (64, 151), (7, 5), (301, 199), (80, 48)]  # width, height
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALF = ([0.5], [0.25])


@dataclass(frozen=True)
class Case:
    """Transforms of a DataLoaders. stats: of Normalize, None for none; opened: the class that pictures are opened as."""

    item: tuple[Any, ...] = ()
    batch: tuple[Any, ...] = ()
    stats: Any = IMAGENET
    opened: Any = fastai.PILImage


def resize(*args: Any, **options: Any) -> Any:
    return fastai.Resize(*args, **options)


SAMPLE = PIL.Image.Resampling
CASES = {
    **{
        f"resize-{method}-{pad}": Case((resize((48, 56), method=method, pad_mode=pad),))
        for method, pad in (("crop", "zeros"), ("squish", "zeros"), ("pad", "zeros"), ("pad", "border"), ("pad", "reflection"))
    },
    **{
        f"resize-{way.name.lower()}": Case((resize(50, method="crop", resamples=(way, SAMPLE.NEAREST)),), stats=None)
        for way in SAMPLE
    },
    "crop-pad": Case((fastai.CropPad((48, 80)),)),
    "crop-pad-border": Case((fastai.CropPad(64, pad_mode="border"),)),
    "crop-pad-reflection": Case((fastai.CropPad(64, pad_mode="reflection"),)),
    "old-random-crop": Case((fastai.OldRandomCrop(40),)),
    "random-crop": Case((fastai.RandomCrop((37, 31)),)),
    "random-resized-crop": Case((fastai.RandomResizedCrop((48, 80), min_scale=0.5),)),
    "random-resized-crop-no-extra": Case((fastai.RandomResizedCrop(64, val_xtra=0),)),
    "random-resized-crop-bicubic": Case((fastai.RandomResizedCrop(64, val_xtra=0.3, resamples=(SAMPLE.BICUBIC, 0)),)),
    "ratio-resize": Case((fastai.RatioResize(40),)),
    "ratio-resize-then-pad": Case((fastai.RatioResize(60), resize(64, method="pad", pad_mode="zeros"))),
    "nothing-at-all": Case(stats=None),
    "train-only": Case((resize(64), fastai.FlipItem(), fastai.DihedralItem(), resize(9, split_idx=0))),
    "erased-in-training": Case((resize(64),), (fastai.RandomErasing(),)),
    "points-and-noop": Case((resize(64), fastai.PointScaler(), fastai.Transform(fastai.noop))),
    "aug-transforms": Case((resize(60),), tuple(fastai.aug_transforms())),
    "aug-transforms-vertical": Case((resize(64),), tuple(fastai.aug_transforms(flip_vert=True, mult=2.0)), stats=None),
    "presizing": Case((resize(160),), tuple(fastai.aug_transforms(size=112))),
    "presizing-tall": Case((resize(90),), tuple(fastai.aug_transforms(size=(64, 48), align_corners=False))),
    "presizing-far": Case((resize((230, 150)),), tuple(fastai.aug_transforms(size=(40, 36)))),
    "presizing-up": Case((resize(33),), tuple(fastai.aug_transforms(size=(70, 64), pad_mode="border"))),
    "presizing-min-scale": Case((resize(160),), tuple(fastai.aug_transforms(size=112, min_scale=0.75))),
    "crop-on-the-gpu": Case((resize((128, 80)),), (fastai.RandomResizedCropGPU((40, 56), valid_scale=0.8),)),
    "crop-on-the-gpu-wide": Case((resize((60, 150)),), (fastai.RandomResizedCropGPU(48, mode="bicubic"),)),
    "flip": Case((resize(64),), (fastai.Flip(),)),
    "dihedral-nearest": Case((resize(64),), (fastai.Dihedral(size=50, mode="nearest"),)),
    "rotate-zeros": Case((resize(64),), (fastai.Rotate(size=(80, 72), pad_mode="zeros", align_corners=False),)),
    "zoom": Case((resize(65),), (fastai.Zoom(),)),
    "warp-bicubic": Case((resize(64),), (fastai.Warp(size=96, mode="bicubic"),)),
    "affine-alone": Case((resize(64),), (fastai.AffineCoordTfm(size=64),)),
    "deterministic": Case((resize(64),), (fastai.DeterministicFlip(), fastai.DeterministicDihedral())),
    "colours": Case((resize(64),), (fastai.Brightness(), fastai.Contrast(), fastai.Saturation(), fastai.Hue())),
    "own-stats": Case((resize(64),), stats=([0.1, 0.9, 0.5], [1.5, 0.01, 0.3])),
    "one-stat": Case((resize(64),), stats=HALF),
    "grey": Case((resize(64),), tuple(fastai.aug_transforms()), HALF, fastai.PILImageBW),
    "grey-to-three": Case((resize((40, 64), method="pad", pad_mode="zeros"),), (), IMAGENET, fastai.PILImageBW),
    "grey-crop": Case((fastai.CropPad((60, 90), pad_mode="reflection"),), (), None, fastai.PILImageBW),
    "mask": Case((resize((48, 40)),), (fastai.AffineCoordTfm(size=(32, 24)),), None, fastai.PILMask),
    "mask-crop": Case((fastai.RandomResizedCrop(64),), (fastai.RandomResizedCropGPU(40),), IMAGENET, fastai.PILMask),
}  # fmt: skip


def loader(case: Case, files: list[Path]) -> Any:
    """A DataLoaders over `files`, as a user's own would be."""
    normalize = [] if case.stats is None else [fastai.Normalize.from_stats(*case.stats, cuda=False)]
    opened = fastai.TransformBlock(type_tfms=case.opened.create, batch_tfms=fastai.IntToFloatTensor)
    block = fastai.DataBlock(
        (opened, fastai.RegressionBlock()),
        get_y=lambda _: 0.5,
        splitter=fastai.IndexSplitter([0]),
        item_tfms=list(case.item),
        batch_tfms=[*case.batch, *normalize],
    )
    return block.dataloaders(files[:2], bs=1, num_workers=0, device="cpu")


class Steps(torch.nn.Module):
    """The graph's part of every case side by side, so that it is exported once."""

    def __init__(self, made: list[Preprocessing]) -> None:
        super().__init__()
        self.made = made
        self.steps = torch.nn.ModuleList(torch.nn.ModuleList(each.graph_steps) for each in made)

    def forward(self, *pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(network_input(made, rows) + 0 for made, rows in zip(self.made, pixels, strict=True))


@dataclass(frozen=True)
class Prepared:
    """A case, its DataLoaders, what was recovered from them for the first picture, and that as a session."""

    case: Case
    loaders: Any
    made: Preprocessing
    session: onnxruntime.InferenceSession

    def recovered(self, size: tuple[int, int]) -> Preprocessing:
        valid = self.loaders.valid
        item, batch = ([learner._transform(each) for each in stage.fs] for stage in (valid.after_item, valid.after_batch))
        return preprocessing(self.case.opened.__name__, item, batch, size)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures of SIZES, half noise, half smooth."""
    folder, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    paths = []
    for width, height in SIZES:
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        pixels[: height // 2] = np.linspace(0, 255, width).astype(np.uint8)[None, :, None]
        paths.append(folder / f"{width}x{height}.png")
        PIL.Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def prepared(files: list[Path]) -> dict[str, Prepared]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaders = {name: loader(case, files) for name, case in CASES.items()}
        made = {name: Prepared(CASES[name], loaders[name], None, None).recovered(SIZES[0][::-1]) for name in CASES}  # type: ignore[arg-type]
        pixels = tuple(example(each, 2) for each in made.values())
        rows = tuple({0: torch.export.Dim.AUTO} for _ in pixels)
        names = [[f"{side}_{number}" for number in range(len(pixels))] for side in ("pixels", "seen")]
        program = torch.onnx.export(
            Steps(list(made.values())), pixels, dynamic_shapes=(rows,), input_names=names[0], output_names=names[1],
            opset_version=graph.OPSET, dynamo=True, verbose=False,
        )  # fmt: skip
    assert program is not None
    parts = onnx.utils.Extractor(program.model_proto)
    return {
        name: Prepared(
            CASES[name],
            loaders[name],
            made[name],
            onnxruntime.InferenceSession(parts.extract_model([one_in], [one_out]).SerializeToString()),
        )
        for name, one_in, one_out in zip(CASES, *names, strict=True)
    }


@pytest.mark.parametrize("name", CASES)
def test_what_reaches_the_network_is_fastais(
    name: str, files: list[Path], prepared: dict[str, Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's part to the bit; the graph's, through ONNX Runtime, within 4.8e-7 of values from 0 to 1, four units in the
    last place, before they are divided by std."""
    monkeypatch.setattr(random, "random", lambda: 0.5)  # RatioResize draws a corner at inference too; ours is the centre
    mine = prepared[name]
    for file, (width, height) in zip(files, SIZES, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            test = mine.loaders.test_dl([file], num_workers=0)
            made = mine.recovered((height, width))
            wanted = np.asarray(test.one_batch()[0])
            host = np.asarray(test.do_item(0)[0])  # after one_batch, which says that this is no training
        pixels = made.spec().encoded([file.read_bytes()], height=-1, width=-1)
        np.testing.assert_array_equal(pixels[0], host.transpose(1, 2, 0) if len(host) == 3 else host.squeeze(), file.name)
        tolerance = (
            0 if mine.case.opened is fastai.PILMask else 4 * 2**-23 / min(mine.case.stats[1] if mine.case.stats else [1])
        )
        seen = {"torch": np.asarray(network_input(made, torch.from_numpy(pixels)))}
        if made.size == mine.made.size:
            seen["onnx"] = mine.session.run(None, {mine.session.get_inputs()[0].name: pixels})[0]
        for where, got in seen.items():
            assert got.shape == wanted.shape and got.dtype == wanted.dtype
            np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance, err_msg=f"{where}: {file.name}")


RESIZE = {"size": (64, 64), "method": "crop", "pad_mode": "reflection", "mode": 2, "mode_mask": 0}
AUGMENT, DATA = "fastai.vision.augment", "fastai.data.transforms"
AFFINE = {"size": None, "mode": "bilinear", "mode_mask": "nearest", "pad_mode": "reflection", "align_corners": True}
CROP_GPU = {"size": (9, 9), "ratio": (0.75, 1.33), "valid_scale": 1.0, "mode": "bilinear", "mode_mask": "nearest"}


@pytest.mark.parametrize(
    ("path", "attributes", "text"),
    [
        ("mine.Sharpen", {}, "the item transform mine.Sharpen has no counterpart here; skipping it would change predictions"),
        ("__main__.Resize", RESIZE, "the item transform __main__.Resize has no counterpart"),
        ("albumentations.Resize", {"split_idx": 0}, "the item transform albumentations.Resize has no counterpart"),
        (f"{AUGMENT}.Resize", {**RESIZE, "size": (64, -1)}, "Resize: size (64, -1) is none"),
        (f"{AUGMENT}.Resize", {**RESIZE, "size": Opaque("os.system")}, "Resize: size Opaque(path='os.system') is none"),
        (f"{AUGMENT}.Resize", {**RESIZE, "size": (10**9, 10**9)}, "Resize: size (1000000000, 1000000000) is none"),
        (f"{AUGMENT}.Resize", {**RESIZE, "method": 3}, "Resize: method 3 is none that fastai works with"),
        (f"{AUGMENT}.Resize", {**RESIZE, "method": "zoom"}, 'resize: method "zoom" is unknown'),
        (f"{AUGMENT}.Resize", {**RESIZE, "mode": 77}, "Resize: interpolation 77 is none"),
        (f"{AUGMENT}.Resize", {**RESIZE, "mode": True}, "Resize: interpolation True is none"),
        (f"{AUGMENT}.RandomResizedCrop", {**RESIZE, "val_xtra": float("nan")}, "RandomResizedCrop: val_xtra nan is none"),
        (f"{AUGMENT}.RatioResize", {"max_sz": 0, "resamples": (2, 0)}, "RatioResize: max_sz 0 is none"),
        (f"{AUGMENT}.RatioResize", {"max_sz": 8, "resamples": 2}, "RatioResize: resamples 2 is none"),
        (f"{DATA}.Normalize", {"mean": np.zeros((1, 3, 1, 1)), "std": np.ones((1, 3, 1, 1))}, "the item transform Normalize"),
    ],
)
def test_an_item_transform_that_cannot_be_followed_is_refused_by_name(
    path: str, attributes: Mapping[str, Any], text: str
) -> None:
    with pytest.raises(UnsupportedModel, match=re.escape(text)):
        preprocessing("PILImage", [Transform(path, attributes, False)], [], (64, 64))


@pytest.mark.parametrize(
    ("path", "attributes", "text"),
    [
        ("kornia.Sharpen", {}, "the batch transform kornia.Sharpen has no counterpart here; skipping it would change predict"),
        ("__main__.MyAffine", {"split_idx": 0}, "the batch transform __main__.MyAffine has no counterpart"),
        (f"{DATA}.IntToFloatTensor", {"div": 0}, "IntToFloatTensor: div 0 is none"),
        (f"{DATA}.IntToFloatTensor", {"div": "255"}, "IntToFloatTensor: div 255 is none"),
        (f"{DATA}.Normalize", {"mean": None, "std": None}, "Normalize: mean None is none"),
        (f"{DATA}.Normalize", {"mean": np.zeros((1, 3, 1, 1)), "std": np.full((1, 3, 1, 1), np.nan)}, "Normalize: std [[[["),
        (f"{DATA}.Normalize", {"mean": np.zeros((1, 1, 1, 3)), "std": np.ones((1, 1, 1, 3))}, "Normalize: mean [[[["),
        (f"{AUGMENT}.Flip", {**AFFINE, "mode": "area"}, "Flip: mode area is none"),
        (f"{AUGMENT}.Flip", {**AFFINE, "pad_mode": "wrap"}, "Flip: pad_mode wrap is none"),
        (f"{AUGMENT}.Flip", {**AFFINE, "align_corners": 1}, "Flip: align_corners 1 is none"),
        (f"{AUGMENT}.Flip", {**AFFINE, "size": 0}, "Flip: size 0 is none"),
        (f"{AUGMENT}.Flip", {**AFFINE, "size": 90_000}, "Flip: size 90000 is none"),
        (f"{AUGMENT}.RandomResizedCropGPU", {**CROP_GPU, "valid_scale": 2.0}, "RandomResizedCropGPU: valid_scale 2.0 is none"),
        (f"{AUGMENT}.RandomResizedCropGPU", {**CROP_GPU, "ratio": (0, 1)}, "RandomResizedCropGPU: ratio 0 is none"),
    ],
)  # fmt: skip
def test_a_batch_transform_that_cannot_be_followed_is_refused_by_name(
    path: str, attributes: Mapping[str, Any], text: str
) -> None:
    with pytest.raises(UnsupportedModel, match=re.escape(text)):
        preprocessing("PILImage", [], [Transform(path, attributes, False)], (64, 64))


def test_a_function_is_refused_by_its_own_name() -> None:
    called = Transform("fasttransform.transform.Transform", {}, False, "mine.sharpen")
    with pytest.raises(UnsupportedModel, match=r"the item transform mine\.sharpen has no counterpart"):
        preprocessing("PILImage", [called], [], (64, 64))


@pytest.mark.parametrize(("kind", "text"), [("PILDicom", "inputs of type PILDicom"), ("", "of a type that could not be read")])
def test_an_input_of_another_type_is_refused(kind: str, text: str) -> None:
    with pytest.raises(UnsupportedModel, match=f"{text}: this version converts Learners of PILImage, PILImageBW, PILMask"):
        preprocessing(kind, [], [], (64, 64))
