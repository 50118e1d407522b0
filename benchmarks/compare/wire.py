"""The two wires that rivals speak: ModelInfer of the Open Inference Protocol over gRPC, and JSON over HTTP/1.1."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from h2load import Request, grpc_request
from tensign._pb import open_inference_pb2 as pb
from tensign.rpc.codec import encode_request

Array = npt.NDArray[Any]

_UNBOUNDED = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]


def infer_request(model: str, name: str, pictures: Array) -> Request:
    """One input, raw."""
    return grpc_request(encode_request(model, {name: pictures}).SerializeToString())


def infer_answer(body: bytes) -> Array:
    """The first output, which is FP32, raw or not: MLServer sends both forms, one of them empty."""
    response = pb.ModelInferResponse.FromString(body)
    output = response.outputs[0]
    raw = response.raw_output_contents
    numbers = np.frombuffer(raw[0], "<f4") if raw else np.array(output.contents.fp32_contents, np.float32)
    return numbers.reshape(output.shape)


def json_request(path: str, document: Any) -> Request:
    body = json.dumps(document, separators=(",", ":")).encode()
    return Request(path, body, ("content-type: application/json",), http1=True)


def json_answer(body: bytes) -> Array:
    """MLflow's {"predictions": [...]}, or {"predictions": {output: [...]}} of one output."""
    predictions = json.loads(body)["predictions"]
    (numbers,) = predictions.values() if isinstance(predictions, dict) else (predictions,)
    return np.array(numbers, np.float32)


def ask(address: str, request: Request, timeout_s: float) -> bytes:
    """One request, one answer's body. Raises OSError or grpc.RpcError."""
    if not request.http1:
        with grpc.insecure_channel(address, options=_UNBOUNDED) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(request.path)
            return call(request.body[5:], timeout=timeout_s)
    headers = dict(header.split(": ", 1) for header in request.headers)
    asked = urllib.request.Request(f"http://{address}{request.path}", request.body, headers)
    with urllib.request.urlopen(asked, timeout=timeout_s) as response:
        body: bytes = response.read()
        return body


def data_bytes(request: Request, answer: bytes) -> int:
    """Bytes of data on the wire that bring that answer."""
    return len(answer) if request.http1 else len(answer) + 5
