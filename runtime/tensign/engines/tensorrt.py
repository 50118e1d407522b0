"""ONNX Runtime's TensorRT provider: an engine for each batch size, built once for a model, a GPU and the versions at work.

ONNX Runtime tells cached engines apart by the model's file name, the names in its graph, its own version and the GPU's compute
capability: neither by weights, nor by the GPU's size, of which a MIG instance has less, nor by batch size. The folders do.
"""

from __future__ import annotations

import re
from pathlib import Path

from tensign.doctor.driver import find_driver
from tensign.doctor.lookup import Lookup
from tensign.doctor.runtime import find_runtime, tensorrt_version
from tensign.signature import Arrays


def folder(cache: str, device: str, lookup: Lookup | None = None) -> str:
    """Where a model's engines are kept for that GPU and these versions, below the model's own folder; "" for nowhere.

    device: as this process calls it, "cuda:0".
    """
    if not cache:
        return ""
    lookup = lookup or Lookup()
    driver, runtime = find_driver(lookup), find_runtime(lookup)
    gpu = driver.gpu(device) if driver else None
    named = f"{gpu.name} {gpu.memory_bytes >> 20} MiB sm{gpu.capability[0]}{gpu.capability[1]}" if gpu else "unknown GPU"
    versions = f"driver {driver.version if driver else ''} TensorRT {tensorrt_version(lookup)}"
    whole = f"{named} {versions} onnxruntime {runtime.version if runtime else ''}"
    return str(Path(cache, re.sub(r"[^A-Za-z0-9.]+", "-", whole).strip("-")))


def settings(index: int, batch: Arrays | None, kept: str, *, half: bool = False) -> dict[str, str]:
    """Of the provider. batch: of the one shape that the engine is built for, None where it runs any; kept: what `folder` gave;
    half: the network has float16 in it, which TensorRT refuses unless it is told that it may use it.
    """
    made = {"device_id": str(index), "trt_fp16_enable": str(int(half))}
    if batch is not None and not any(re.search("[:,]", name) for name in batch):  # which the setting cannot hold
        shapes = ",".join(f"{name}:{'x'.join(map(str, array.shape))}" for name, array in batch.items())
        made |= {f"trt_profile_{bound}_shapes": shapes for bound in ("min", "opt", "max")}
    if not kept:
        return made
    place = Path(kept, "any" if batch is None else str(len(next(iter(batch.values())))))
    place.mkdir(parents=True, exist_ok=True)
    cached = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(place), "trt_timing_cache_enable": "1"}
    return made | cached | {"trt_timing_cache_path": kept}
