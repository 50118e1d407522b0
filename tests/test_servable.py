"""What is served is converted once, by one server, into a cache that is keyed by content and trust."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tensign import conversion
from tensign.conversion import servable
from tensign.errors import ParityFailed, UnsupportedModel
from tensign.mlmodel import read_mlmodel


def test_serving_converts_once_into_a_cache_keyed_by_content(fixture_dir: Callable[[str], Path], tmp_path: Path) -> None:
    source = fixture_dir("faces-fastai-2.8")
    first = servable(source, trust=True, cache=tmp_path)
    written = (first / "MLmodel").stat().st_mtime_ns
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [first.name]
    assert servable(source, trust=True, cache=tmp_path) == first
    assert (first / "MLmodel").stat().st_mtime_ns == written


def test_two_servers_that_start_at_once_convert_once(
    mlmodel: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The conversion itself is played here: what is tested is who may do it, and what a killed one leaves."""
    source, cache, converted = mlmodel(flavors={"fastai": {"fastai_version": "2.8.12"}}), tmp_path / "cache", []

    def played(source: Path, target: Path, *, trust: bool) -> str:
        assert not list(cache.glob(".*"))
        converted.append(target)
        target.mkdir()
        (target / "MLmodel").touch()
        return ""

    monkeypatch.setattr(conversion, "convert", played)
    cache.mkdir()
    (cache / f".{read_mlmodel(source).digest}-trusted-{conversion.FORMAT}-killed").mkdir()
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: servable(source, trust=True, cache=cache), range(4)))
    assert len(converted) == 1 and set(paths) == set(converted)
    for file in cache.glob("*.lock"):
        file.unlink()
    assert servable(source, trust=True, cache=cache) == converted[0]
    assert not list(cache.glob("*.lock"))  # what is there needs no writing: the cache may be part of an image


def test_what_was_made_with_trust_is_not_served_without(
    mlmodel: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, made = mlmodel(flavors={"pytorch": {}}), []

    def played(source: Path, target: Path, *, trust: bool) -> str:
        made.append(trust)
        target.mkdir()
        (target / "MLmodel").touch()
        return ""

    monkeypatch.setattr(conversion, "convert", played)
    paths = [servable(source, trust=trust, cache=tmp_path / "cache") for trust in (True, False, True, False)]
    assert made == [True, False] and paths[0] != paths[1] and paths[2:] == paths[:2]


@pytest.mark.parametrize("error", [UnsupportedModel, ParityFailed])
def test_that_a_trusted_network_cannot_be_converted_is_remembered_until_somebody_deletes_it(
    mlmodel: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[UnsupportedModel],
) -> None:
    source, cache, tried = mlmodel(flavors={"pytorch": {}}), tmp_path / "cache", []

    def played(source: Path, target: Path, *, trust: bool) -> str:
        tried.append(trust)
        raise error("of a class of its own")

    monkeypatch.setattr(conversion, "convert", played)
    for _ in range(3):
        assert servable(source, trust=True, cache=cache) == source
    (refusal,) = cache.glob("*.refused")
    assert [record.getMessage() for record in caplog.records] == [
        f"of a class of its own; it runs as it is, in a process of its own; to try again, delete {refusal}"
    ] * 3
    assert tried == [True]
    for times in (1, 2):
        with pytest.raises(error, match="of a class of its own"):
            servable(source, trust=False, cache=cache)
        assert tried.count(False) == times
    refusal.write_text('{"error')  # by a server that was killed
    servable(source, trust=True, cache=cache)
    assert tried.count(True) == 2


def test_a_model_that_is_served_as_it_is_is_not_converted(mean_model: Path, tmp_path: Path) -> None:
    assert servable(mean_model, trust=False, cache=tmp_path / "cache") == mean_model
    assert not (tmp_path / "cache").exists()
