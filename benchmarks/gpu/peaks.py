"""What a device could do at most: by its data sheet, and by what was measured on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "int8": 1}


def limits(work: Mapping[str, Any], arithmetic: str, peaks: Mapping[str, float], batch: int) -> dict[str, float]:
    """Images/s {"by_arithmetic", "by_memory"} that peak rates allow; work: of gpu/roofline.py; peaks: FLOP/s by arithmetic,
    bytes/s of "memory"."""
    found = {}
    if arithmetic in peaks:
        found["by_arithmetic"] = peaks[arithmetic] / work["flop"]
    if "memory" in peaks:
        moved = _BYTES[arithmetic] * (work["elements"] + work["weights"] / batch)
        found["by_memory"] = peaks["memory"] / moved
    return found


# FLOP/s without sparsity and bytes/s, by NVIDIA's data sheets; the name as the driver tells it.
DATA_SHEETS: dict[str, dict[str, float]] = {
    "NVIDIA H200": {"fp32": 67e12, "tf32": 494e12, "fp16": 989e12, "bf16": 989e12, "int8": 1979e12, "memory": 4.8e12},
    "NVIDIA H100 80GB HBM3": {
        "fp32": 67e12,
        "tf32": 494e12,
        "fp16": 989e12,
        "bf16": 989e12,
        "int8": 1979e12,
        "memory": 3.35e12,
    },
    "NVIDIA H100 PCIe": {"fp32": 51e12, "tf32": 378e12, "fp16": 756e12, "bf16": 756e12, "int8": 1513e12, "memory": 2.0e12},
    "NVIDIA A100-SXM4-80GB": {
        "fp32": 19.5e12,
        "tf32": 156e12,
        "fp16": 312e12,
        "bf16": 312e12,
        "int8": 624e12,
        "memory": 2.039e12,
    },
    "NVIDIA A100-SXM4-40GB": {
        "fp32": 19.5e12,
        "tf32": 156e12,
        "fp16": 312e12,
        "bf16": 312e12,
        "int8": 624e12,
        "memory": 1.555e12,
    },
    "Tesla T4": {"fp32": 8.1e12, "fp16": 65e12, "int8": 130e12, "memory": 0.32e12},
}


def measured(ceilings: Mapping[str, Any]) -> dict[str, float]:
    """The same rates out of the cells of the step `ceilings`; of what it skipped there is none."""
    found = {
        arithmetic: rate
        for arithmetic in ("fp32", "tf32", "fp16", "bf16")
        if (rate := ceilings.get(f"matrix product, {arithmetic}", {}).get("flop_per_s"))
    }
    memory = ceilings.get("copy on the device", {}).get("bytes_per_s")
    return {**found, "memory": memory} if memory else found
