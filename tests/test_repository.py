from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import CPU
from tensign.errors import InvalidConfig, ModelNotFound, VersionNotFound
from tensign.model import Model
from tensign.repository import Repository


@pytest.fixture
def models(mean_model: Path) -> Iterator[list[Model]]:
    loaded = [Model.load(mean_model, CPU, name="m", version=version) for version in ("2", "10", "1")]
    yield loaded
    for model in loaded:
        model.close()


def test_no_version_is_the_newest_by_number(models: list[Model]) -> None:
    repository = Repository(models)
    assert repository.get("m").version == "10"
    assert repository.get("m", "2").version == "2"
    assert repository.versions("m") == ["1", "2", "10"]


def test_what_is_not_served_is_named(models: list[Model]) -> None:
    repository = Repository(models)
    with pytest.raises(ModelNotFound, match='model "other" is not served here; served: m'):
        repository.get("other")
    with pytest.raises(VersionNotFound, match='no version "3"; served: 2, 10, 1'):
        repository.get("m", "3")


def test_two_models_of_one_name_and_version_are_refused(models: list[Model]) -> None:
    with pytest.raises(InvalidConfig, match="--name"):
        Repository([models[0], models[0]])
