"""Pictures of a folder: which int8 is calibrated on, which are held back, and pieces of them where they are few."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from precision_network import folder_of, noise
from tensign.decode import decode
from tensign.errors import InvalidConfig, UnsupportedModel
from tensign.hoststeps import CropPad, HostStep, Resize
from tensign.preprocess import PreprocessSpec
from tensign.proof.samples import photographs

pytest.importorskip("torch")

from tensign_converters.precision import calibration
from tensign_converters.precision.calibration import Calibration, example_rows, pictures


def found_in(folder: Path, *steps: HostStep) -> Calibration:
    return pictures(folder, PreprocessSpec(steps), "image")


def judged_on(found: Calibration) -> list[npt.NDArray[np.uint8]]:
    """What is held back, as it reaches the graph that takes 40x50."""
    values = [sample["image"] for sample in found.held]
    read = [np.asarray(PIL.Image.open(value)) if isinstance(value, Path) else value for value in values]
    return [PreprocessSpec((Resize(40, 50),)).arrays(value[None]) for value in read]


def test_few_pictures_are_cut_on_either_side_and_what_is_none_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "few", [PIL.Image.open(file).convert("RGB") for file in photographs()[:3]])
    (folder / "deep").mkdir()
    (folder / "deep" / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "notes.txt").write_text("no picture, and no picture's name")
    found = found_in(folder, Resize(40, 50))
    torn = "1 cannot be used: 'torn.jpg': 3 bytes are no JPEG, PNG, WEBP, BMP picture"
    assert found.told == f"2 pictures and 98 pieces of them; {torn}"
    assert found.held.told == "1 picture held back from calibration and 99 pieces of it"
    assert next(iter(found.held)) == {"image": folder / "000.png"}
    assert {row.shape for row in (*found.rows, *judged_on(found))} == {(1, 40, 50, 3)}
    assert len({row.tobytes() for row in (*found.rows, *judged_on(found))}) == 200
    again = found_in(folder, Resize(40, 50))
    assert all(np.array_equal(*pair) for pair in zip(found.rows, again.rows, strict=True))
    assert all(np.array_equal(*pair) for pair in zip(judged_on(found), judged_on(again), strict=True))


def test_of_a_single_picture_other_pieces_are_held_back(tmp_path: Path) -> None:
    found = found_in(folder_of(tmp_path / "one", [PIL.Image.open(photographs()[0]).convert("RGB")]), Resize(40, 50))
    assert found.told == "1 picture and 99 pieces of it"
    assert found.held.told == "100 other pieces of the only picture that it was calibrated on"
    assert len({row.tobytes() for row in (*found.rows, *judged_on(found))}) == 200


def test_of_enough_pictures_a_third_is_held_back_and_too_many_are_thinned(tmp_path: Path) -> None:
    images = [PIL.Image.fromarray(row) for row in noise(30)]
    found = found_in(folder_of(tmp_path / "enough", images))
    assert found.told == "20 pictures" and found.held.told == "10 pictures held back from calibration and 90 pieces of them"
    assert [found.held[row]["image"].name for row in range(3)] == ["000.png", "002.png", "004.png"]
    kept = {sample["image"].tobytes() for sample in found.held if not isinstance(sample["image"], Path)}
    assert len(kept) == 90 and not kept & {row.tobytes() for row in found.rows}
    many = [PIL.Image.fromarray(row[:2, :2]) for row in noise(330)]
    found = found_in(folder_of(tmp_path / "many", many), CropPad(4, 4))
    assert found.told == "200 pictures" and found.held.told == "100 pictures held back from calibration"


@pytest.mark.parametrize("count", [10, 299])
def test_names_that_come_in_turn_are_on_both_sides_alike(tmp_path: Path, count: int) -> None:
    """And where there are more than are read."""
    for number, row in enumerate(noise(3 * count)):
        PIL.Image.fromarray(row[:2, :2]).save(tmp_path / f"{number // 3:03}{('cat', 'dog', 'owl')[number % 3]}.png")
    found = found_in(tmp_path, CropPad(4, 4))
    kinds = [sample["image"].stem[3:] for sample in found.held if isinstance(sample["image"], Path)]
    assert len(kinds) == min(count, 100) and min(map(kinds.count, ("cat", "dog", "owl"))) > len(kinds) / 6


def test_odd_names_are_told_in_one_line_of_text(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "odd", [PIL.Image.new("RGB", (4, 4))])
    for name in (b"a\nb.png", b"\xff.png"):
        (folder / os.fsdecode(name)).write_bytes(b"torn")
    told = found_in(folder).told
    assert told.isprintable() and told.isascii() and r"'a\nb.png': " in told and r"'\udcff.png': " in told


def test_copies_are_on_one_side_alone(tmp_path: Path) -> None:
    images = [PIL.Image.fromarray(row) for row in noise(3)]
    folder = folder_of(tmp_path / "copied", [images[0], images[0], images[1], images[1], images[2]])
    images[0].save(folder / "0.bmp")
    found = found_in(folder)
    assert found.told == "2 pictures and 98 pieces of them; 3 more show the same as others"
    whole = [row.tobytes() for row in found.rows[:2]]
    assert next(iter(found.held)) == {"image": folder / "0.bmp"} and whole == [images[1].tobytes(), images[2].tobytes()]


def test_one_picture_is_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def noted(content: bytes, **options: Any) -> PIL.Image.Image:
        opened.append(next(file for file in (tmp_path / "few").iterdir() if file.read_bytes() == content))
        return decode(content, **options)

    monkeypatch.setattr(calibration, "decode", noted)
    found = found_in(folder_of(tmp_path / "few", [PIL.Image.fromarray(row) for row in noise(7)]))
    once = [tmp_path / "few" / f"{number:03}.png" for number in (1, 2, 3, 4, 6)]
    assert opened == once and found.told == "5 pictures and 95 pieces of them"
    assert len(list(found.held)) == 100 and opened[5:] == [tmp_path / "few" / f"{number:03}.png" for number in (0, 5)]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"torn")
    with pytest.raises(InvalidConfig, match=r"found none that can be used; 1 cannot be used: 'a\.png'"):
        found_in(tmp_path)


def test_pictures_of_a_size_that_nothing_resizes_are_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "large", [PIL.Image.new("RGB", (70, 60)), PIL.Image.new("RGB", (50, 40))])
    found = pictures(folder, PreprocessSpec(), "image", (40, 50))
    said = "1 cannot be used: '000.png': the model resizes nothing and wants 40x50 pixels, got 60x70"
    assert found.told == f"1 picture and 99 pieces of it; {said}" and {row.shape for row in found.rows} == {(1, 40, 50, 3)}


def test_tensors_are_calibrated_on_a_saved_example_of_enough_rows() -> None:
    numbers = np.arange(25.0)
    rows, told, held = example_rows({"a": numbers[:, None] * np.ones(3), "b": np.zeros((25, 2))})
    of = "rows of the saved input example"
    assert told == f"17 {of}" and held.told == f"8 {of} held back from calibration"
    assert {name: row.shape for name, row in rows[0].items()} == {"a": (1, 3), "b": (1, 2)}
    assert {name: value.shape for name, value in held[0].items()} == {"a": (3,), "b": (2,)}
    assert sorted([*(row["a"][0, 0] for row in rows), *(sample["a"][0] for sample in held)]) == numbers.tolist()
    many = example_rows({"a": np.ones((999, 1))})
    assert len(many[0]) == 200 and len(many[2]) == 100
    for example, count in (({"a": np.ones((19, 3))}, 19), (None, 0)):
        with pytest.raises(UnsupportedModel, match=f"its saved input example has {count} rows; wanted 20"):
            example_rows(example)
