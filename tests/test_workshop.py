"""A model directory appears whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tensign_converters.workshop import workshop


def test_the_target_appears_whole_in_a_place_that_is_made_for_it(tmp_path: Path) -> None:
    target = tmp_path / "models" / "birds"
    with workshop(target) as made:
        (made / "MLmodel").touch()
        assert not target.exists()
    assert [path.name for path in target.parent.iterdir()] == ["birds"]
    assert [path.name for path in target.iterdir()] == ["MLmodel"]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), workshop(tmp_path / "birds") as made:
        (made / "MLmodel").touch()
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_a_target_that_is_there_or_comes_meanwhile_is_not_touched(tmp_path: Path) -> None:
    target = tmp_path / "birds"
    with pytest.raises(FileExistsError, match="exists by now"), workshop(target):
        target.mkdir()
        (target / "mine").touch()
    with pytest.raises(FileExistsError, match="give a directory that does not"), workshop(target):
        pass
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["birds", "birds/mine"]
