from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import CPU
from tensign._pb import open_inference_pb2 as pb
from tensign.classification import Prediction
from tensign.client import Answer, AsyncClient, Client, ModelMetadata
from tensign.client.messages import Messages
from tensign.config import ModelConfig, ServerConfig
from tensign.errors import (
    DeadlineExceeded,
    InvalidConfig,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    TensignError,
    TooLarge,
    UndecodableImage,
)
from tensign.model import Model
from tensign.rpc.codec import decode_request
from tensign.signature import TensorSpec
from tensign.testing import serving


def test_paths_bytes_arrays_and_pillow_images_of_one_picture_agree(demo_address: str, pictures: list[Path]) -> None:
    picture = next(file for file in pictures if file.suffix == ".png")
    pillow = Image.open(picture).convert("RGB")
    with Client(demo_address) as client:
        answers = client.predict([picture, str(picture), picture.read_bytes(), pillow, np.asarray(pillow)], top=3)
        alone = client.predict(picture, top=3)
    assert {tuple(answer.labels) for answer in [*answers, alone]} == {tuple(alone.labels)}
    assert [len(answer.predictions) for answer in answers] == [3] * 5
    assert [answer.source for answer in answers] == [str(picture)] * 2 + [""] * 3
    np.testing.assert_array_equal(alone.outputs["probabilities"], answers[0].outputs["probabilities"])
    assert alone.outputs["probabilities"].shape == (1000,)
    assert alone.scores[0] == alone.outputs["probabilities"].max()


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "CMYK"])
@pytest.mark.parametrize("size", [(256, 256), (300, 200)])
def test_pictures_of_other_channels_are_converted_as_pillow_would(
    demo_address: str, pictures: list[Path], mode: str, size: tuple[int, int]
) -> None:
    picture = Image.open(pictures[3]).convert("RGB").resize(size).convert(mode)
    with Client(demo_address) as client:
        expected = client.predict(np.asarray(picture.convert("RGB"))).outputs["probabilities"]
        same: list[Any] = [picture]
        if mode in ("L", "RGBA"):
            same.append(np.asarray(picture))
        if mode == "L":
            same.append(np.asarray(picture)[:, :, None])
        for answer in client.predict(same):
            np.testing.assert_array_equal(answer.outputs["probabilities"], expected)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4)])
def test_a_model_of_grey_pictures_gets_grey_ones(shape: tuple[int, ...]) -> None:
    grey = TensorSpec("x", np.dtype(np.uint8), (-1, 4, 5, 1))
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    request = pb.ModelInferRequest.FromString(Messages(ModelMetadata("m", (), "", (grey,), ()), timeout_s=1).of(pixels))
    modes = pixels if len(shape) == 2 or shape[2] > 1 else pixels[:, :, 0]
    expected = np.asarray(Image.fromarray(modes).convert("L"))
    np.testing.assert_array_equal(decode_request(request)["x"][0, :, :, 0], expected)


def test_an_array_that_is_no_picture_is_refused_by_its_shape(demo_address: str) -> None:
    with Client(demo_address) as client, pytest.raises(InvalidInput, match=r"expected uint8 .* got uint8 \[1,5,5,2\]"):
        client.predict(np.zeros((5, 5, 2), np.uint8))


def test_a_batch_of_arrays_is_several_pictures(demo_address: str) -> None:
    with Client(demo_address) as client:
        one = client.predict(np.zeros((256, 256, 3), np.uint8))
        several = client.predict(np.zeros((3, 256, 256, 3), np.uint8))
    assert isinstance(one, Answer)
    assert isinstance(several, list) and [answer.label for answer in several] == [one.label] * 3


def test_a_single_picture_or_mapping_streams_as_one(demo_address: str, mean_address: str, pictures: list[Path]) -> None:
    with Client(f"grpc://{demo_address}") as client:
        assert [answer.checked().source for answer in client.stream(str(pictures[0]))] == [str(pictures[0])]
        assert len(list(client.stream(pictures[0].read_bytes()))) == 1  # type: ignore[arg-type]
        with pytest.raises(InvalidConfig, match="top: wanted at least 1, got 0"):
            client.predict(pictures[0], top=0)
    with Client(mean_address) as client:
        [answer] = client.stream({"input-0": np.zeros((2, 4, 5, 3), np.uint8)})
        assert answer.checked().outputs["output-0"].shape == (2, 3)


