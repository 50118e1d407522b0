"""What an ONNX file, as it came, says of declared pictures: what is made of it is held against that.

The float steps are NumPy's here, so that what the folded nodes compute is computed by something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.config import MAX_PIXELS
from tensign.errors import UnsupportedModel
from tensign.proof.parity import LOGITS, NETWORK_INPUT
from tensign_converters.declared.declaration import Declaration
from tensign_converters.graph import OUTPUT
from tensign_converters.onnxfiles.file import read_onnx

PREFIX = "network."  # of all inner names that are the file's own
_OURS = (NETWORK_INPUT, LOGITS)
_OUR_PREFIXES = (PREFIX, "steps.", "head.")
Answers = dict[str, npt.NDArray[Any]]
_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}


def original_answers(file: Path, declaration: Declaration) -> Callable[[Sequence[Mapping[str, Any]]], Answers]:
    """A function of samples, one {name: uint8 [H,W,3] or [H,W], or the file of a picture} each: each output, [n,...], by the
    name it has in the converted model, the declared activation applied; LOGITS besides, where there is one.

    It raises UnsupportedModel, as this does, for a network that fails on them.
    """
    read_onnx(file)  # refuses what ONNX Runtime should not open
    session = open_session(file)
    given, spec = session.get_inputs()[0], declaration.spec()
    dtype = _DTYPES.get(given.type, "float32")
    rows = given.shape[0] if given.shape and isinstance(given.shape[0], int) else 1
    for value in session.get_outputs():
        if not value.type.startswith("tensor("):
            raise UnsupportedModel(f'{file.name}: output "{value.name}": wanted a tensor, got {value.type}')
    names = output_names([value.name for value in session.get_outputs()], declaration)

    def one(sample: Mapping[str, Any]) -> Answers:
        (picture,) = sample.values()
        if isinstance(picture, Path):
            pixels = spec.encoded([picture.read_bytes()], height=-1, width=-1)
        else:
            pixels = spec.arrays(picture[None])
        if rows * pixels.size > 3 * MAX_PIXELS:
            raise UnsupportedModel(f"{file.name} takes {_rows(rows)} at a time, which is more than {MAX_PIXELS} pixels")
        tensor = np.repeat(_network_input(declaration, pixels, dtype), rows, axis=0)
        answers = dict(zip(names, run(session, {given.name: tensor}, list(names)), strict=True))
        for name, answer in answers.items():
            if answer.shape[:1] != (rows,):
                raise UnsupportedModel(f'output "{name}": wanted one for each row, got {list(answer.shape)} of {_rows(rows)}')
        if declaration.activation == "none":
            return {names[name]: answer[:1] for name, answer in answers.items()}
        (name,) = names.values()
        logits = next(iter(answers.values()))[:1].astype(np.float32)
        return {name: _activated(declaration.activation, logits), LOGITS: logits}

    def answers(samples: Sequence[Mapping[str, Any]]) -> Answers:
        each = [one(sample) for sample in samples]
        return {name: np.concatenate([answer[name] for answer in each]) for name in each[0]}

    return answers


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def kept(name: str, otherwise: str = "") -> str:
    """A name of the file's, or another where it is one of ours."""
    return (otherwise or PREFIX + name) if name in _OURS or name.startswith(_OUR_PREFIXES) else name


def output_names(outputs: Sequence[str], declaration: Declaration) -> dict[str, str]:
    """What the file's outputs are called in the converted model: as in the file, where it can be.

    Raises UnsupportedModel where something is declared of one output and there are several.
    """
    one = declaration.activation != "none" or declaration.labels or declaration.threshold is not None
    if one and len(outputs) != 1:
        named = ", ".join(outputs)
        raise UnsupportedModel(f"activation, labels and threshold are for one output, and there are {len(outputs)}: {named}")
    if declaration.activation != "none":
        return {outputs[0]: kept(outputs[0], OUTPUT)}
    return {name: name if [name] == [*outputs] == [LOGITS] else kept(name) for name in outputs}


def open_session(model: Path | bytes) -> Any:
    """ONNX Runtime on the CPU. Raises UnsupportedModel."""
    try:
        import onnxruntime
    except ImportError:
        raise UnsupportedModel("folding needs onnxruntime: pip install 'tensign[cpu,convert]'") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what matters is raised
    try:
        source = model if isinstance(model, bytes) else str(model)
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no base but Exception
        raise UnsupportedModel(f"ONNX Runtime cannot load it: {str(error)[:300]}") from None


def run(session: Any, inputs: Mapping[str, npt.NDArray[Any]], outputs: list[str]) -> list[npt.NDArray[Any]]:
    """The outputs asked for. Raises UnsupportedModel."""
    try:
        answers = session.run(outputs, dict(inputs))
    except Exception as error:
        shapes = ", ".join(f"{array.dtype} {list(array.shape)}" for array in inputs.values())
        raise UnsupportedModel(f"ONNX Runtime fails on {shapes}: {str(error)[:300]}") from None
    return [np.asarray(answer) for answer in answers]


def _network_input(declaration: Declaration, pixels: npt.NDArray[np.uint8], dtype: str) -> npt.NDArray[Any]:
    """uint8 [n,h,w,3] or [n,h,w] -> what the file's own input takes."""
    x: npt.NDArray[Any] = pixels.reshape(*pixels.shape[:3], declaration.channels)
    if dtype != "uint8":
        x = x.astype(np.float32)
        if declaration.divide is not None:
            x = x / np.float32(declaration.divide)
        if declaration.mean is not None:
            x = (x - np.array(declaration.mean, np.float32)) / np.array(declaration.std, np.float32)
    x = x.transpose(0, 3, 1, 2) if declaration.layout == "NCHW" else x
    return np.ascontiguousarray(x, dtype)


def _activated(activation: str, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Classes are on axis 1."""
    wide = logits.astype(np.float64)
    if activation == "sigmoid":
        return (0.5 * (1 + np.tanh(wide / 2))).astype(np.float32)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
