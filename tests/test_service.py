"""The RPCs over a real channel, as any client of the protocol would call them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from conftest import CPU
from tensign._pb import open_inference_pb2 as pb
from tensign.admission import Admission
from tensign.classification import Prediction
from tensign.client import Client
from tensign.config import ModelConfig, ServerConfig
from tensign.demo import MODEL
from tensign.errors import DeadlineExceeded, InvalidInput, ModelNotFound, ModelNotReady, QueueFull, TooLarge
from tensign.model import Model
from tensign.repository import Repository
from tensign.rpc.codec import decode_response, encode_request
from tensign.rpc.service import InferenceService
from tensign.signature import TensorSpec
from tensign.testing import serving

SERVICE = "/inference.GRPCInferenceService/"
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)


def message(rows: npt.NDArray[Any] = PIXELS, *, version: str = "", request_id: str = "") -> bytes:
    return encode_request("mean", {"input-0": rows}, version=version, request_id=request_id).SerializeToString()


@pytest.fixture
def client(mean_address: str) -> Iterator[Client]:
    with Client(mean_address) as client:
        yield client


def test_live_ready_and_metadata(mean_address: str) -> None:
    with grpc.insecure_channel(mean_address) as channel:

        def call(name: str, request: Any, answer: Any) -> Any:
            return channel.unary_unary(SERVICE + name, type(request).SerializeToString, answer.FromString)(request)

        assert call("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse) == pb.ServerLiveResponse(live=True)
        assert call("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse) == pb.ServerReadyResponse(ready=True)
        for name, ready in (("mean", True), ("other", False)):
            assert call("ModelReady", pb.ModelReadyRequest(name=name), pb.ModelReadyResponse) == pb.ModelReadyResponse(
                ready=ready
            )
        server = call("ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse)
        assert isinstance(server, pb.ServerMetadataResponse)
        assert server.name == "tensign" and "encoded_images" in server.extensions


def test_metadata_is_the_signature(client: Client) -> None:
    metadata = client.metadata()
    assert metadata.inputs == (TensorSpec("input-0", np.dtype(np.uint8), (-1, 4, 5, 3)),)
    assert metadata.outputs == (TensorSpec("output-0", np.dtype(np.float32), (-1, 3)),)
    assert (metadata.image, metadata.labels, metadata.threshold) == ("", (), None)
    assert (metadata.max_request_rows, metadata.max_message_bytes) == (512, 256 << 20)


def test_the_metadata_of_a_model_with_preprocessing_announces_encoded_images(demo_address: str) -> None:
    with Client(demo_address) as client:
        metadata = client.metadata()
    assert (metadata.image, metadata.activation, metadata.device) == ("image", "softmax", "cpu")
    assert len(metadata.preprocess_sha256) == 64
    assert len(metadata.labels) == 1000 and metadata.labels[967] == "espresso"


def test_raw_and_typed_contents_give_the_same_answer(client: Client) -> None:
    typed = pb.ModelInferRequest(model_name="mean", id="7")
    typed.inputs.add(name="input-0", datatype="UINT8", shape=PIXELS.shape).contents.uint_contents.extend(
        PIXELS.ravel().tolist()
    )
    answer = client.send(typed.SerializeToString())
    assert (answer.id, answer.model_name, answer.model_version) == ("7", "mean", "1")
    expected = PIXELS.mean((1, 2))
    np.testing.assert_allclose(decode_response(answer)["output-0"], expected, rtol=1e-6)
    np.testing.assert_allclose(decode_response(client.send(message()))["output-0"], expected, rtol=1e-6)


def test_the_error_of_a_wrong_tensor_names_it(client: Client) -> None:
    with pytest.raises(InvalidInput, match=r'^input "input-0": expected uint8 \[-1,4,5,3\], got float32 \[1,3,4,5\]$'):
        client.send(message(np.zeros((1, 3, 4, 5), np.float32)))


def test_unknown_models_versions_and_outputs_are_named(client: Client) -> None:
    with pytest.raises(ModelNotFound, match='model "other" is not served here; served: mean'):
        client.send(encode_request("other", {"input-0": PIXELS}).SerializeToString())
    with pytest.raises(ModelNotFound, match='no version "9"'):
        client.send(message(version="9"))
    request = pb.ModelInferRequest.FromString(message())
    request.outputs.add(name="nothing")
    with pytest.raises(InvalidInput, match='output "nothing" is unknown; the model gives output-0'):
        client.send(request.SerializeToString())


def test_a_stream_answers_in_order_and_survives_bad_requests(client: Client) -> None:
    def messages() -> Iterator[bytes]:
        for number in range(50):
            rows = np.full((number % 4 + 1, 4, 5, 3), number, np.uint8)
            yield message(rows.astype(np.float32) if number % 10 == 3 else rows, request_id=str(number))

    answers = list(client.send_stream(messages(), window=8))
    assert [answer.infer_response.id for answer in answers] == [str(number) for number in range(50)]
    for number, answer in enumerate(answers):
        if number % 10 == 3:
            assert answer.error_message.startswith('input "input-0": expected uint8 [-1,4,5,3], got float32')
            assert not answer.infer_response.outputs
        else:
            assert not answer.error_message
            mean = decode_response(answer.infer_response)["output-0"]
            np.testing.assert_array_equal(mean, np.full((number % 4 + 1, 3), number, np.float32))


def test_a_bad_picture_in_a_stream_fails_alone(demo_address: str, pictures: list[Path]) -> None:
    with Client(demo_address) as client:
        first, bad, last = client.stream([pictures[3], b"no picture", pictures[3]])
    assert first.labels == last.labels and first.label == "espresso"
    assert isinstance(bad.error, InvalidInput) and "no JPEG, PNG, WEBP, BMP picture" in str(bad.error)


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_bytes_that_are_no_request_end_that_call_at_once(mean_address: str, client: Client, method: str) -> None:
    with grpc.insecure_channel(mean_address) as channel:
        started = time.perf_counter()
        with pytest.raises(grpc.RpcError) as refused:
            if method == "ModelInfer":
                channel.unary_unary(SERVICE + method, bytes, bytes)(b"\xff" * 40, timeout=60)
            else:
                list(channel.stream_stream(SERVICE + method, bytes, bytes)(iter([message(), b"\xff" * 40]), timeout=60))
    assert (refused.value.code(), refused.value.details()) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "40 bytes are no ModelInferRequest",
    )
    assert time.perf_counter() - started < 30  # not its deadline
    assert client.send(message()).outputs


def test_a_shape_of_many_short_axes_does_not_hold_up_the_server(mean_address: str, client: Client) -> None:
    request = pb.ModelInferRequest(model_name="mean", raw_input_contents=[bytes(4 << 16)])
    request.inputs.add(name="input-0", datatype="BYTES", shape=[2] * 16)
    refused: list[Exception] = []

    def send() -> None:
        with Client(mean_address, model="mean") as other, pytest.raises(InvalidInput) as error:
            other.send(request.SerializeToString())
        refused.append(error.value)

    thread = threading.Thread(target=send)
    thread.start()
    slowest = 0.0
    while thread.is_alive():
        started = time.perf_counter()
        assert client.ready()
        slowest = max(slowest, time.perf_counter() - started)
    thread.join()
    assert "got object [2,2,2" in str(refused[0])
    assert slowest < 0.5


def test_many_streams_share_a_small_queue(mean_model: Path) -> None:
    small = ModelConfig(device="cpu", max_queue_rows=16, max_batch_size=1)
    with serving(Model.load(mean_model, small, name="mean")) as address:

        def stream() -> list[str]:
            with Client(address) as client:
                return [answer.error_message for answer in client.send_stream([message()] * 50, window=64)]

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: stream(), range(16)))
    assert answers == [[""] * 150] * 16  # three rows each, one row a batch


def test_a_stream_of_more_rows_than_the_queue_holds_is_slowed_not_refused(mean_model: Path) -> None:
    small = ModelConfig(device="cpu", max_queue_rows=8)
    rows = np.zeros((5, 4, 5, 3), np.uint8)
    with serving(Model.load(mean_model, small, name="mean")) as address, Client(address) as client:
        answers = list(client.send_stream([message(rows)] * 200, window=100))
        assert {answer.error_message for answer in answers} == {""}
        with pytest.raises(TooLarge, match="9 rows in one request are more than the queue's 8"):
            client.send(message(np.zeros((9, 4, 5, 3), np.uint8)))


def test_more_rows_than_a_batch_holds_are_answered_in_parts_on_a_stream_and_whole_on_unary(mean_model: Path) -> None:
    rows = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 5, 3), np.uint8)
    with serving(Model.load(mean_model, ModelConfig(device="cpu", max_batch_size=4), name="mean")) as address:
        with Client(address) as client:
            largest = client.metadata().batch_sizes[-1]
            parts = [answer.infer_response for answer in client.send_stream([message(rows, request_id="x"), message(rows[:1])])]
            whole = decode_response(client.send(message(rows)))["output-0"]
    single = parts.pop()
    assert not {"first_row", "triton_final_response"} & set(single.parameters)
    assert [part.parameters["first_row"].int64_param for part in parts] == list(range(0, 10, largest))
    assert [part.parameters["triton_final_response"].bool_param for part in parts] == [False] * (len(parts) - 1) + [True]
    assert {part.id for part in parts} == {"x"}
    np.testing.assert_array_equal(np.concatenate([decode_response(part)["output-0"] for part in parts]), whole)
    np.testing.assert_array_equal(whole[:, 0], np.arange(10))


def test_an_error_in_a_stream_says_its_status(client: Client) -> None:
    refused, answered = client.send_stream([message(np.zeros((1, 3, 4, 5), np.float32)), message()])
    assert refused.infer_response.parameters["status"].string_param == "INVALID_ARGUMENT"
    assert "status" not in answered.infer_response.parameters


def test_a_request_may_bring_its_own_deadline(client: Client) -> None:
    request = pb.ModelInferRequest.FromString(message())
    request.parameters["timeout"].int64_param = 1  # microseconds
    with pytest.raises(DeadlineExceeded):
        client.send(request.SerializeToString())
    late, answered = client.send_stream([request.SerializeToString(), message()])
    assert late.infer_response.parameters["status"].string_param == "DEADLINE_EXCEEDED"
    assert answered.infer_response.outputs
    request.parameters["timeout"].string_param = "soon"
    with pytest.raises(InvalidInput, match="timeout"):
        client.send(request.SerializeToString())


def test_bytes_on_their_way_are_bounded(mean_model: Path) -> None:
    """A unary call is refused, streams wait; neither is lost."""
    rows = np.zeros((100, 4, 5, 3), np.uint8)
    size = len(message(rows))
    tight = ServerConfig(grpc_port=0, drain_s=5.0, max_inflight_bytes=size + 1)
    with serving(Model.load(mean_model, CPU, name="mean"), config=tight) as address, ThreadPoolExecutor(8) as pool:

        def stream(_: int) -> set[str]:
            with Client(address) as client:
                return {answer.error_message for answer in client.send_stream([message(rows)] * 50)}

        def unary(_: int) -> str:
            with Client(address, retries=0) as client:
                try:
                    for _ in range(20):
                        client.send(message(rows))
                    return "never refused"
                except QueueFull as error:
                    return str(error)

        streams = [pool.submit(stream, number) for number in range(4)]
        unaries = [pool.submit(unary, number) for number in range(4)]
        assert [done.result() for done in streams] == [{""}] * 4
        told = {done.result() for done in unaries}
    assert any(f"{size} bytes of requests are on their way" in text for text in told), told


def test_streams_end_with_the_age_of_their_connection_after_all_answers(mean_model: Path) -> None:
    young = ServerConfig(grpc_port=0, drain_s=5.0, max_connection_age_s=0.3)
    with serving(Model.load(mean_model, CPU, name="mean"), config=young) as address:
        with grpc.insecure_channel(address) as channel:
            sent = 0

            def endless() -> Iterator[bytes]:
                nonlocal sent
                while True:
                    sent += 1
                    yield message()

            call = channel.stream_stream(SERVICE + "ModelStreamInfer", bytes, bytes)(endless())
            with pytest.raises(grpc.RpcError) as ended:
                answers = 0
                for _ in call:
                    answers += 1
            assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
            assert "connect again" in str(ended.value.details())
            assert 0 < answers <= sent


def test_a_text_of_an_error_is_never_too_long_to_arrive(client: Client) -> None:
    names = {f"{number:05}" + "x" * 60: PIXELS for number in range(3000)}
    with pytest.raises(InvalidInput, match=r'missing input "input-0"'):
        client.send(encode_request("mean", names).SerializeToString())
    with pytest.raises(InvalidInput, match="and 2996 more"):
        client.send(encode_request("mean", {"input-0": PIXELS, **dict(list(names.items()))}).SerializeToString())


@asynccontextmanager
async def running(model: Model, config: ServerConfig) -> AsyncIterator[tuple[Callable[[], grpc.aio.Channel], Admission]]:
    """The service over real connections, in the same event loop, so that one may look at what it holds."""
    admission, server = Admission(config.max_inflight_bytes), grpc.aio.server()
    service = InferenceService(Repository([model]), config, admission)
    server.add_generic_rpc_handlers((service.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    # Each its own connection, whose window does not grow: what nobody reads soon stays with the server.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 14)]
    try:
        async with AsyncExitStack() as stack:
            channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in range(40)]
            for channel in channels:
                await stack.enter_async_context(channel)
            yield iter(channels).__next__, admission
    finally:
        await server.stop(None)
        model.close()


def kept_by(admission: Admission) -> tuple[int, int, int]:
    """Calls in flight, bytes of requests, bytes of answers that were not read."""
    return admission.active, admission.budget.held, admission.budget.kept


async def eventually(holds: Callable[[], bool]) -> bool:
    """True as soon as it holds: the server hears of a client's end some moments later."""
    until = time.monotonic() + 10
    while not holds() and time.monotonic() < until:  # noqa: ASYNC110 - what it waits for happens inside gRPC
        await asyncio.sleep(0.005)
    return holds()


