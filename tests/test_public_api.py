from __future__ import annotations

import tensign


def test_all_is_sorted_and_everything_in_it_can_be_had() -> None:
    assert tensign.__all__ == sorted(tensign.__all__)
    for name in tensign.__all__:
        assert getattr(tensign, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(tensign, "Clint")
