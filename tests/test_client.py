from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from conftest import CPU
from tensign.classification import Prediction
from tensign.client import Client
from tensign.errors import ModelNotFound, ModelNotReady
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


def test_an_error_of_the_iterable_reaches_the_caller(demo_address: str, pictures: list[Path], tmp_path: Path) -> None:
    with Client(demo_address) as client:
        answers = client.classify([pictures[0], tmp_path / "missing.jpg"])
        assert isinstance(next(answers), list)
        with pytest.raises(FileNotFoundError, match=r"missing\.jpg"):
            next(answers)


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
        with Client(address) as client, pytest.raises(ModelNotFound, match=r"serves \['one', 'two'\]; say which"):
            client.infer(pixels)
        with Client(address, model="two") as client:
            np.testing.assert_array_equal(client.infer(pixels)["output-0"], [[9, 9, 9]])


def test_a_prediction_without_a_label_shows_its_index() -> None:
    assert Prediction.parse(b"0.25:7") == Prediction("7", 0.25, 7)
    assert Prediction.parse(b"0.25:7:a:b") == Prediction("a:b", 0.25, 7)
