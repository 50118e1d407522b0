"""Requests to the identity model that must be refused, and harm nobody."""

from __future__ import annotations

import numpy as np

from tensign._pb import open_inference_pb2 as pb
from tensign.rpc.codec import encode_request

_ROWS = np.zeros((3, 4), np.int64)


def bad_requests(model: str) -> dict[str, pb.ModelInferRequest]:
    """{what is wrong: request}."""
    good = encode_request(model, {"row": _ROWS}, request_id="bad")

    def changed(**fields: object) -> pb.ModelInferRequest:
        request = pb.ModelInferRequest()
        request.CopyFrom(good)
        for name, value in fields.items():
            setattr(request.inputs[0] if name in ("name", "datatype") else request, name, value)
        return request

    found = {
        "datatype": encode_request(model, {"row": _ROWS.astype(np.int32)}, request_id="bad"),
        "rank": encode_request(model, {"row": _ROWS[None]}, request_id="bad"),
        "no rows": encode_request(model, {"row": _ROWS[:0]}, request_id="bad"),
        "name": changed(name="rows"),
        "unknown datatype": changed(datatype="INT63"),
        "model": changed(model_name="nobody"),
        "version": changed(model_version="7"),
        "no input": pb.ModelInferRequest(model_name=model, id="bad"),
    }
    short, long, twice, negative, product, output = (changed() for _ in range(6))
    short.raw_input_contents[0] = short.raw_input_contents[0][:-1]
    long.raw_input_contents[0] += b"\0" * 8
    twice.inputs.add().CopyFrom(twice.inputs[0])
    twice.raw_input_contents.append(twice.raw_input_contents[0])
    negative.inputs[0].shape[0] = -3
    del product.inputs[0].shape[:]
    product.inputs[0].shape.extend([1 << 62, 1 << 62])
    output.outputs.add(name="nothing")
    return found | {
        "too few bytes": short,
        "too many bytes": long,
        "twice": twice,
        "negative axis": negative,
        "overflowing product": product,
        "unknown output": output,
    }
