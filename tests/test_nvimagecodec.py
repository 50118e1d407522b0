"""nvImageCodec's own decoder on the CPU, where the package is installed: all of the way but the device."""

from __future__ import annotations

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tensign.config import MAX_PIXELS
from tensign.crossover import Difference, difference
from tensign.decode import decode
from tensign.doctor.driver import find_driver
from tensign.doctor.lookup import Lookup
from tensign.errors import ProviderUnavailable
from tensign.nvimagecodec import NvImageCodec

INSTALLED = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.nvimgcodec") is not None
installed = pytest.mark.skipif(not INSTALLED, reason="nvidia-nvimgcodec-cu13 is not installed")


def test_without_the_package_it_is_told_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "nvidia"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nvidia", None)
    with pytest.raises(ProviderUnavailable, match=r"pip install 'tensign\[gpu-decode\]', or leave --gpu-decoding out"):
        NvImageCodec(0)


@installed
@pytest.mark.skipif(find_driver(Lookup()) is not None, reason="there is a driver")
def test_without_a_driver_there_is_no_decoder() -> None:
    with pytest.raises(ProviderUnavailable, match="no decoder on cuda:0"):
        NvImageCodec(0)


@installed
def test_its_decoder_on_the_cpu_has_the_same_pixels() -> None:
    assert difference(NvImageCodec(None)) == Difference(0, 0.0)


@installed
def test_many_threads_have_a_decoder_each(pictures: list[Path]) -> None:
    files = [file.read_bytes() for file in pictures if file.suffix == ".jpg"]
    wanted = [np.asarray(decode(file, max_pixels=MAX_PIXELS)) for file in files]
    codec = NvImageCodec(None)

    def all_right(_: int) -> bool:
        *decoded, junk = codec.decode([*files, b"junk"])
        if junk is not None:
            return False
        return all(found is not None and np.array_equal(found, each) for found, each in zip(decoded, wanted, strict=True))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(all_right, range(40)))
