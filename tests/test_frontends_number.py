"""How many front ends there are where nobody says."""

from __future__ import annotations

import pytest

from tensign.frontends.number import fitting


@pytest.mark.parametrize(
    ("devices", "cores", "number"),
    [
        (["cpu"], 16, 0),
        (["cuda:0"], 16, 8),
        (["cuda:0,1"], 64, 8),
        (["cuda:0"], 4, 2),
        (["cuda:0"], 2, 0),
        (["cuda:0", "cpu"], 16, 0),
    ],
)
def test_the_default_number(devices: list[str], cores: int, number: int) -> None:
    assert fitting(devices, cores) == number