def test_predict_raises_what_a_stream_would_tell(demo_address: str, pictures: list[Path]) -> None:
    with Client(demo_address) as client:
        with pytest.raises(InvalidInput, match="no JPEG"):
            client.predict(b"no picture")
        with pytest.raises(InvalidInput, match="no JPEG"):
            client.predict([pictures[0], b"no picture"])
        with pytest.raises(InvalidInput, match=r"missing\.jpg: No such file or directory"):
            client.predict("missing.jpg")
        with pytest.raises(InvalidInput, match=r"missing\.jpg: No such file or directory"):
            client.predict([pictures[0], "missing.jpg"])
        with pytest.raises(InvalidInput, match="got a mapping; `infer` takes"):
            client.predict({"image": [b""]})


def test_a_stream_of_pictures_is_read_lazily(demo_address: str, pictures: list[Path]) -> None:
    asked = 0

    def endless() -> Iterator[Path]:
        nonlocal asked
        while True:
            asked += 1
            yield pictures[0]

    with Client(demo_address) as client:
        answers = client.stream(endless(), window=4)
        for _ in range(10):
            next(answers)
        assert asked <= 10 + 2 * 4 + 1
        answers.close()  # type: ignore[attr-defined]


def test_a_file_that_cannot_be_read_is_an_answer_like_any_other(
    demo_address: str, pictures: list[Path], tmp_path: Path
) -> None:
    good, missing = str(pictures[0]), tmp_path / "missing.jpg"
    orders: list[list[str | Path]] = [[missing, good, missing, missing, good], [good, missing], [missing], []]
    with Client(demo_address) as client:
        for order in orders:
            answers = list(client.stream(order, window=2))
            assert [answer.error is None for answer in answers] == [image is good for image in order]
            assert [answer.source for answer in answers] == [str(image) for image in order]
            for answer in answers:
                assert answer.error is None or str(answer.error) == f"{missing}: No such file or directory"


def test_an_answer_that_is_not_ready_does_not_hold_back_what_nobody_sends(demo_address: str, pictures: list[Path]) -> None:
    """Answers come while the iterable still thinks about its next picture."""
    told = threading.Event()

    def slow() -> Iterator[str | Path]:
        yield "missing.jpg"
        yield pictures[0]
        assert told.wait(30)

    with Client(demo_address) as client:
        answers = client.stream(slow())
        assert next(answers).error is not None
        assert next(answers).error is None
        told.set()
        assert list(answers) == []


def test_an_error_of_the_iterable_reaches_the_caller_after_the_answers(demo_address: str, pictures: list[Path]) -> None:
    def broken() -> Iterator[Path]:
        yield pictures[0]
        raise KeyError("mine")

    with Client(demo_address) as client:
        answers = client.stream(broken())
        assert next(answers).error is None
        with pytest.raises(KeyError, match="mine"):
            next(answers)


def test_rows_of_several_inputs_stream_as_mappings(mean_address: str) -> None:
    rows = [{"input-0": np.full((n, 4, 5, 3), n, np.uint8)} for n in (1, 3, 100)]
    with Client(mean_address) as client:
        answers = list(client.stream(rows))
    for n, answer in zip((1, 3, 100), answers, strict=True):
        np.testing.assert_array_equal(answer.checked().outputs["output-0"], np.full((n, 3), n, np.float32))


def test_more_than_the_server_takes_at_once_is_split_and_joined(mean_model: Path) -> None:
    small = ModelConfig(device="cpu", max_queue_rows=16, max_batch_size=4)
    rows = np.random.default_rng(0).integers(0, 256, (1000, 4, 5, 3), np.uint8)
    with serving(Model.load(mean_model, small)) as address, Client(address) as client:
        assert client.metadata().max_request_rows == 16
        np.testing.assert_allclose(client.infer(rows)["output-0"], rows.mean((1, 2)), rtol=1e-6)


