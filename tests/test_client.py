from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from conftest import CPU
from tensign.classification import Prediction
from tensign.client import Client
from tensign.errors import InvalidInput, ModelNotFound, ModelNotReady
from tensign.model import Model
from tensign.testing import serving


def test_paths_bytes_and_arrays_of_one_picture_agree(demo_address: str, pictures: list[Path]) -> None:
    with Client(demo_address) as client:
        path, data = client.classify([pictures[0], pictures[0].read_bytes()], top=3)
        [array] = client.classify([np.zeros((256, 256, 3), np.uint8)])
    assert path == data
    assert isinstance(array, list) and len(array) == 1


def test_a_stream_of_pictures_is_read_lazily(demo_address: str, pictures: list[Path]) -> None:
    asked = 0

    def endless() -> Iterator[Path]:
        nonlocal asked
        while True:
            asked += 1
            yield pictures[0]

    with Client(demo_address) as client:
        answers = client.classify(endless(), window=4)
        for _ in range(10):
            next(answers)
        assert asked <= 15
        answers.close()  # type: ignore[attr-defined]


def test_a_file_that_cannot_be_read_is_an_answer_like_any_other(
    demo_address: str, pictures: list[Path], tmp_path: Path
) -> None:
    good, missing = str(pictures[0]), tmp_path / "missing.jpg"
    orders: list[list[str | Path]] = [[missing, good, missing, missing, good], [good, missing], [missing]]
    with Client(demo_address) as client:
        for order in orders:
            answers = list(client.classify(order))
            assert [isinstance(answer, list) for answer in answers] == [image is good for image in order]
            assert all(
                "missing.jpg: No such file or directory" in str(answer) for answer in answers if not isinstance(answer, list)
            )


def test_an_error_of_the_iterable_reaches_the_caller(demo_address: str, pictures: list[Path]) -> None:
    def broken() -> Iterator[Path]:
        yield pictures[0]
        raise KeyError("mine")

    with Client(demo_address) as client:
        answers = client.classify(broken())
        assert isinstance(next(answers), list)
        with pytest.raises(KeyError, match="mine"):
            next(answers)


def test_one_picture_needs_no_list(demo_address: str, pictures: list[Path]) -> None:
    with Client(demo_address) as client:
        for image in (pictures[0], str(pictures[0]), pictures[0].read_bytes(), np.zeros((256, 256, 3), np.uint8)):
            [answer] = client.classify(image)
            assert isinstance(answer, list)


def test_arrays_lists_and_lists_of_pictures_become_tensors(demo_address: str, mean_address: str, pictures: list[Path]) -> None:
    pixels = np.full((2, 4, 5, 3), 7, np.uint8)
    with Client(mean_address) as client:
        np.testing.assert_array_equal(client.infer(pixels)["output-0"], np.full((2, 3), 7))
        with pytest.raises(InvalidInput, match="got int64"):
            client.infer({"input-0": pixels.tolist()})
        with pytest.raises(InvalidInput, match="takes no encoded images"):
            list(client.classify(pictures[0]))
    with Client(demo_address) as client:
        encoded = [picture.read_bytes() for picture in pictures]
        assert client.infer({"image": encoded})["probabilities"].shape == (len(pictures), 1000)


def test_a_running_server_is_ready(mean_address: str) -> None:
    with Client(mean_address) as client:
        assert client.ready()


def test_no_server_is_a_model_that_is_not_ready() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(ModelNotReady, match=r"127\.0\.0\.1:1"):
        client.infer({"x": np.zeros((1, 1), np.float32)})


def test_several_models_need_a_name(mean_model: Path) -> None:
    models = [Model.load(mean_model, CPU, name=name) for name in ("one", "two")]
    pixels = {"input-0": np.full((1, 4, 5, 3), 9, np.uint8)}
    with serving(*models) as address:
        with Client(address) as client, pytest.raises(ModelNotFound, match=r"serves one, two: say which model"):
            client.infer(pixels)
        with Client(address, model="two") as client:
            np.testing.assert_array_equal(client.infer(pixels)["output-0"], [[9, 9, 9]])


def test_a_prediction_without_a_label_shows_its_index() -> None:
    assert Prediction.parse(b"0.25:7") == Prediction("7", 0.25, 7)
    assert Prediction.parse(b"0.25:7:a:b") == Prediction("a:b", 0.25, 7)
