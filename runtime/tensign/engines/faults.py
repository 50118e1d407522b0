"""What an error of a GPU means: too little memory, or a device that only a new process can use again."""

from __future__ import annotations

import re

from tensign.errors import DeviceLost, OutOfMemory, TensignError

_OUT_OF_MEMORY = re.compile(
    r"CUDA (?:failure|error) 2\b|CUDA_ERROR_OUT_OF_MEMORY|out of memory|Failed to allocate memory for requested buffer|"
    r"Available memory of \d+ is smaller than requested bytes|"  # of an arena of ONNX Runtime that has its limit
    r"CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
# Errors after which a context answers nothing else any more, and those of a device that is gone.
_CODES = frozenset((46, 100, 101, 214, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 720, 802, 999))
_NUMBERED = re.compile(r"CUDA (?:failure|error) (\d+)\b")
_TEXTS = {  # torch gives no numbers before 2.8, but the CUDA runtime's own words
    "CUDA-capable device(s) is/are busy or unavailable": 46,
    "no CUDA-capable device is detected": 100,
    "invalid device ordinal": 101,
    "uncorrectable ECC error encountered": 214,
    "an illegal memory access was encountered": 700,
    "the launch timed out and was terminated": 702,
    "context is destroyed": 709,
    "device-side assert triggered": 710,
    "hardware stack error": 714,
    "an illegal instruction was encountered": 715,
    "misaligned address": 716,
    "operation not supported on global/shared address space": 717,
    "invalid program counter": 718,
    "unspecified launch failure": 719,
    "system not yet initialized": 802,
    "unknown error": 999,
}
_WORDED = re.compile("(?:CUDA (?:driver )?error|Triton Error \\[CUDA\\]): ({})".format("|".join(map(re.escape, _TEXTS))))


def told(error: Exception, device: str) -> TensignError | None:
    """What a failure of ONNX Runtime or torch means for the device, None where it is the model's own."""
    text = " ".join(str(error).split())
    codes = [getattr(error, "error_code", None), *map(int, _NUMBERED.findall(text)), *map(_TEXTS.get, _WORDED.findall(text))]
    lost = [code for code in codes if code in _CODES]
    if lost:
        return DeviceLost(f"{device}: CUDA error {lost[0]}, after which only a new process can use the device again")
    if _OUT_OF_MEMORY.search(text):
        return OutOfMemory(f"{device}: its memory does not hold a batch of so many rows")
    return None
