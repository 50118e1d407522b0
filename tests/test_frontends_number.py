"""How many front ends there are where nobody says."""

from __future__ import annotations

from typing import Any

import pytest

from tensign.config import ServerConfig
from tensign.errors import InvalidConfig
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


@pytest.mark.parametrize("shared", [{"shared_memory": ("a",)}, {"cuda_shared_memory": True}], ids=["system", "cuda"])
def test_memory_that_clients_share_goes_with_none(shared: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match="front_ends: shared memory would be registered with one of them alone"):
        ServerConfig(front_ends=1, **shared)