async def endless(content: bytes) -> AsyncIterator[bytes]:
    while True:
        yield content


def stream_of(channel: grpc.aio.Channel, content: bytes) -> grpc.aio.StreamStreamCall[Any, bytes]:
    return channel.stream_stream(SERVICE + "ModelStreamInfer", bytes, bytes)(endless(content))


def test_a_client_that_leaves_mid_stream_leaves_nothing_behind(mean_model: Path) -> None:
    async def check() -> None:
        async with running(Model.load(mean_model, CPU, name="mean"), ServerConfig()) as (connected, admission):
            channel = connected()
            for _ in range(5):
                call = stream_of(channel, message())
                await call.read()
                assert admission.active == 1
                call.cancel()
                assert await eventually(lambda: kept_by(admission) == (0, 0, 0)), kept_by(admission)
            assert await channel.unary_unary(SERVICE + "ModelInfer", bytes, bytes)(message())

    asyncio.run(check())


def test_streams_that_nobody_reads_stay_within_the_budget_and_stop_nobody(mean_model: Path) -> None:
    """32 of them; unary calls and another stream go on, and what the 32 held comes back when they leave."""
    slow, content = 32, message(np.zeros((100, 4, 5, 3), np.uint8), request_id="x" * 1000)
    answer_bytes, limit = 10_000, 64 * len(content)

    async def check() -> None:
        tight = ServerConfig(max_inflight_bytes=limit)
        async with running(Model.load(mean_model, CPU, name="mean"), tight) as (connected, admission):
            most = 0

            def measured() -> bool:
                nonlocal most
                active, held, kept = kept_by(admission)
                most = max(most, held + kept)
                return active == slow and kept > limit // 4 and not held  # nothing moves any longer

            stuck = [stream_of(connected(), content) for _ in range(slow)]
            for call in stuck:
                await call.read()  # and never another
            assert await eventually(measured), kept_by(admission)
            infer = connected().unary_unary(SERVICE + "ModelInfer", bytes, bytes)
            reader = stream_of(connected(), content)
            for _ in range(50):
                assert await reader.read() and await infer(content)
                measured()
            assert most <= limit + slow * answer_bytes  # one each may always wait
            for call in (*stuck, reader):
                call.cancel()
            assert await eventually(lambda: kept_by(admission) == (0, 0, 0)), kept_by(admission)

    asyncio.run(check())


