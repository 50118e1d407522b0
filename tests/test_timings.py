"""The times of an answer's stages, over a real channel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from conftest import save_mean_model
from tensign._pb import open_inference_pb2 as pb
from tensign.config import ModelConfig
from tensign.demo import MODEL
from tensign.model import Model
from tensign.rpc.codec import encode_request
from tensign.testing import serving

STAGES = {"receive_us", "decode_us", "queue_us", "input_us", "compute_us", "output_us", "batch_rows", "batch_bucket"}
SERVICE = "/inference.GRPCInferenceService/"


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    path = save_mean_model(tmp_path_factory.mktemp("timings") / "mean")
    models = Model.load(path, ModelConfig(device="cpu", max_queue_rows=4)), Model.load(MODEL, ModelConfig(device="cpu"))
    with serving(*models) as address, grpc.insecure_channel(address) as channel:
        yield channel


def request(rows: int = 3, timings: bool = True) -> pb.ModelInferRequest:
    message = encode_request("mean", {"input-0": np.zeros((rows, 4, 5, 3), np.uint8)})
    message.parameters["timings"].bool_param = timings
    return message


def infer(channel: grpc.Channel, message: pb.ModelInferRequest) -> pb.ModelInferResponse:
    call = channel.unary_unary(SERVICE + "ModelInfer", pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString)
    return call(message)


def stages(response: pb.ModelInferResponse) -> dict[str, int]:
    return {name: value.int64_param for name, value in response.parameters.items() if name in STAGES}


def test_whoever_asks_is_told_and_nobody_else(channel: grpc.Channel) -> None:
    told = stages(infer(channel, request()))
    assert set(told) == STAGES
    assert 1 <= told["batch_rows"] <= 3 and told["batch_rows"] <= told["batch_bucket"] <= 4
    assert told["receive_us"] > 0 and all(0 <= micros < 10_000_000 for micros in told.values())
    assert stages(infer(channel, request(timings=False))) == {}


def test_decoding_pictures_is_told_apart(channel: grpc.Channel) -> None:
    picture = next(Path(MODEL).parent.rglob("*.jpg")).read_bytes()
    message = encode_request(Path(MODEL).name, {"image": np.array([picture], object)})
    message.parameters["timings"].bool_param = True
    told = stages(infer(channel, message))
    assert told["decode_us"] > 100 and told["compute_us"] > 100 and told["batch_rows"] == 1


def test_on_a_stream_each_part_tells_its_own(channel: grpc.Channel) -> None:
    call = channel.stream_stream(
        SERVICE + "ModelStreamInfer", pb.ModelInferRequest.SerializeToString, pb.ModelStreamInferResponse.FromString
    )
    parts = [answer.infer_response for answer in call(iter([request(10)]))]
    assert len(parts) >= 3 and all(set(stages(part)) == STAGES for part in parts)
    assert sum(int(part.outputs[0].shape[0]) for part in parts) == 10


def test_anything_but_a_bool_is_refused(channel: grpc.Channel) -> None:
    message = request()
    message.parameters["timings"].string_param = "yes"
    with pytest.raises(grpc.RpcError) as refused:
        infer(channel, message)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == 'parameter "timings": wanted a bool'


def test_a_stream_may_ask_for_answers_as_they_are_there_and_for_nothing_else(channel: grpc.Channel) -> None:
    call = channel.stream_stream(
        SERVICE + "ModelStreamInfer", pb.ModelInferRequest.SerializeToString, pb.ModelStreamInferResponse.FromString
    )
    messages = [encode_request("mean", {"input-0": np.zeros((1, 4, 5, 3), np.uint8)}, request_id=str(n)) for n in range(20)]
    answers = list(call(iter(messages), metadata=(("tensign-order", "completed"),)))
    assert sorted(int(answer.infer_response.id) for answer in answers) == list(range(20))
    with pytest.raises(grpc.RpcError) as refused:
        list(call(iter(messages), metadata=(("tensign-order", "best"),)))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT and "completed" in (refused.value.details() or "")
