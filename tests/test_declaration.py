"""What a user declares in YAML: read whole or refused, each wrong key by its name."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from tensign.errors import InvalidConfig, UnsupportedModel
from tensign.preprocess import CentreCrop, CropPad, RatioResize, ResizeShorter
from tensign_converters.declared.declaration import Declaration

WHOLE = """
input: uint8[-1,224,192,3]
mode: RGB
exif_orientation: apply
steps:
  - {op: resize_shorter, size: 256, interpolation: bicubic}
  - {op: centre_crop, height: 224, width: 192}
divide: 255
mean: [0.485, 0.456, 0.406]
std: 0.25
layout: NHWC
activation: sigmoid
labels: [cat, dog]
threshold: 0.5
architecture: timm.resnet18.a1_in1k
arguments: {num_classes: 2, act_layer: null, stem: [3, 3]}
"""


def declared(folder: Path, text: str) -> Declaration:
    file = folder / "spec.yaml"
    file.write_text(text, encoding="utf-8")
    return Declaration.read(file)


def test_every_key_is_read(tmp_path: Path) -> None:
    assert declared(tmp_path, WHOLE) == Declaration(
        "RGB",
        "apply",
        (ResizeShorter(256, "bicubic"), CentreCrop(224, 192)),
        (224, 192),
        255,
        (0.485, 0.456, 0.406),
        (0.25,),
        "NHWC",
        "sigmoid",
        ("cat", "dog"),
        0.5,
        "timm.resnet18.a1_in1k",
        {"num_classes": 2, "act_layer": None, "stem": [3, 3]},
    )


def test_what_is_not_said_is_not_done(tmp_path: Path) -> None:
    declaration = declared(tmp_path, "mode: L")
    assert declaration == Declaration("L")
    assert declaration.graph_steps() == () and declaration.head((-1, 10)).task == "regression"
    assert declaration.network_size == (-1, -1)


@pytest.mark.parametrize(
    ("text", "taken", "network"),
    [
        ("steps: [{op: crop_pad, height: 64, width: 48}]", (64, 48), (64, 48)),
        ("steps: [{op: crop_pad, height: 64, width: 48}]\ninput: uint8[-1,-1,-1,3]", (-1, -1), (64, 48)),
        ("steps: [{op: ratio_resize, longest: 64}]", (-1, -1), (-1, -1)),
        ("steps: [{op: ratio_resize, longest: 64}]\ninput: uint8[-1,300,200,3]", (300, 200), (64, 42)),
        ("input: uint8[-1,300,-1,3]", (300, -1), (300, -1)),
        ("{input: 'uint8[-1,30,20]', mode: L}", (30, 20), (30, 20)),
    ],
)
def test_sizes_follow_from_input_and_steps(tmp_path: Path, text: str, taken: Any, network: Any) -> None:
    declaration = declared(tmp_path, text)
    assert (declaration.input, declaration.network_size) == (taken, network)


def test_the_rest_is_told_in_words(tmp_path: Path) -> None:
    declaration = declared(tmp_path, "divide: 2\nmean: 127\nstd: [1, 2, 4]\nsteps: [{op: crop_pad, height: 8, width: 8}]")
    spec = declaration.spec()
    assert spec.steps == (CropPad(8, 8),)
    assert spec.graph == ("cast to float32, NHWC to NCHW", "divide by 2", "normalise: mean 127; std 1, 2, 4")
    assert declaration.spec("float16").graph == (*spec.graph, "cast to float16")
    assert declared(tmp_path, "layout: NHWC").spec("uint8").graph == ()
    assert declared(tmp_path, "{layout: NHWC, mode: L}").spec().graph == ("cast to float32, NHW to NHW1",)


@pytest.mark.parametrize("text", ["{divide: 1, mean: 0.5, std: 0.5}", "{mean: 0, std: 255}", "{mean: 127, std: 1}"])
def test_numbers_of_either_scale_are_taken_where_they_can_be_meant(tmp_path: Path, text: str) -> None:
    assert declared(tmp_path, text).mean


def test_a_folder_is_no_declaration() -> None:
    with pytest.raises(InvalidConfig, match=r"^\. is no file but a folder$"):
        Declaration.read(Path())


HEADS: list[tuple[str, tuple[int, ...], tuple[str, str, float | None]]] = [
    ("activation: softmax", (-1, 3), ("classification", "softmax", None)),
    ("activation: softmax", (-1, 3, -1, -1), ("segmentation", "softmax", None)),
    ("labels: [a, b, c]", (-1, 3), ("classification", "none", None)),
    ("{activation: sigmoid, threshold: 0.3, labels: [a, b, c]}", (-1, 3), ("multilabel", "sigmoid", 0.3)),
    ("{threshold: 1, labels: [a, b, c]}", (-1, 3), ("multilabel", "none", 1)),
    ("{layout: NHWC, labels: [a, b, c]}", (-1, 3, 8, 8), ("segmentation", "none", None)),
    ("mode: RGB", (-1, 3, 8), ("regression", "none", None)),
]


@pytest.mark.parametrize(("text", "shape", "wanted"), HEADS)
def test_head(tmp_path: Path, text: str, shape: tuple[int, ...], wanted: Any) -> None:
    head = declared(tmp_path, text).head(shape)
    assert (head.task, head.activation, head.threshold) == wanted
    assert head.axis == (-1 if head.task == "regression" else 1)


@pytest.mark.parametrize(
    ("text", "shape", "wanted"),
    [
        ("labels: [a, b]", (-1, 3), "2 labels are declared, the network gives [-1, 3]"),
        ("activation: softmax", (-1, 3, 4), "or, for each pixel, [n,classes,H,W]; the network gives [-1, 3, 4]"),
        ("{activation: softmax, layout: NHWC}", (-1, 8, 8, 3), "they tell which axis of a network of NHWC"),
        ("{labels: [a, b, c], layout: NHWC}", (-1, 8, 8, 3), "3 labels are declared, the network gives [-1, 8, 8, 3]"),
        ("{labels: [a, b, c], layout: NHWC}", (-1, 3, 8, 3), "axis 1 and axis 3 of what the network gives, [-1, 3, 8, 3], fit"),
        ("{labels: [a, b, c], layout: NHWC}", (-1, -1, -1, 3), "axis 1 and axis 3 of what the network gives"),
    ],
)
def test_head_that_does_not_fit_the_network(tmp_path: Path, text: str, shape: tuple[int, ...], wanted: str) -> None:
    with pytest.raises(UnsupportedModel, match=re.escape(wanted)):
        declared(tmp_path, text).head(shape)


WRONG = [
    ("", "wanted a map of keys, got nothing"),
    ("{}", "wanted a map of keys, got nothing"),
    ("- mean", "wanted a map of keys, got a list of 1"),
    (
        "mean: [0.485, 0.456, 0.406]\nstd: [0.229, 0.224, 0.225]",
        "mean: 0.485 is of pixels from 0 to 1, and no divide is declared",
    ),
    ("mean: 0\nstd: 1", "divide: 255, or divide: 1 where it is meant"),
    ("mean: [", "spec.yaml: line "),
    ("mena: 1", 'the key "mena" is unknown; did you mean "mean"?'),
    ("5: 1", 'the key "5" is unknown; known are mode, exif_orientation, steps, input'),
    ("centre: 1", "known are mode"),
    ("mode: RGBA", 'mode: wanted one of RGB, L, got the text "RGBA"'),
    ("mode: 1", "mode: wanted one of RGB, L, got 1"),
    ("mode:", "mode: wanted one of RGB, L, got nothing"),
    ("exif_orientation: yes", "exif_orientation: wanted one of ignore, apply, got true"),
    ("layout: nchw", 'layout: wanted one of NCHW, NHWC, got the text "nchw"'),
    ("activation: relu", "activation: wanted one of none, softmax, sigmoid"),
    ("divide: 0", "divide: wanted a number above 0, got 0"),
    ("divide: -1", "divide: wanted a number above 0, got -1"),
    ("divide: '255'", 'divide: wanted a number above 0, got the text "255"'),
    ("divide: true", "divide: wanted a number above 0, got true"),
    ("divide: .inf", "divide: wanted a number above 0, got inf"),
    ("divide: 1.0e-60", "divide: wanted a number above 0, got 1e-60"),
    ("divide: 1e-3", 'divide: wanted a number above 0, got the text "1e-3"; the number is written 1.0e-3'),
    ("divide: 2.5E4", 'got the text "2.5E4"; the number is written 2.5e+4'),
    ("mean: 1e-3\nstd: 1", 'got the text "1e-3"; the number is written 1.0e-3'),
    ("mean: [0.5, 1e-3, 2e-3]\nstd: 1", 'got a list of 3, in it the text "1e-3"; the number is written 1.0e-3'),
    ("divide: 255\nmode: RGB\ndivide: 1", "line 3: a key that stands twice"),
    ("{divide: 255, 'divide': 255}", "line 1: a key that stands twice"),
    ("arguments: &a {x: 1}\nsteps: [*a, {op: &b [*a], op: 2}]", "line 2: a key that stands twice"),
    ("steps:\n- op: resize\n  height: 8\n  width: 8\n  height: 9", "line 5: a key that stands twice"),
    ("mean: .nan\nstd: 1", "mean: wanted one number, or a list of 3, got nan"),
    ("mean: [1, 2]\nstd: 1", "mean: wanted one number, or a list of 3, got a list of 2"),
    ("mean: [1, 2, x]\nstd: 1", "mean: wanted one number, or a list of 3"),
    ("{mode: L, mean: [1, 2, 3], std: 1}", "mean: wanted one number, got a list of 3"),
    ("mean: 0\nstd: [1, 0, 1]", "std: wanted one number, or a list of 3, above 0"),
    ("mean: 0.5", "std: is missing; both are wanted"),
    ("std: 0.5", "mean: is missing; both are wanted"),
    ("threshold: 2\nactivation: sigmoid", "threshold: wanted a number from 0 to 1, got 2"),
    ("threshold: 0.5\nactivation: softmax", "threshold: is for several labels at a time"),
    ("input: [224, 224]", "input: wanted uint8[-1,H,W,3], H and W a length or -1, got a list of 2"),
    ("input: float32[-1,3,224,224]", "input: wanted uint8[-1,H,W,3] for mode RGB"),
    ("input: uint8[-1,224,224]", "input: wanted uint8[-1,H,W,3] for mode RGB"),
    ("input: uint8[8,224,224,3]", "input: wanted uint8[-1,H,W,3] for mode RGB"),
    ("input: long", "input: wanted uint8[-1,H,W,3] for mode RGB"),
    ("input: 'image: uint8[-1,224,224,3]'", "input: wanted uint8[-1,H,W,3] for mode RGB"),
    ("{mode: L, input: 'uint8[-1,224,224,1]'}", "input: wanted uint8[-1,H,W] for mode L"),
    ("input: uint8[-1,0,224,3]", "input: 'uint8[-1,0,224,3]': axis '0'"),
    ("input: uint8[-1,90000,90000,3]", "input: 90000x90000 pixels are more than the limit"),
    ("input: '{\"type\": 5}'", "input: wanted uint8[-1,H,W,3] for mode RGB"),
    ("steps: {op: resize}", "steps: wanted a list of maps, each with `op`, got a map of 1"),
    ("steps: [resize]", 'step 1: wanted a map with `op`, got the text "resize"'),
    ("steps: [{size: 3}]", "step 1: op: got nothing; known are resize, crop_pad"),
    ("steps: [{op: [1]}]", "step 1: op: got a list of 1; known are resize"),
    ("steps: [{op: center_crop, height: 1, width: 1}]", 'got the text "center_crop"; did you mean "centre_crop"?'),
    ("steps: [{op: resize, height: 8}]", "spec.yaml: step 1: resize: width is missing"),
    ("steps: [{op: resize, height: 8, width: 8, antialias: true}]", 'the key "antialias" is unknown; known are op'),
    ("steps: [{op: resize, height: 8, widht: 8}]", 'did you mean "width"?'),
    ("steps: [{op: resize, height: 8, width: 0}]", "step 1: resize: wanted positive height and width, got 8 and 0"),
    (
        "steps: [{op: resize, height: 8, width: 8, method: zoom}]",
        'step 1: resize: method "zoom" is unknown; wanted one of crop',
    ),
    ("steps: [{op: resize, height: 8, width: 8, interpolation: [a]}]", "step 1: resize: wanted numbers and words"),
    (
        "steps: [{op: ratio_resize, longest: 8}]\ninput: uint8[-1,1,900,3]",
        "steps: nothing is left of a picture of 1x900",
    ),
    ("labels: []", "labels: wanted a list of labels"),
    ("labels: {0: a}", "labels: wanted a list of texts, or the name of a file of them, got a map of 1"),
    ("labels:", "labels: wanted a list of texts, or the name of a file of them, got nothing"),
    ("labels: [no, yes]", "labels: label 0: wanted a text, got false"),
    ("labels: [a, 1]", "labels: label 1: wanted a text, got 1"),
    ("labels: ['']", "labels: label 0: wanted a text, got an empty one"),
    ("architecture: resnet18", 'architecture: wanted torchvision.NAME or timm.NAME, got the text "resnet18"'),
    ("architecture: os.system", "architecture: wanted torchvision.NAME or timm.NAME"),
    ("architecture: 'timm.hf_hub:x/y'", "architecture: wanted torchvision.NAME or timm.NAME"),
    ("arguments: {num_classes: 2}", "arguments: are those of an architecture, and none is declared"),
    ("{architecture: timm.x, arguments: [2]}", "arguments: wanted a map of names to plain values, got a list of 1"),
    ("{architecture: timm.x, arguments: {a b: 2}}", "arguments: wanted a map of names to plain values"),
    ("{architecture: timm.x, arguments: {a: {b: 2}}}", "arguments: wanted a map of names to plain values"),
    ("{architecture: timm.x, arguments: {a: 2001-01-01}}", "arguments: wanted a map of names to plain values"),
]


@pytest.mark.parametrize(("text", "wanted"), WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, wanted: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        declared(tmp_path, text)
    assert str(caught.value).startswith("spec.yaml: ")
    assert wanted in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", b"cat\r\ngrey dog \n\n"),
        ("labels.txt", b"\xef\xbb\xbfcat\ngrey dog"),
        ("labels.json", b'["cat", "grey dog"]'),
        ("deep/labels.JSON", b'\xef\xbb\xbf["cat", "grey dog"]'),
    ],
)
def test_labels_of_a_file_beside_it(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / name).write_bytes(content)
    assert declared(tmp_path, f"labels: {name}").labels == ("cat", "grey dog")


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("../secret", None, '"../secret" leads out of the folder'),
        ("/etc/passwd", None, '"/etc/passwd" leads out of the folder'),
        ("link", None, '"link" leads out of the folder'),
        ("pipe", None, "pipe is no file"),
        (".", None, "is no file but a folder"),
        ("none.txt", None, "none.txt cannot be read: No such file"),
        ('"a\\0b"', None, "is no name of a file"),
        ("a" * 300, None, "cannot be read: File name too long"),
        ("l.txt", b"a\n\nb", "label 1: wanted a text, got an empty one"),
        ("l.txt", b"", "label 0: wanted a text, got an empty one"),
        ("l.txt", b"\xff\xfe", "l.txt cannot be read: no UTF-8"),
        ("l.json", b'{"0": "a"}', "wanted a list of labels, or the name of a file of them, got a map of 1"),
        ("l.json", b"[1]", "label 0: wanted a text, got 1"),
        ("l.json", b"[", "l.json: JSON: "),
        ("l.json", b"[" * 1000, "l.json: JSON: nested too deep"),
        ("l.txt", b"a\n" * (9 << 20), "bytes are more than the limit"),
    ],
)
def test_labels_of_a_file_that_cannot_be_taken(tmp_path: Path, name: str, content: bytes | None, wanted: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "pipe")
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(InvalidConfig) as caught:
        declared(folder, f"labels: {name}")
    assert str(caught.value).startswith("spec.yaml: labels: ")
    assert wanted in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"^none\.yaml cannot be read: No such file"):
        Declaration.read(tmp_path / "none.yaml")


def test_a_map_in_python_is_declared_as_well(tmp_path: Path) -> None:
    assert Declaration.parse({"steps": [{"op": "ratio_resize", "longest": 8}]}, tmp_path).steps == (RatioResize(8),)
    with pytest.raises(InvalidConfig, match=r"^the declaration: mode: wanted"):
        Declaration.parse({"mode": "BGR"}, tmp_path)
