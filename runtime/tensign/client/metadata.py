"""What a server says of itself and of a model, as values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self

from tensign import datatypes
from tensign._pb import open_inference_pb2 as pb
from tensign.signature import Signature
from tensign.specs import TensorSpec


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """Name, version and protocol extensions of a server."""

    name: str
    version: str
    extensions: tuple[str, ...]

    @classmethod
    def of(cls, message: pb.ServerMetadataResponse) -> Self:
        """Reads the protocol's message."""
        return cls(message.name, message.version, tuple(message.extensions))


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """The contract of a served model; what only tensign tells is empty or 0 where another server answers.

    labels: the classes in the order of the output; task: "classification", "multilabel", "segmentation" (classes on the axis
    after that of rows) or "regression", "" where nobody said; activation: what the network ends in ("softmax", "sigmoid", ...);
    threshold: the score above which a label of a multi-label model holds; image: the input that takes encoded pictures, ""
    where none does; batch_sizes: what the server warmed up, in rows; max_request_rows: of one unary request;
    max_message_bytes: of one message, both ways; sha256: the digest of all files of the model; preprocess_sha256: of the
    preprocessing it declares; signature: of columns and params, which the protocol cannot tell, None where there are none.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...] = ()
    task: str = ""
    activation: str = ""
    threshold: float | None = None
    image: str = ""
    device: str = ""
    batch_sizes: tuple[int, ...] = ()
    max_request_rows: int = 0
    max_message_bytes: int = 0
    sha256: str = ""
    preprocess_sha256: str = ""
    signature: Signature | None = None

    @classmethod
    def of(cls, message: pb.ModelMetadataResponse) -> Self:
        """Reads the protocol's message. Raises InvalidInput or UnsupportedModel for types that we do not know."""
        extra = message.parameters
        return cls(
            message.name,
            tuple(message.versions),
            message.platform,
            tuple(map(_spec, message.inputs)),
            tuple(map(_spec, message.outputs)),
            labels=tuple(json.loads(extra["labels"].string_param)) if "labels" in extra else (),
            task=extra["task"].string_param,
            activation=extra["activation"].string_param,
            threshold=extra["threshold"].double_param if "threshold" in extra else None,
            image=extra["encoded_images"].string_param,
            device=extra["device"].string_param,
            batch_sizes=tuple(int(rows) for rows in extra["batch_sizes"].string_param.split(",") if rows),
            max_request_rows=extra["max_request_rows"].int64_param,
            max_message_bytes=extra["max_message_bytes"].int64_param,
            sha256=extra["sha256"].string_param,
            preprocess_sha256=extra["preprocess_sha256"].string_param,
            signature=Signature.parse(json.loads(extra["signature"].string_param)) if "signature" in extra else None,
        )


def _spec(tensor: pb.ModelMetadataResponse.TensorMetadata) -> TensorSpec:
    return TensorSpec(tensor.name, datatypes.of_protocol(tensor.datatype).numpy, tuple(tensor.shape))
