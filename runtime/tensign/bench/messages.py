"""The serialized requests that a load sends in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.bench.load import Load
from tensign.client.metadata import ModelMetadata
from tensign.errors import InvalidConfig, InvalidInput
from tensign.rpc.codec import encode_request
from tensign.signature import TensorSpec

ANY_SIDE = 224  # of an axis that the signature leaves open


def messages(metadata: ModelMetadata, load: Load, images: Sequence[bytes] = ()) -> list[bytes]:
    """Requests of `load.rows` rows: of `images`, each once or more, or one of random tensors by the signature.

    Raises InvalidInput where the model takes no encoded pictures, InvalidConfig where there are none.
    """
    random = np.random.default_rng(load.seed)
    tensors = {spec.name: _random(spec, load.rows, random) for spec in metadata.inputs}
    if not load.encoded:
        return [_message(metadata.name, tensors, load)]
    if not metadata.image:
        raise InvalidInput(f'model "{metadata.name}" declares no preprocessing, so it takes no encoded images')
    if not images:
        raise InvalidConfig("images: there are none to send")
    found = []
    for first in range(len(images)):
        rows = np.empty(load.rows, object)
        rows[:] = [images[(first + row) % len(images)] for row in range(load.rows)]
        found.append(_message(metadata.name, {**tensors, metadata.image: rows}, load))
    return found


def _message(model: str, tensors: dict[str, npt.NDArray[Any]], load: Load) -> bytes:
    request = encode_request(model, tensors)
    if load.streams:  # which has a deadline for all of it only; microseconds, as Triton reads it
        request.parameters["timeout"].int64_param = int(load.timeout_s * 1e6)
    return request.SerializeToString()


def _random(spec: TensorSpec, rows: int, random: np.random.Generator) -> npt.NDArray[Any]:
    shape = (rows, *(side if side != -1 else ANY_SIDE for side in spec.shape[1:]))
    if spec.dtype.kind == "f":
        return random.standard_normal(shape).astype(spec.dtype)
    if spec.dtype.kind in "iub":
        return random.integers(0, 2 if spec.dtype.kind == "b" else 100, shape).astype(spec.dtype)
    empty = np.empty(shape, object)
    empty.fill(b"")
    return empty