def test_arrays_lists_and_lists_of_pictures_become_tensors(demo_address: str, mean_address: str, pictures: list[Path]) -> None:
    pixels = np.full((2, 4, 5, 3), 7, np.uint8)
    with Client(mean_address) as client:
        np.testing.assert_array_equal(client.infer(pixels)["output-0"], np.full((2, 3), 7))
        with pytest.raises(InvalidInput, match="got int64"):
            client.infer({"input-0": pixels.tolist()})
        with pytest.raises(InvalidInput, match="takes no encoded pictures"):
            client.predict(pictures[0])
        with pytest.raises(InvalidInput, match=r"expected a picture: .*; got float"):
            client.predict(1.5)  # type: ignore[call-overload]
    with Client(demo_address) as client:
        encoded = [picture.read_bytes() for picture in pictures]
        assert client.infer({"image": encoded})["probabilities"].shape == (len(pictures), 1000)


def test_a_running_server_is_ready_and_says_what_it_is(mean_address: str) -> None:
    with Client(mean_address) as client:
        assert client.ready()
        assert client.server().name == "tensign"
        assert client.model() == "mean"


def test_no_server_is_a_model_that_is_not_ready() -> None:
    with Client("127.0.0.1:1", retries=1) as client:
        with pytest.raises(ModelNotReady, match=r"127\.0\.0\.1:1"):
            client.infer({"x": np.zeros((1, 1), np.float32)})
        with pytest.raises(ModelNotReady, match=r"127\.0\.0\.1:1"):
            list(client.send_stream([b""]))


def test_several_models_need_a_name(mean_model: Path) -> None:
    models = [Model.load(mean_model, CPU, name=name) for name in ("one", "two")]
    pixels = {"input-0": np.full((1, 4, 5, 3), 9, np.uint8)}
    with serving(*models) as address:
        with Client(address) as client, pytest.raises(ModelNotFound, match=r"serves one, two: say which model"):
            client.infer(pixels)
        with Client(address, model="two") as client:
            np.testing.assert_array_equal(client.infer(pixels)["output-0"], [[9, 9, 9]])


def test_the_async_client_does_the_same(demo_address: str, pictures: list[Path]) -> None:
    async def endless() -> AsyncIterator[Path]:
        while True:
            for picture in pictures:
                yield picture

    async def use() -> tuple[Answer, list[str]]:
        async with AsyncClient(demo_address) as client:
            one = await client.predict(pictures[0])
            assert isinstance(one, Answer)
            labels: list[str] = []
            answers = client.stream(endless(), window=4)
            async for answer in answers:
                labels.append(answer.checked().label)
                if len(labels) == 12:
                    break
            await answers.aclose()
            assert await client.ready()
            return one, labels

    one, labels = asyncio.run(use())
    with Client(demo_address) as client:
        expected = [answer.label for answer in client.predict(pictures)]
    assert one.label == expected[0]
    assert labels == (expected * 2)[:12]


def test_many_threads_share_one_client(mean_address: str) -> None:
    failures: list[BaseException] = []

    def use(number: int) -> None:
        try:
            for _ in range(20):
                rows = np.full((1, 4, 5, 3), number, np.uint8)
                np.testing.assert_array_equal(client.infer(rows)["output-0"], np.full((1, 3), number, np.float32))
        except BaseException as error:
            failures.append(error)

    with Client(mean_address) as client:
        threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def test_a_closed_client_leaves_no_thread(mean_address: str) -> None:
    with Client(mean_address) as client:
        client.statistics()  # for which the server, in this process too, keeps a thread
    before = threading.active_count()
    for _ in range(3):
        client = Client(mean_address)
        answers = client.stream([{"input-0": np.zeros((1, 4, 5, 3), np.uint8)}] * 50, window=2)
        next(answers)
        client.close()
        client.close()
        with pytest.raises(TensignError, match="the client is closed"):
            list(answers)
        with pytest.raises(TensignError, match="the client is closed"):
            client.metadata()
        with pytest.raises(TensignError, match="the client is closed"):
            list(client.stream([b""]))
    assert eventually(lambda: threading.active_count() <= before)


