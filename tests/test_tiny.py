"""The whole promise in one test, run first: an MLmodel directory and a picture in, a label out."""

from __future__ import annotations

from pathlib import Path

from tensign import Client


def test_a_photograph_of_an_espresso_is_an_espresso(demo_address: str, pictures: list[Path]) -> None:
    coffee = next(picture for picture in pictures if picture.name.startswith("coffee"))
    with Client(demo_address) as client:
        answer = client.predict(coffee)
    assert answer.label == "espresso"
    assert answer.scores[0] > 0.8