def test_a_deadline_that_passes_is_a_deadline_exceeded(mean_model: Path) -> None:
    hasty = ServerConfig(grpc_port=0, timeout_s=1e-9)
    with serving(Model.load(mean_model, CPU, name="mean"), config=hasty) as address, grpc.insecure_channel(address) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(SERVICE + "ModelInfer", bytes, bytes)(message())  # brings no deadline of its own
    assert refused.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    with Client("127.0.0.1:1", timeout_s=0.2) as nobody, pytest.raises((DeadlineExceeded, ModelNotReady)):
        nobody.statistics()


def test_messages_far_above_grpcs_usual_4_mib(demo_address: str) -> None:
    rows = np.zeros((64, 256, 256, 3), np.uint8)  # 12.6 MB
    with Client(demo_address) as client:
        assert client.infer({"image": rows})["probabilities"].shape == (64, 1000)


def test_top_classes_come_as_the_classification_extension(demo_address: str, pictures: list[Path]) -> None:
    with Client(demo_address) as client:
        request = pb.ModelInferRequest.FromString(client.request(pictures[3]))
        request.outputs.add(name="probabilities").parameters["classification"].int64_param = 5
        [texts] = decode_response(client.send(request.SerializeToString()))["probabilities"]
    best = [Prediction.parse(text) for text in texts]
    assert best[0].label == "espresso"
    assert [prediction.score for prediction in best] == sorted((prediction.score for prediction in best), reverse=True)
    assert len(best) == 5


def test_statistics_tell_batches_and_stages(client: Client) -> None:
    for _ in range(4):
        client.send(message())
    [stats] = client.statistics()
    assert (stats.name, stats.inference_count, stats.execution_count) == ("mean", 12, 4)
    assert [(batch.batch_size, batch.compute_infer.count) for batch in stats.batch_stats] == [(3, 4)]
    assert stats.inference_stats.success.count == 4
    assert stats.inference_stats.compute_infer.ns > 0


def test_requests_of_many_clients_share_batches() -> None:
    """A pair takes barely longer than one where the machine has two cores: warm-up says so, or nothing is shared."""
    model = Model.load(MODEL, CPU)
    with serving(model) as address:
        pixels = np.zeros((1, 256, 256, 3), np.uint8)

        def call() -> None:
            with Client(address) as client:
                for _ in range(10):
                    client.infer({"image": pixels})

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with Client(address) as client:
            [stats] = client.statistics()
    assert stats.inference_count == 80
    shared = model.buckets.largest > 1
    assert (stats.execution_count < 80) == shared