def test_predictions_that_fail_leave_no_thread_and_no_task(demo_address: str, pictures: list[Path]) -> None:
    with Client(demo_address) as client:
        client.predict([pictures[0]])
        before = threading.active_count()
        kept = []
        for _ in range(5):
            with pytest.raises(UndecodableImage) as failed:
                client.predict([b"no picture", *pictures])
            kept.append(failed.value)  # with the frames that it came through
        assert eventually(lambda: threading.active_count() <= before)
        assert eventually(lambda: asyncio.run_coroutine_threadsafe(tasks(), client._loop).result() == 1)


async def tasks() -> int:
    return len(asyncio.all_tasks())


def eventually(holds: Callable[[], bool]) -> bool:
    """True as soon as it holds; what ends in another thread may take a moment."""
    until = time.monotonic() + 10
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def test_whatever_the_iterable_raises_reaches_the_caller(mean_address: str) -> None:
    def leaving() -> Iterator[dict[str, Any]]:
        yield {"input-0": np.zeros((1, 4, 5, 3), np.uint8)}
        raise SystemExit(3)

    with Client(mean_address) as client:
        answers = client.stream(leaving())
        assert next(answers).error is None
        with pytest.raises(SystemExit):
            next(answers)


def test_the_clients_deadline_counts_even_beyond_the_servers_default(mean_model: Path) -> None:
    hasty = ServerConfig(grpc_port=0, timeout_s=1e-6)
    rows = {"input-0": np.zeros((1, 4, 5, 3), np.uint8)}
    with serving(Model.load(mean_model, CPU), config=hasty) as address, Client(address, timeout_s=30) as client:
        assert client.infer(rows)["output-0"].shape == (1, 3)
        assert [answer.error for answer in client.stream([rows] * 3)] == [None] * 3
        [late] = client.stream([rows], timeout_s=1e-6)
        assert isinstance(late.error, DeadlineExceeded)
        with pytest.raises(DeadlineExceeded):
            client.infer(rows, timeout_s=1e-6)
        for wrong in (0, -1, float("nan")):
            with pytest.raises(InvalidConfig, match="timeout_s: wanted more than 0"):
                client.infer(rows, timeout_s=wrong)
        assert client.infer(rows, timeout_s=float("inf"))


def test_a_message_above_the_servers_limit_fails_alone_and_at_once(mean_model: Path) -> None:
    config = ServerConfig(grpc_port=0, max_message_bytes=200_000)
    small, large = ({"input-0": np.zeros((n, 4, 5, 3), np.uint8)} for n in (1, 5000))
    with serving(Model.load(mean_model, CPU), config=config) as address, Client(address) as client:
        first, refused, last = client.stream([small, large, small])
        assert first.error is None and last.error is None
        assert isinstance(refused.error, TooLarge) and "more than the server's 200000" in str(refused.error)
        assert client.infer(large)["output-0"].shape == (5000, 3)


def test_pieces_are_cut_by_the_size_of_each_row() -> None:
    encoded = TensorSpec("image", np.dtype(np.uint8), (-1, 8, 8, 3))
    metadata = ModelMetadata("m", (), "", (encoded,), (), image="image", max_request_rows=20, max_message_bytes=1_000_000)
    pictures = [b"x" * 73] * 30 + [b"y" * 197_000] * 8
    pieces = Messages(metadata, timeout_s=1).pieces({"image": pictures})
    assert max(map(len, pieces)) < 1_000_000
    requests = [pb.ModelInferRequest.FromString(piece) for piece in pieces]
    assert [row for request in requests for row in decode_request(request)["image"]] == pictures
    assert max(request.inputs[0].shape[0] for request in requests) == 20
    assert len(pieces) <= 4


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_holds_something(mean_address: str, window: int) -> None:
    with Client(mean_address) as client, pytest.raises(InvalidConfig, match="window"):
        list(client.send_stream([], window=window))


def test_errors_of_a_stream_are_the_errors_of_a_call(demo_address: str) -> None:
    with Client(demo_address) as client:
        [answer] = client.stream([b"no picture"])
        assert type(answer.error) is UndecodableImage
        with pytest.raises(UndecodableImage):
            client.predict(b"no picture")


def test_a_prediction_without_a_label_shows_its_index() -> None:
    assert Prediction.parse(b"0.25:7") == Prediction("7", 0.25, 7)
    assert Prediction.parse(b"0.25:7:a:b") == Prediction("a:b", 0.25, 7)
