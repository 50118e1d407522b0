"""JPEGs decoded on the GPU, larger than any that is bundled: pixels as near to those of the CPU as is promised."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest

from tensign.config import MAX_PIXELS
from tensign.decode import decode
from tensign.proof.samples import photographs

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

SIZE = (2400, 1600)


def enlarged() -> list[bytes]:
    """The bundled photographs, in the three samplings of colour that files have."""
    files = []
    for number, file in enumerate(photographs()):
        written = io.BytesIO()
        PIL.Image.open(file).convert("RGB").resize(SIZE).save(written, "JPEG", quality=92, subsampling=number % 3)
        files.append(written.getvalue())
    return files


def test_pixels_are_as_near_to_the_cpus_as_is_promised(device: str) -> None:
    files = enlarged()
    ours = [np.asarray(decode(file, max_pixels=MAX_PIXELS)) for file in files]
    assert {picture.shape for picture in ours} == {(SIZE[1], SIZE[0], 3)}
    if device == "cpu":
        return
    pytest.importorskip("nvidia.nvimgcodec", reason="pip install 'tensign[gpu-decode]'")
    gpudecoding = pytest.importorskip("tensign.gpudecoding")
    decoding = gpudecoding.gpu_decoding(device, threads=1, max_pixels=MAX_PIXELS)
    decoding.pixels = 1  # whether it pays or not
    for there, here in zip(decoding.pictures(files, max_pixels=MAX_PIXELS), ours, strict=True):
        apart = np.abs(np.asarray(there).astype(int) - here)
        assert apart.max() <= gpudecoding.MOST and apart.mean() <= gpudecoding.MEAN
    assert decoding.pixels == 1  # it did not give up meanwhile
