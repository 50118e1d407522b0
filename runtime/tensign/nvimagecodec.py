"""JPEG decoding on a CUDA device, by NVIDIA's nvImageCodec."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensign.decode import Pixels
from tensign.errors import ProviderUnavailable

_GET = "pip install 'tensign[gpu-decode]', or leave --gpu-decoding out"
# Chroma as libjpeg-turbo brings it to full size: without, pixels are off by 40 of 255.
_OPTIONS = ":fancy_upsampling=1"


class NvImageCodec:
    """Decodes on one device, from any number of threads at once. Raises ProviderUnavailable where it cannot.

    index: of the device; None is nvImageCodec's own decoder on the CPU, with which all but the device is tried out.
    """

    def __init__(self, index: int | None) -> None:
        os.environ.setdefault("PYNVIMGCODEC_VERBOSITY", "0")  # else each broken picture writes lines to standard error
        try:
            from nvidia import nvimgcodec
        except ImportError as error:
            raise ProviderUnavailable(f"--gpu-decoding: nvidia-nvimgcodec-cu13 cannot be imported ({error}): {_GET}") from None
        self._library: Any = nvimgcodec
        self._index = index
        # RGB of three channels in any case; turning is left to who reads EXIF on the CPU.
        self._params = nvimgcodec.DecodeParams(
            apply_exif_orientation=False,
            color_spec=nvimgcodec.ColorSpec.SRGB,
            sample_format=nvimgcodec.SampleFormat.I_RGB,
        )
        # One decoder answers one thread at a time: called by several it loses answers, or waits for ever.
        self._free = [self._opened()]

    def decode(self, encoded: Sequence[bytes]) -> list[Pixels | None]:
        """uint8 [H,W,3] of each, not turned; None of what it cannot decode.

        Raises whatever nvImageCodec does where the device fails, as it does for no picture.
        """
        try:
            decoder = self._free.pop()
        except IndexError:
            decoder = self._opened()
        images = decoder.decode([self._library.CodeStream(each) for each in encoded], params=self._params)
        copies = [image and image.cpu() for image in images]
        self._free.append(decoder)  # not after an error, which leaves it in an unknown state
        return [None if copy is None else np.asarray(copy) for copy in copies]

    def _opened(self) -> Any:
        """One of a single CPU thread, as there is one for each thread of ours. The hardware engine is left out: which picture
        it takes depends on its load, and its pixels are others."""
        kinds = self._library.BackendKind
        kind, index = (kinds.HYBRID_CPU_GPU, self._index) if self._index is not None else (kinds.CPU_ONLY, -99999)
        try:
            return self._library.Decoder(
                device_id=index, max_num_cpu_threads=1, backends=[self._library.Backend(kind)], options=_OPTIONS
            )
        except RuntimeError as error:
            said = " ".join(str(error).split())[:200]
            raise ProviderUnavailable(f"--gpu-decoding: no decoder on cuda:{index} ({said}): {_GET}") from None
