"""A directory -> what `inspect` tells of it, as text and as JSON."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

import hostile
from tensign.errors import TensignError
from tensign.inspection import inspected

MAX_LENGTH = 2048
WORDS = [
    *(b"!!binary", b"!!timestamp", b"!!int", b"!!float", b"!!set", b"!!omap", b"!!python/object:", b"<<: *a", b"&a", b"*a"),
    *(b"flavors:", b"onnx:", b"tensign:", b"fastai:", b"signature:", b"inputs:", b"outputs:", b"metadata:", b"preprocess:"),
    *(b'"tensor-spec"', b'"dtype"', b'"shape"', b"steps:", b"op: resize", b"height:", b"labels:", b"threshold:", b"2001-01-01"),
]

_DIRECTORY = Path(tempfile.mkdtemp(prefix="tensign-fuzz-"))
(_DIRECTORY / "model.onnx").write_bytes(b"not looked at")
_LABELS = b"\n#labels#\n"  # what follows is the file of labels


def seeds() -> Iterator[bytes]:
    folder = Path(tempfile.mkdtemp(prefix="tensign-fuzz-"))
    for number, case in enumerate(hostile.DIRECTORIES):
        path = folder / str(number) / "model"
        path.parent.mkdir()
        case.make(path)
        file = path / "MLmodel"
        if file.is_file() and not file.is_symlink() and file.stat().st_size <= MAX_LENGTH:
            yield file.read_bytes()
    for flavor in ({"data": "model.onnx", "labels": "labels", "threshold": 0.5}, {"data": "model.onnx"}):
        for preprocess in ({"version": 1, "steps": [hostile.RESIZE], "graph": ["x"]}, None):
            document = hostile.document(flavors={"onnx": flavor}, metadata={"tensign": {"preprocess": preprocess}})
            yield yaml.safe_dump(document).encode() + _LABELS + b'["a", "b"]'


def enter(content: bytes) -> None:
    document, _, labels = content.partition(_LABELS)
    (_DIRECTORY / "MLmodel").write_bytes(document)
    (_DIRECTORY / "labels").write_bytes(labels)
    try:
        facts = inspected(_DIRECTORY)
    except TensignError as error:
        assert 0 < len(str(error).encode()) <= 1000
    else:
        json.dumps(facts, default=str).encode()
